"""Posed RGB-D frames from several sources, and their way into samples.

frame         what a reader yields
rooms         procedural rooms (furniture, raycast, captions)
seven_scenes  frame-NNNNNN.{color.jpg,depth.png,pose.txt}
scannet       ScanNet as exported on disk
scannet_sens  ScanNet's .sens recordings
three_rscan   3RScan
arkitscenes   ARKitScenes
turns         pictures that were stored on their side
views         frames -> samples: filters, coverage, sub-scenes, single images
"""
