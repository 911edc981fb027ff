"""Traces: everything that is known of the answer to one transaction, from one place."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from governance.database import Connection
from governance.errors import UnknownTransactionError
from governance.releases import CHAMPION
from governance.transactions import Transaction, find, kept_days

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """An answer, and how it came to be given.

    Attributes:
        transaction: the answer itself.
        features: features stage to feature to value, by the names of the stage's artifact.
        release: number, created_at, created_by, comment, and `evidence`: the report on a shadow behind it.
        approvals: person, role, comment and moment of each approval.
        rollouts: how the release came to serve: kind, started_by, started_at, finished_at, comment.
        artifacts: stage, digest, kind, name, registered_by, registered_at, provenance, signatures, retired.
        label: positive, source, labelled_at, imported_by; None where there is none.
    """

    transaction: Transaction
    features: Mapping[str, Mapping[str, float]]
    release: Facts
    approvals: Sequence[Facts]
    rollouts: Sequence[Facts]
    artifacts: Sequence[Facts]
    label: Facts | None

    @property
    def stages(self) -> dict[str, str]:
        """The pipeline: stage to digest."""
        return {artifact["stage"]: artifact["digest"] for artifact in self.artifacts}

    def facts(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        one = self.transaction
        return {
            "id": one.id,
            "environment": one.environment,
            "at": one.at,
            "node": one.node,
            "seq": one.seq,
            "canary": one.canary,
            "decision": None if one.outcome is None else {"outcome": one.outcome, "reasons": one.reasons},
            "scores": _plain(one.scores),
            "features": _plain(self.features),
            "transaction": _plain(one.fields),
            "nodes": one.nodes,
            "us": one.us,
            "release": self.release,
            "approvals": self.approvals,
            "rollouts": self.rollouts,
            "artifacts": self.artifacts,
            "label": self.label,
        }


def trace(connection: Connection, environment: str, id_: str) -> list[Trace]:
    """Return what is known of each answer to a transaction, the newest first.

    Raises:
        UnknownTransactionError: there is none.
    """
    found = find(connection, environment, id_)
    if not found:
        days = kept_days(connection, environment)
        raise UnknownTransactionError(
            f"{environment} has no answer to {id_!r}: answers are kept for {days} days, they come a moment "
            "after they were given, and only with [kafka] configured and [tee] copying them"
        )
    label = connection.execute(
        "SELECT positive, source, labelled_at, imported_by, imported_at FROM label"
        " WHERE environment = %s AND transaction_id = %s",
        (environment, id_),
    ).fetchone()
    return [_trace(connection, one, label) for one in reversed(found)]


def _trace(connection: Connection, one: Transaction, label: Facts | None) -> Trace:
    where = (one.environment, one.release)
    artifacts = connection.execute(_ARTIFACTS, (*where, CHAMPION)).fetchall()
    return Trace(
        transaction=one,
        features=_features(one, artifacts),
        release=connection.execute(_RELEASE, where).fetchone() or {"number": one.release},
        approvals=connection.execute(_APPROVALS, where).fetchall(),
        rollouts=connection.execute(_ROLLOUTS, where).fetchall(),
        artifacts=artifacts,
        label=label,
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is no number is text, and bytes are hex."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _features(one: Transaction, artifacts: Sequence[Facts]) -> dict[str, dict[str, float]]:
    names = {facts["stage"]: facts["provenance"].get("feature_names", []) for facts in artifacts}
    found = {}
    for stage, vector in one.features.items():
        values = struct.unpack(f"<{len(vector) // 4}f", vector)
        told = names.get(stage, [])
        fits = len(told) == len(values)
        found[stage] = {told[n] if fits else str(n): value for n, value in enumerate(values)}
    return found


_RELEASE: Final = (
    "SELECT number, created_at, created_by, comment, evidence FROM release"
    " WHERE environment = %s AND number = %s"
)
_APPROVALS: Final = (
    "SELECT a.person, a.role, a.comment, a.at FROM proposal p JOIN approval a ON a.proposal = p.id"
    " WHERE p.environment = %s AND p.number = %s AND a.approves ORDER BY a.at"
)
_ROLLOUTS: Final = (
    "SELECT kind, state, started_by, started_at, finished_at, comment, percent FROM rollout"
    " WHERE environment = %s AND number = %s ORDER BY id"
)
_ARTIFACTS: Final = """
SELECT s.stage, a.digest, a.kind, a.name, a.registered_by, a.registered_at, a.provenance,
    coalesce((SELECT jsonb_agg(jsonb_build_object('key', g.key, 'by', g.signed_by, 'at', g.signed_at)
                               ORDER BY g.signed_at) FROM signature g WHERE g.digest = a.digest), '[]')
        AS signatures,
    (SELECT r.retired_at FROM retirement r WHERE r.digest = a.digest) AS retired_at
FROM release_stage s JOIN artifact a USING (digest)
WHERE s.environment = %s AND s.number = %s AND s.slot = %s ORDER BY s.stage
"""
