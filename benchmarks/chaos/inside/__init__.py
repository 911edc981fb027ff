"""What the chaos bench puts into the processes that it starts; nothing else ever loads it."""
