"""What can go wrong with feature specs and transactions."""

from __future__ import annotations

from models.errors import ModelError


class SpecError(ModelError):
    """Raised when a feature spec is no spec; names every key at fault. Whoever wrote it must act."""


class TransactionError(ModelError):
    """Raised when a transaction breaks a rule of its feature spec. The caller must mend that field.

    Attributes:
        field: the field at fault.
        rule: the short name of the rule: `missing`, `type`, `not_a_number`, `infinite`, `range`,
            `unknown_category`, `timestamp`, `length`, `address`.
        detail: what it must be, and what it is.
    """

    def __init__(self, field: str, rule: str, detail: str) -> None:
        super().__init__(f"field {field!r}: {detail}")
        self.field = field
        self.rule = rule
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        """Keep field and rule when the error crosses a process boundary (pickle)."""
        return (type(self), (self.field, self.rule, self.detail))
