"""Examples: a simulator of card payments, the demo, and how to call a Scorewire."""
