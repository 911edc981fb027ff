"""Behaviour: supervisor, preprocessor, scorer and governance actors, and the processes they live in."""
