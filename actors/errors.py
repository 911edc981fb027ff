"""What can go wrong in a node.

ActorError
├── ConfigError             scorewire.toml is wrong: whoever wrote it must act
├── PipelineMismatchError   a feature spec and a model do not belong together: whoever promoted them must act
├── MemoryBudgetError       a model does not fit beside those that are held: more memory, or a smaller one
├── LatencyError            a model is slower here than the policy allows: whoever promoted it must act
├── CodeStartError          a code package does not load here: whoever promoted it must act
├── ScaffoldError           a code package cannot be begun: another name, or another directory
├── ControlError            a running host cannot do what it was told: whoever told it must act
├── StartFailedError        an actor could not start: its supervisor, and in the end the launcher, acts
└── EscalationError         actors crash too often: the process ends, and the launcher acts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ActorError(Exception):
    """The base of the errors of this room."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        key: the key at fault, with dots.
        source: where it was set: file and line, variable or option; "" where nobody set it.
        said: what is wrong, and what to do.
    """

    key: str
    source: str
    said: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.key, self.said) if part)


class ConfigError(ActorError):
    """Raised when the configuration is missing or wrong; names every key at fault, and its source.

    Attributes:
        problems: everything that is wrong with it.
    """

    def __init__(self, said: str | Sequence[Problem]) -> None:
        self.problems = (Problem("", "", said),) if isinstance(said, str) else tuple(said)
        super().__init__("\n".join(map(str, self.problems)))


class PipelineMismatchError(ActorError):
    """Raised when a feature spec does not make what its model takes. The release is refused."""


class MemoryBudgetError(ActorError):
    """Raised when a model does not fit into what this node may hold. The release is refused."""


class LatencyError(ActorError):
    """Raised when a model's median row is slower here than the policy allows. The release is refused."""


class CodeStartError(ActorError):
    """Raised when a worker cannot load its code package; for its own reason. The release is refused."""


class ScaffoldError(ActorError):
    """Raised when the files of a new code package cannot be written."""


class ControlError(ActorError):
    """Raised when a running host cannot be asked, or cannot do what it was told; says what to do instead."""


class StartFailedError(ActorError):
    """Raised when a supervised actor could not start. The node ends with BOOT_FAILED."""


class EscalationError(ActorError):
    """Raised when a supervisor has restarted its children too often. Its own supervisor acts."""
