"""`run.py top`: the figures of all processes and what the database holds, live on a terminal."""
