"""Drift of live transactions from training: nodes say what they counted, whoever asks adds it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from governance.artifacts import chunks
from governance.database import Connection
from governance.errors import UnknownReleaseError
from governance.releases import CHAMPION, current_release, releases
from models.features.drift import FieldDrift, add, figures
from models.spec import load_spec

#: Days after which a counter that says nothing any more is forgotten.
KEPT_DAYS: Final = 90


@dataclass(frozen=True)
class StageDrift:
    """The drift of one feature spec of a release.

    Attributes:
        stage: the features stage.
        spec: the spec's digest.
        trained_rows: the transactions of its training profile; 0 where it has none.
        since: when the first of its counters began; None where nothing was counted.
        seen: transactions that were answered.
        counted: those of them that were counted: of wide specs every nth is.
        refused: field and rule to the transactions that were refused by it.
        fields: field to its drift.
    """

    stage: str
    spec: str
    trained_rows: int
    since: datetime | None
    seen: int
    counted: int
    refused: Mapping[str, int]
    fields: Mapping[str, FieldDrift]


def report_drift(
    connection: Connection,
    environment: str,
    *,
    number: int,
    stage: str,
    node_id: str,
    since: datetime,
    counts: Mapping[str, Any],
) -> None:
    """Take down what a counter of a node counted so far, in the place of what it said before."""
    connection.execute(
        "INSERT INTO drift_count (environment, number, stage, node_id, since, counts)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (environment, number, stage, node_id, since)"
        " DO UPDATE SET counts = EXCLUDED.counts, at = clock_timestamp()",
        (environment, number, stage, node_id, since, Jsonb(counts)),
    )
    connection.execute(
        "DELETE FROM drift_count WHERE at < clock_timestamp() - make_interval(days => %s)", (KEPT_DAYS,)
    )


def drift_of(connection: Connection, environment: str, number: int | None = None) -> list[StageDrift]:
    """Return the drift of each feature spec of a release: the current one, or that of a number.

    Raises:
        UnknownReleaseError: there is none.
    """
    if number is None:
        release = current_release(connection, environment)
    else:
        release = next(iter(releases(connection, environment, [number])), None)
    if release is None:
        wanted = "was promoted yet" if number is None else f"has the number {number}"
        raise UnknownReleaseError(f"no release of {environment} {wanted}")
    stages = release.slots[CHAMPION].stages
    return [
        _stage(connection, environment, release.number, stage, digest)
        for stage, digest in sorted(stages.items())
        if stage.partition(":")[0] == "features"
    ]


def _stage(connection: Connection, environment: str, number: int, stage: str, digest: str) -> StageDrift:
    rows = connection.execute(
        "SELECT since, counts FROM drift_count WHERE environment = %s AND number = %s AND stage = %s"
        " ORDER BY since",
        (environment, number, stage),
    ).fetchall()
    total: dict[str, Any] = {"seen": 0, "counted": 0, "refused": {}, "fields": {}}
    for row in rows:
        total = add(total, row["counts"])
    kind = connection.execute("SELECT kind FROM artifact WHERE digest = %s", (digest,)).fetchone()
    profile = None
    if kind is not None and kind["kind"] == "feature_spec":
        profile = load_spec(b"".join(chunks(connection, digest))).profile
    return StageDrift(
        stage,
        digest,
        profile.rows if profile else 0,
        rows[0]["since"] if rows else None,
        total["seen"],
        total["counted"],
        total["refused"],
        figures(profile, total["fields"]) if profile else {},
    )
