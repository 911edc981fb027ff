"""History: which release an environment served when, and in what two releases differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance.database import Connection
from governance.errors import UnknownReleaseError
from governance.releases import Release, releases


@dataclass(frozen=True)
class Tenure:
    """The time in which an environment served one release.

    Attributes:
        number: the release.
        since: from when, by the database's clock.
        until: until when; None while it still does.
        kind: whether it came by promotion or rollback.
        started_by: who brought it there.
        comment: why.
        proposed_by: who promoted the release first.
        approved_by: who approved it.
    """

    number: int
    since: datetime
    until: datetime | None
    kind: str
    started_by: str
    comment: str
    proposed_by: str
    approved_by: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A stage in which two releases differ.

    Attributes:
        slot: of which slot.
        stage: which stage.
        before: the artifact of the first: digest, name, registered_by, registered_at, provenance; or None.
        after: that of the second.
    """

    slot: str
    stage: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def history(connection: Connection, environment: str) -> list[Tenure]:
    """Return what an environment served when, the newest first."""
    rows = connection.execute(
        "SELECT o.number, o.finished_at AS since,"
        " lead(o.finished_at) OVER (ORDER BY o.id) AS until, o.kind, o.started_by, o.comment,"
        " r.created_by AS proposed_by,"
        " ARRAY(SELECT a.person FROM proposal p JOIN approval a ON a.proposal = p.id AND a.approves"
        "  WHERE p.environment = o.environment AND p.number = o.number ORDER BY a.at) AS approved_by"
        " FROM rollout o JOIN release r USING (environment, number)"
        " WHERE o.environment = %s AND o.state = 'active' AND o.kind <> 'canary' ORDER BY o.id DESC",
        (environment,),
    ).fetchall()
    return [Tenure(**{**row, "approved_by": tuple(row["approved_by"])}) for row in rows]


def release_at(connection: Connection, environment: str, moment: datetime) -> Release:
    """Return the release that an environment served at a moment.

    Raises:
        UnknownReleaseError: it served none yet.
    """
    row = connection.execute(
        "SELECT number FROM rollout WHERE environment = %s AND state = 'active'"
        " AND kind <> 'canary' AND finished_at <= %s"
        " ORDER BY id DESC LIMIT 1",
        (environment, moment),
    ).fetchone()
    if row is None:
        raise UnknownReleaseError(f"{environment} served no release yet at {moment.isoformat()}")
    return release(connection, environment, row["number"])


def release(connection: Connection, environment: str, number: int) -> Release:
    """Return a release.

    Raises:
        UnknownReleaseError: there is none of that number.
    """
    found = releases(connection, environment, [number])
    if not found:
        raise UnknownReleaseError(f"{environment} has no release {number}: see `run.py releases`")
    return found[0]


def diff(connection: Connection, environment: str, before: int, after: int) -> list[Difference]:
    """Return in what two releases differ, with what is known of the artifacts.

    Raises:
        UnknownReleaseError: one of them does not exist.
    """
    first, second = (release(connection, environment, number) for number in (before, after))
    places = sorted(
        {
            (slot, stage)
            for one in (first, second)
            for slot, pipeline in one.slots.items()
            for stage in pipeline.stages
        }
    )
    found = []
    for slot, stage in places:
        old, new = (
            one.slots[slot].stages.get(stage) if slot in one.slots else None for one in (first, second)
        )
        if old != new:
            found.append(Difference(slot, stage, _artifact(connection, old), _artifact(connection, new)))
    return found


def _artifact(connection: Connection, digest: str | None) -> Mapping[str, Any] | None:
    if digest is None:
        return None
    return connection.execute(
        "SELECT digest, name, registered_by, registered_at, provenance FROM artifact WHERE digest = %s",
        (digest,),
    ).fetchone()
