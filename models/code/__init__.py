"""Code packages: pure-Python wheels that hold a stage of the evaluation, read and installed, not run."""
