"""What can go wrong with models.

ModelError
├── BundleError            a bundle file cannot be trusted: whoever made or moved it must act
├── GoldenMismatchError    a bundle scores otherwise here than where it was made: do not use it here
├── ImportRefusedError     a model has a part that cannot be carried exactly: whoever trained it must act
├── DecisionError          decision rules cannot be used: whoever wrote them must act
├── CodePackageError       a wheel is no code package (carries the `rule`): whoever built it must act
├── LibraryError           a code package needs libraries that are not here: whoever runs the node acts
├── InstallError           a code package cannot be installed on this host: full disk, no permission
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


class CodePackageError(ModelError):
    """Raised when a wheel is no code package. Nothing of it was run.

    Attributes:
        rule: the short name of the rule that it breaks.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{detail} ({rule})")
        self.rule = rule

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the rule when the error crosses a process boundary (pickle)."""
        return (_rebuild_code_error, (str(self), self.rule))


class LibraryError(ModelError):
    """Raised when a code package needs a library or a Python that is not here, or in another version."""


class InstallError(ModelError):
    """Raised when a code package cannot be installed on this host, with the disk's reason."""


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


def _rebuild_code_error(message: str, rule: str) -> CodePackageError:
    error = CodePackageError(rule, "")
    error.args = (message,)
    return error
