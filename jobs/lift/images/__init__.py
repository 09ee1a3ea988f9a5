"""Sets of images with captions, wherever `plinth.storage` reaches.

sets       what a set gives: pieces, records; its config
archive    WebDataset tar files
table      Parquet with image bytes or paths
folder     images in a folder, captions in a JSONL or CSV file
"""
