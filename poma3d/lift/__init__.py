"""From a single image to depth and a camera, and on to a sample of one view.

lifter        what a lifter takes and gives; memory that runs out halves the batch
given         depth and camera that come with the image
depth_pro     metric depth and focal length (transformers)
vggt          depth, camera and confidence (the official package)
config        settings of the filters and of the conversion
filters       what is too bad to learn from, and duplicates
convention    axes, scale and confidence: lifted -> sample
"""
