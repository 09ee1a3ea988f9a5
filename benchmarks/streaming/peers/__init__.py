"""Other libraries that stream training data, each in its own format, in an environment of their own."""
