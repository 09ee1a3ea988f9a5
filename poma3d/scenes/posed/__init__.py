"""What readers share whose recordings state all poses at once.

reader        scans found, frames collected or left out, up and upright, frames decoded
trajectories  text files of poses and times
"""
