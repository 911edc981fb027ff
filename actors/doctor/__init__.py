"""`run.py doctor`: looks at everything that a host of Scorewire needs, and says what to do about it."""
