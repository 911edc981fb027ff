"""What can go wrong around HAProxy.

HaproxyError
├── BinaryError       there is no HAProxy to run, or it cannot do what is needed: whoever installs must act
├── RefusedError      HAProxy refuses a configuration: whoever configured it must act; the old one runs on
├── SocketError       the runtime socket does not answer: the agent looks whether HAProxy lives
└── ReloadError       HAProxy did not take up a new structure: the old one runs on, and the agent tries again
"""

from __future__ import annotations


class HaproxyError(Exception):
    """The base of the errors of this room."""


class BinaryError(HaproxyError):
    """Raised when no HAProxy is found. Whoever installs must act."""


class RefusedError(HaproxyError):
    """Raised when HAProxy refuses a configuration; with its own words."""


class SocketError(HaproxyError):
    """Raised when a runtime socket cannot be reached, or refuses a command."""


class ReloadError(HaproxyError):
    """Raised when HAProxy did not take up a new configuration in time. What ran before runs on."""
