"""What can go wrong with models.

ModelError
├── BundleError            a bundle file cannot be trusted: whoever made or moved it must act
├── GoldenMismatchError    a bundle scores otherwise here than where it was made: do not use it here
├── ImportRefusedError     a model has a part that cannot be carried exactly: whoever trained it must act
├── DecisionError          decision rules cannot be used: whoever wrote them must act
├── SourceFileError        a file holds no model that can be loaded: whoever named it must act
└── InputError             a row that the source library would refuse: the caller must mend it
"""

from __future__ import annotations


class ModelError(Exception):
    """The base of the errors of this room."""


class BundleError(ModelError):
    """Raised when a bundle is truncated, damaged or hostile. It was not mapped into a kernel."""


class GoldenMismatchError(ModelError):
    """Raised when a bundle's golden vectors do not score here as they did at the source."""


class ImportRefusedError(ModelError):
    """Raised when a model cannot be carried exactly; names the feature of the model."""


class SourceFileError(ModelError):
    """Raised when a file holds no model, is damaged, or is a pickle that nobody trusts; says what to do."""


class DecisionError(ModelError):
    """Raised when decision rules are not valid; names the rule or key, and what is wrong with it."""


class InputError(ModelError):
    """Raised when a row is not what the model takes.

    Attributes:
        field: the feature at fault, or `vector`.
        rule: the short name of the rule: `not_a_number`, `infinite`, `shape`.
    """

    def __init__(self, field: str, rule: str, detail: str) -> None:
        super().__init__(f"feature {field!r}: {detail}")
        self.field = field
        self.rule = rule
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        """Keep field and rule when the error crosses a process boundary (pickle)."""
        return (type(self), (self.field, self.rule, self.detail))
