"""What can go wrong in the sockets of a node.

TransportError
├── BindRefusedError   a socket would listen where it must not, or cannot
└── TeeFrameError      a frame is none that a preprocessor and its tee exchange: it is counted and left out
"""

from __future__ import annotations


class TransportError(Exception):
    """The base of the errors of this room."""


class BindRefusedError(TransportError):
    """Raised when a node may not, or cannot, listen at an address. Whoever configured it must act."""


class TeeFrameError(TransportError):
    """Raised when a frame between a preprocessor and its tee cannot be read. Nobody need act."""
