"""The one adapter for Ray's private names: an upgrade of Ray is checked and mended here.

`tests/unit/plinth/ray_internals` has a test for each borrowed name. Ray is imported inside the functions,
because files that run without Ray may import these.
"""
