"""What can go wrong in governance.

GovernanceError
├── MigrationError           the schema cannot be brought up to date: whoever deploys must act
├── UnknownArtifactError     an artifact is not registered, or of another kind: register it
├── InvalidArtifactError     a file is not what it is registered as: mend it
├── CacheError               an artifact cannot be kept on this host: full disk, no permission
├── PromotionRefusedError    a promotion breaks a rule: the promoter reads which
│   ├── RolloutInProgressError   another rollout is under way: wait for it
│   ├── UnknownStageError        a pipeline has no such stage: the promoter names another
│   ├── FrozenError              the environment is frozen: ask whoever froze it
│   └── GateError                gates of the policy do not let it through: names them with their figures
├── ApprovalNeededError      a promotion waits for people: ask them
├── ApprovalRefusedError     a word on a proposal does not count: says why
├── UnknownProposalError     there is no such proposal
├── UnknownReleaseError      there is no such release
├── PolicyError              a policy is not valid: whoever set it must mend it
├── SignatureError           an artifact is not signed as asked: whoever registers must sign it
├── UnknownRolloutError      there is no such rollout
├── ShadowRefusedError       a shadow cannot be started, or brought to that state: whoever asks reads why
├── UnknownShadowError       there is no such shadow
├── LabelError               a file of labels cannot be read at all: whoever exported it must act
├── UnknownTransactionError  no answer to a transaction is kept: says what might be the reason
├── RetentionError           a period cannot be kept: whoever sets it reads why
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


class UnknownStageError(PromotionRefusedError):
    """Raised when a pipeline has no stage of that name; says which there are."""


class FrozenError(PromotionRefusedError):
    """Raised when the environment is frozen; says since when, by whom and why."""


class GateError(PromotionRefusedError):
    """Raised when gates of the environment's policy refuse a pipeline; names each with its figures."""


class ApprovalNeededError(GovernanceError):
    """Raised when a promotion has become a proposal that waits for approvals.

    Attributes:
        proposal: its number.
    """

    def __init__(self, message: str, proposal: int) -> None:
        super().__init__(message)
        self.proposal = proposal


class ApprovalRefusedError(GovernanceError):
    """Raised when a person's word on a proposal does not count. Nothing was changed."""


class UnknownProposalError(GovernanceError):
    """Raised when a proposal does not exist."""


class UnknownReleaseError(GovernanceError):
    """Raised when a release does not exist, or there was none at that time."""


class PolicyError(GovernanceError):
    """Raised when a policy is not valid; names every key at fault."""


class SignatureError(GovernanceError):
    """Raised when a key cannot be used, or a signature is missing or does not fit."""


class UnknownRolloutError(GovernanceError):
    """Raised when a rollout does not exist."""


class ShadowRefusedError(GovernanceError):
    """Raised when a shadow cannot be started, or brought to a state. Nothing was changed."""


class UnknownShadowError(GovernanceError):
    """Raised when a shadow does not exist."""


class LabelError(GovernanceError):
    """Raised when a file of labels cannot be read at all. Nothing was imported."""


class UnknownTransactionError(GovernanceError):
    """Raised when no answer to a transaction is kept in the environment."""


class RetentionError(GovernanceError):
    """Raised when a period of retention cannot be set. Nothing was changed."""


class AuditBrokenError(GovernanceError):
    """Raised when the audit log's chain of hashes does not hold; names the first entry that does not fit."""


class EmbeddedPostgresError(GovernanceError):
    """Raised when the embedded PostgreSQL is not installed or does not start."""
