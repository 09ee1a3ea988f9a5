"""Posed RGB-D frames from several sources, and their way into samples.

frame         what a reader yields
seven_scenes  frame-NNNNNN.{color.jpg,depth.png,pose.txt}
scannet       ScanNet as exported on disk
scannet_sens  ScanNet's .sens recordings
three_rscan   3RScan
arkitscenes   ARKitScenes
scene_point   ScenePoint's published point maps
orientation   which way is up, in the world and in the pictures
scans         what the readers of recorded scans share
views         frames -> samples: filters, coverage, sub-scenes, single images
"""
