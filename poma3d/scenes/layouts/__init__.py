"""The readers, one file per layout of files on disk.

seven_scenes  frame-NNNNNN.{color.jpg,depth.png,pose.txt}
scannet       ScanNet as exported on disk
scannet_sens  ScanNet's .sens recordings
three_rscan   3RScan
arkitscenes   ARKitScenes
scene_point   ScenePoint's published point maps
nerfstudio    transforms.json with depth
tum           TUM RGB-D
open3d        Open3D's and Redwood's trajectory.log
replica       Replica as rendered for SLAM
matterport    Matterport3D, undistorted
bundle_fusion BundleFusion and 12-Scenes
scenezoo      ScanNet++, MultiScan, Structured3D, through a package
"""
