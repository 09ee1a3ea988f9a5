"""Posed RGB-D frames from several sources, and their way into samples.

frame         what a reader yields
files         reading the files of recorded scans
text_files    reading their text: lines, numbers
scan_captions captions.json of a recorded scan
scans         what the readers of recorded scans share
marks         by which files a layout is told from others
layouts/      the readers, one file per layout
checks        what a frame must be to be used
colour        pictures brought to the view of their depth maps
orientation   which way is up, in the world and in the pictures
annotations   captions from JSON and JSONL files of a data set
views         frames -> samples: filters, coverage, sub-scenes, single images
"""
