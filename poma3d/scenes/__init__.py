"""Posed RGB-D frames from several sources, and their way into samples.

frame         what a reader yields
rooms         procedural rooms (furniture, raycast, captions)
seven_scenes  frame-NNNNNN.{color.jpg,depth.png,pose.txt}
scannet       ScanNet as exported on disk
views         frames -> samples: filters, coverage, sub-scenes, single images
"""
