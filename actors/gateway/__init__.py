"""The HTTP door: JSON transactions, and the Open Inference Protocol."""
