"""What can go wrong in governance.

GovernanceError
├── MigrationError           the schema cannot be brought up to date: whoever deploys must act
├── UnknownArtifactError     an artifact is not registered, or of another kind: register it
├── InvalidArtifactError     a file is not what it is registered as: mend it
├── CacheError               an artifact cannot be kept on this host: full disk, no permission
├── PromotionRefusedError    a promotion breaks a rule: the promoter reads which
│   └── RolloutInProgressError   another rollout is under way: wait for it
├── UnknownRolloutError      there is no such rollout
├── AuditBrokenError         the audit log was tampered with: whoever answers for it must act
└── EmbeddedPostgresError    the PostgreSQL of the demo and the tests cannot run
"""

from __future__ import annotations


class GovernanceError(Exception):
    """The base of the errors of this room."""


class MigrationError(GovernanceError):
    """Raised when a migration fails, or was edited after it was applied."""


class UnknownArtifactError(GovernanceError):
    """Raised when a digest or name is not registered, or names an artifact of another kind."""


class InvalidArtifactError(GovernanceError):
    """Raised when a file is not a valid artifact of its kind. It was not registered."""


class CacheError(GovernanceError):
    """Raised when an artifact cannot be fetched into this host's cache, with the disk's or file's reason."""


class PromotionRefusedError(GovernanceError):
    """Raised when a promotion breaks a rule. Nothing was changed."""


class RolloutInProgressError(PromotionRefusedError):
    """Raised when the environment has a rollout under way. Wait for it, or for its deadline."""


class UnknownRolloutError(GovernanceError):
    """Raised when a rollout does not exist."""


class AuditBrokenError(GovernanceError):
    """Raised when the audit log's chain of hashes does not hold; names the first entry that does not fit."""


class EmbeddedPostgresError(GovernanceError):
    """Raised when the embedded PostgreSQL is not installed or does not start."""
