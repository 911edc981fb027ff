"""What can go wrong in the sockets of a node.

TransportError
└── BindRefusedError   a socket would listen where it must not, or cannot
"""

from __future__ import annotations


class TransportError(Exception):
    """The base of the errors of this room."""


class BindRefusedError(TransportError):
    """Raised when a node may not, or cannot, listen at an address. Whoever configured it must act."""
