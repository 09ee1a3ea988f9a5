"""What a pretrained encoder is worth: pure functions on arrays of features.

`retrieval` is zero-shot, `probe` trains a linear classifier on frozen features,
`bootstrap` gives all of them intervals over scenes.
"""
