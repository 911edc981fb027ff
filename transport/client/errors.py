"""What can go wrong for a caller, by what the caller can do about it.

ScorewireError
├── RefusedError                  the request is at fault: change it, sending it again does not help
│   ├── TransactionRefusedError   a field of the transaction breaks a rule (carries `field` and `rule`)
│   ├── TooLargeError             the message is over the size limit
│   └── ProtocolError             the message is not one of this protocol, or of another version of it
├── UnavailableError              nothing is wrong with the request: try again later
│   ├── DeadlineExceededError     no answer came in time
│   ├── NoNodeError               no node of the pool could be reached in time
│   ├── OverloadedError           every node is full, or the caller's own window is
│   ├── UnknownReleaseError       no node holds the release that was asked for
│   └── NodeFailedError           the nodes that held the request failed, each in turn
├── CodeFailedError               the release's own code failed on this transaction (carries `rule`): nobody
│                                 asks again, whoever promoted that code must act
├── NoScoreError                  the score of a fallback answer was asked for: look at its decision
└── ClosedError                   the client was closed

On the wire an error is its `code`, a sentence, and where there is one a field and a rule.
"""

from __future__ import annotations

from typing import ClassVar


class ScorewireError(Exception):
    """The base of all errors that a caller can meet.

    Attributes:
        code: the stable name of the error on the wire.
        detail: a sentence for a person.
        field: the field of the transaction at fault, or "".
        rule: the short name of the rule that it breaks, or "".
    """

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, field: str = "", rule: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[object, ...]:
        """Keep field and rule when the error crosses a process boundary (pickle)."""
        return (_rebuild, (type(self), self.detail, self.field, self.rule))


class RefusedError(ScorewireError):
    """Raised when the request itself is at fault. The caller must change it."""

    code = "refused"


class TransactionRefusedError(RefusedError):
    """Raised when a field of the transaction breaks a rule. The caller must mend that field."""

    code = "bad_transaction"


class TooLargeError(RefusedError):
    """Raised when a message is over the size limit. The caller must send less."""

    code = "too_large"


class ProtocolError(RefusedError):
    """Raised when a message cannot be read: random bytes, or another version of the protocol."""

    code = "protocol"


class UnavailableError(ScorewireError):
    """Raised when a sound request could not be answered. The caller may try again later."""

    code = "unavailable"


class DeadlineExceededError(UnavailableError):
    """Raised when no answer came before the deadline."""

    code = "deadline_exceeded"


class NoNodeError(UnavailableError):
    """Raised when no node of the pool could be reached before the deadline."""

    code = "no_node"


class OverloadedError(UnavailableError):
    """Raised when every node refuses more work. The caller should slow down.

    Attributes:
        retry_after: seconds after which there may be room; 0.0 where nobody said.
    """

    code = "overloaded"

    def __init__(self, detail: str, *, field: str = "", rule: str = "", retry_after: float = 0.0) -> None:
        super().__init__(detail, field=field, rule=rule)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Keep how long to wait as well."""
        return (_rebuild_overloaded, (self.detail, self.retry_after))


class UnknownReleaseError(UnavailableError):
    """Raised when no node holds the release that was named, or no release was promoted yet."""

    code = "unknown_release"


class NodeFailedError(UnavailableError):
    """Raised when several nodes in turn failed while they held the request."""

    code = "node_failed"


class CodeFailedError(ScorewireError):
    """Raised when a code package of the release failed on this transaction.

    It would fail elsewhere as well, so it is not asked elsewhere. `field` is the stage, and `rule` how it
    failed: `exception`, `crash`, `budget`, `memory`, `shape`, `type` or `infinite`. Whoever promoted it acts.
    """

    code = "code_failed"


class NoScoreError(ScorewireError):
    """Raised when the score of a fallback answer is asked for: it has none. The caller reads its decision."""

    code = "no_score"


class ClosedError(ScorewireError):
    """Raised when a closed client is used, and for what was under way when it was closed."""

    code = "closed"


_BY_CODE: dict[str, type[ScorewireError]] = {
    cls.code: cls
    for cls in (
        RefusedError,
        TransactionRefusedError,
        TooLargeError,
        ProtocolError,
        UnavailableError,
        DeadlineExceededError,
        NoNodeError,
        OverloadedError,
        UnknownReleaseError,
        NodeFailedError,
        CodeFailedError,
    )
}


def error_from_wire(code: str, detail: str, field: str, rule: str) -> ScorewireError:
    """Build the error that a node named; a code of a newer node becomes a plain ScorewireError."""
    known = _BY_CODE.get(code)
    if known is None:
        return ScorewireError(f"{code}: {detail}", field=field, rule=rule)
    return known(detail, field=field, rule=rule)


def _rebuild_overloaded(detail: str, retry_after: float) -> OverloadedError:
    return OverloadedError(detail, retry_after=retry_after)


def _rebuild(cls: type[ScorewireError], detail: str, field: str, rule: str) -> ScorewireError:
    return cls(detail, field=field, rule=rule)
