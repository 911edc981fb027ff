"""What can go wrong in the sockets of a node, and in the memory that it shares.

TransportError
├── BindRefusedError   a socket would listen where it must not, or cannot
└── TeeRingError       a ring between a preprocessor and its tee cannot be made or read, or a record in it
"""

from __future__ import annotations


class TransportError(Exception):
    """The base of the errors of this room."""


class BindRefusedError(TransportError):
    """Raised when a node may not, or cannot, listen at an address. Whoever configured it must act."""


class TeeRingError(TransportError):
    """Raised when a ring cannot be made, or what is in it cannot be read; names the file, and why."""
