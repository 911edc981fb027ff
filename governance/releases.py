"""Releases: what all slots of an environment hold, numbered, complete, and never changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from governance.database import Connection

CHAMPION = "champion"


@dataclass(frozen=True)
class Pipeline:
    """One artifact for each stage: stage to digest."""

    stages: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """What an environment's slots hold.

    Attributes:
        environment: its name.
        number: counts up in the environment.
        created_at: when it was promoted.
        created_by: who promoted it.
        comment: why.
        slots: slot to pipeline.
        evidence: the report on a shadow run by which it was promoted; None where there was none.
    """

    environment: str
    number: int
    created_at: datetime
    created_by: str
    comment: str
    slots: Mapping[str, Pipeline] = field(default_factory=dict)
    evidence: int | None = None


def releases(connection: Connection, environment: str, numbers: list[int] | None = None) -> list[Release]:
    """Return releases of an environment, the newest first; all of them, or those of these numbers."""
    rows = connection.execute(
        "SELECT r.*, s.slot, s.stage, s.digest FROM release r"
        " LEFT JOIN release_stage s USING (environment, number)"
        " WHERE environment = %(environment)s"
        "  AND (%(numbers)s::integer[] IS NULL OR number = ANY (%(numbers)s))"
        " ORDER BY number DESC, slot, stage",
        {"environment": environment, "numbers": numbers},
    ).fetchall()
    heads: dict[int, dict[str, Any]] = {}
    stages: dict[int, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        slot, stage, digest = (row.pop(name) for name in ("slot", "stage", "digest"))
        heads[row["number"]] = row
        if slot is not None:
            stages[row["number"]][slot][stage] = digest
    return [
        Release(**head, slots={slot: Pipeline(found) for slot, found in stages[number].items()})
        for number, head in heads.items()
    ]


def current_release(connection: Connection, environment: str) -> Release | None:
    """Return the release that an environment serves; None before the first."""
    row = connection.execute("SELECT current FROM environment WHERE name = %s", (environment,)).fetchone()
    if row is None or row["current"] is None:
        return None
    return releases(connection, environment, [row["current"]])[0]


def write_release(
    connection: Connection,
    environment: str,
    slots: Mapping[str, Mapping[str, str]],
    by: str,
    comment: str,
    evidence: int | None = None,
) -> int:
    """Write the next release of an environment that this transaction holds; return its number."""
    row = connection.execute(
        "INSERT INTO release (environment, number, created_by, comment, evidence) VALUES (%(environment)s,"
        " 1 + (SELECT coalesce(max(number), 0) FROM release WHERE environment = %(environment)s),"
        " %(by)s, %(comment)s, %(evidence)s) RETURNING number",
        {"environment": environment, "by": by, "comment": comment, "evidence": evidence},
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one inserted row
    number = int(row["number"])
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO release_stage VALUES (%s, %s, %s, %s, %s)",
            [
                (environment, number, slot, stage, digest)
                for slot, pipeline in slots.items()
                for stage, digest in pipeline.items()
            ],
        )
    return number
