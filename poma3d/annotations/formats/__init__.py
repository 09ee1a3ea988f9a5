"""A reader per format, and what they share: files, fields, which format a file is of."""
