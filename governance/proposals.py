"""Proposals: promotions that wait for people, and who these people may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from governance.audit import acting
from governance.canary_steps import Canary
from governance.database import Connection
from governance.errors import UnknownProposalError
from governance.policy import policy_of


@dataclass(frozen=True)
class Proposal:
    """A promotion that waits, or waited, for people.

    Attributes:
        id: its number.
        environment: where.
        slot: which slot.
        stages: stage to digest, of what was named, or to None where it is dropped; the rest stays as it is
            when it is released.
        proposed_by: who promotes.
        proposed_at: when.
        comment: why.
        prepare_s: seconds that the nodes will have.
        percent: of a canary; None of others.
        key: of a canary.
        schedule: of a canary, the percentages that it grows to by itself.
        step_s: of a canary, seconds that each of them lasts at least.
        stays: of a canary, whether it stays one after the last.
        evidence: the report on a shadow run that was named for it, or found; None where there was none.
        state: `open`, then `released` or `rejected` for good.
        number: the release that it became.
        closed_at: when it was settled.
        approvals: each person's word: role, approves, comment, at.
        needed: role to how many approvals are still missing.
    """

    id: int
    environment: str
    slot: str
    stages: Mapping[str, str | None]
    proposed_by: str
    proposed_at: datetime
    comment: str
    prepare_s: float
    percent: float | None
    key: str
    schedule: tuple[float, ...]
    step_s: float
    stays: bool
    evidence: int | None
    state: Literal["open", "released", "rejected"]
    number: int | None
    closed_at: datetime | None
    approvals: Mapping[str, Mapping[str, Any]]
    needed: Mapping[str, int]

    @property
    def canary(self) -> Canary | None:
        """What keys it is proposed for; None for all."""
        if self.percent is None:
            return None
        return Canary(self.percent, self.key, self.schedule, self.step_s, self.stays)


def proposal(connection: Connection, proposal_id: int) -> Proposal:
    """Return a proposal.

    Raises:
        UnknownProposalError: there is none of that number.
    """
    row = connection.execute("SELECT * FROM proposal WHERE id = %s", (proposal_id,)).fetchone()
    if row is None:
        raise UnknownProposalError(f"there is no proposal {proposal_id}")
    return _complete(connection, row)


def proposals(connection: Connection, environment: str, *, only_open: bool = False) -> list[Proposal]:
    """Return the proposals of an environment, the newest first."""
    rows = connection.execute(
        "SELECT * FROM proposal WHERE environment = %s AND (NOT %s OR state = 'open') ORDER BY id DESC",
        (environment, only_open),
    ).fetchall()
    return [_complete(connection, row) for row in rows]


def add_approver(connection: Connection, person: str, role: str, *, by: str, reason: str = "") -> None:
    """Let a person approve in a role; once is enough."""
    with acting(connection, by, reason):
        connection.execute(
            "INSERT INTO approver (person, role) VALUES (%s, %s) ON CONFLICT DO NOTHING", (person, role)
        )


def remove_approver(connection: Connection, person: str, role: str, *, by: str, reason: str = "") -> None:
    """Let a person no longer approve in a role; what they approved stays."""
    with acting(connection, by, reason):
        connection.execute("DELETE FROM approver WHERE person = %s AND role = %s", (person, role))


def _complete(connection: Connection, row: dict[str, Any]) -> Proposal:
    said = connection.execute(
        "SELECT person, role, approves, comment, at FROM approval WHERE proposal = %s ORDER BY at",
        (row["id"],),
    ).fetchall()
    asked = policy_of(connection, row["environment"]).approvals
    given = [one["role"] for one in said if one["approves"]]
    needed = {role: max(0, count - given.count(role)) for role, count in asked.items()}
    words = {one.pop("person"): one for one in said}
    row["schedule"] = tuple(row["schedule"])
    return Proposal(**row, approvals=words, needed=needed if row["state"] == "open" else {})


def people(needed: Mapping[str, int]) -> str:
    """Say how many of which role."""
    return ", ".join(f"{count} {role}" for role, count in needed.items() if count) or "nobody"
