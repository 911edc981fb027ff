"""The chaos bench: load on the whole system while everything in it is killed, stopped, filled, replaced."""
