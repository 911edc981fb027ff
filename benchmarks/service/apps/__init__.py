"""What the peers run, each in the interpreter of its own."""
