"""What a gateway says when something goes wrong: a status, and an error with its name, field and rule.

HttpError                     the request is at fault as HTTP, before anybody looked at what it asks
├── NotFoundError       404   there is no such path, model or version
├── MethodError         405   the path takes another method
├── SlowRequestError    408   the body did not arrive in time
└── MediaTypeError      415   the body is encoded in a way that is not taken
NotReadyError           503   an UnavailableError: this gateway holds no release yet, or leaves

All else are the client library's errors, as they come from the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from transport.client.errors import OverloadedError, ScorewireError, UnavailableError


class HttpError(ScorewireError):
    """The base of what is wrong with a request as HTTP. The caller must change it."""

    status: ClassVar[int] = 400


class NotFoundError(HttpError):
    """Raised when there is no such path, model or version."""

    code = "not_found"
    status = 404


class MethodError(HttpError):
    """Raised when a path takes another method; `allow` says which."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path takes {allow}", field="method", rule="allow")
        self.allow = allow


class SlowRequestError(HttpError):
    """Raised when a request's body did not arrive in time."""

    code = "slow_request"
    status = 408


class MediaTypeError(HttpError):
    """Raised when a body is encoded in a way that is not taken. The caller must send it as it is."""

    code = "media_type"
    status = 415


class NotReadyError(UnavailableError):
    """Raised when this gateway holds no release yet, or leaves. Another one can be asked."""

    code = "not_ready"


#: The status of each error that nodes name; of those that are not here, 500.
_STATUS: Final[Mapping[str, int]] = {
    "refused": 400,
    "protocol": 400,
    "bad_transaction": 422,
    "too_large": 413,
    "unavailable": 503,
    "not_ready": 503,
    "overloaded": 503,
    "no_node": 503,
    "closed": 503,
    "unknown_release": 404,
    "node_failed": 502,
    "deadline_exceeded": 504,
}
#: Seconds after which to try again what could not be answered, where nobody says.
_RETRY_S = 1


def status_of(error: ScorewireError) -> int:
    """Return the status that tells an error."""
    return error.status if isinstance(error, HttpError) else _STATUS.get(error.code, 500)


def headers_of(error: ScorewireError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with an error: when to come again, what a path or a body may be."""
    if isinstance(error, MethodError):
        return [(b"allow", error.allow.encode())]
    if isinstance(error, MediaTypeError):
        return [(b"accept-encoding", b"gzip, deflate")]
    if status_of(error) == 503:  # noqa: PLR2004 - Service Unavailable
        wait_s = error.retry_after if isinstance(error, OverloadedError) else 0.0
        return [(b"retry-after", b"%d" % max(_RETRY_S, math.ceil(wait_s)))]
    return []


def body_of(error: ScorewireError) -> dict[str, Any]:
    """Return an error as JSON says it: `error` is its name, `detail` a sentence for a person."""
    found: dict[str, Any] = {
        "error": error.code,
        "detail": error.detail,
        "field": error.field,
        "rule": error.rule,
    }
    if isinstance(error, OverloadedError) and error.retry_after:
        found["retry_after_s"] = error.retry_after
    return found
