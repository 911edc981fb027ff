"""Scores transactions on a Scorewire: the client library, which needs only pyzmq and msgpack.

Inside the project it is `transport.client`; other teams install it as `scorewire_client`.
"""

from .answer import Answer, Decision, Trace
from .client import AsyncClient, Client
from .errors import (
    ClosedError,
    CodeFailedError,
    DeadlineExceededError,
    NodeFailedError,
    NoNodeError,
    NoScoreError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    ScorewireError,
    TooLargeError,
    TransactionRefusedError,
    UnavailableError,
    UnknownReleaseError,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClosedError",
    "CodeFailedError",
    "DeadlineExceededError",
    "Decision",
    "NoNodeError",
    "NoScoreError",
    "NodeFailedError",
    "OverloadedError",
    "ProtocolError",
    "RefusedError",
    "ScorewireError",
    "TooLargeError",
    "Trace",
    "TransactionRefusedError",
    "UnavailableError",
    "UnknownReleaseError",
]
