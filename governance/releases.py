"""Releases: what all slots of an environment hold, numbered, complete, and never changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from governance.artifacts import STAGES, find
from governance.audit import acting
from governance.database import Connection
from governance.errors import PromotionRefusedError, RolloutInProgressError, UnknownArtifactError

if TYPE_CHECKING:
    from governance.rollouts import Rollout

CHAMPION = "champion"
#: Seconds that all nodes together have to prepare a release.
PREPARE_S = 30.0


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
    """

    environment: str
    number: int
    created_at: datetime
    created_by: str
    comment: str
    slots: Mapping[str, Pipeline] = field(default_factory=dict)


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


def promote(
    connection: Connection,
    *,
    environment: str,
    stages: Mapping[str, str],
    by: str,
    slot: str = CHAMPION,
    comment: str = "",
    prepare_s: float = PREPARE_S,
) -> Rollout:
    """Write the next release of an environment, and open its rollout.

    Args:
        connection: to the database.
        environment: where; made at its first promotion.
        stages: stage to artifact (a digest, its beginning, or a name's newest version); the slot's other
            stages, and all other slots, stay as they are.
        by: who promotes.
        slot: which slot.
        comment: why.
        prepare_s: seconds that the nodes have to prepare it.

    Raises:
        PromotionRefusedError: an unknown stage, a stage without an artifact, or an artifact of another kind.
        RolloutInProgressError: another rollout is under way.
    """
    from governance.rollouts import open_rollout  # noqa: PLC0415 - a rollout is of a release, and made here

    with acting(connection, by, comment):
        connection.execute(
            "INSERT INTO environment (name) VALUES (%s) ON CONFLICT DO NOTHING", (environment,)
        )
        # Whoever promotes holds the environment, so that releases count up without a gap or a fork.
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
        _refuse_a_second(connection, environment)
        base = current_release(connection, environment)
        slots = {name: dict(pipeline.stages) for name, pipeline in base.slots.items()} if base else {}
        slots[slot] = {**slots.get(slot, {}), **_resolve(connection, stages)}
        missing = [stage for stage in STAGES if stage not in slots[slot]]
        if missing:
            raise PromotionRefusedError(
                f"slot {slot} of {environment} would have nothing for {', '.join(missing)}: name it as well",
            )
        number = _write(connection, environment, slots, by, comment)
        return open_rollout(connection, environment, number, prepare_s)


def _refuse_a_second(connection: Connection, environment: str) -> None:
    row = connection.execute(
        "SELECT id, number, deadline FROM rollout WHERE environment = %s AND state = 'preparing'",
        (environment,),
    ).fetchone()
    if row:
        raise RolloutInProgressError(
            f"{environment} is being taken to release {row['number']} (rollout {row['id']}), "
            f"which ends by {row['deadline']:%H:%M:%S}: wait for it",
        )


def _resolve(connection: Connection, stages: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for stage, wanted in stages.items():
        if stage not in STAGES:
            raise PromotionRefusedError(f"there is no stage {stage!r}: a pipeline has {', '.join(STAGES)}")
        try:
            found[stage] = find(connection, wanted, STAGES[stage]).digest
        except UnknownArtifactError as error:
            raise PromotionRefusedError(f"stage {stage}: {error}") from error
    return found


def _write(
    connection: Connection,
    environment: str,
    slots: Mapping[str, Mapping[str, str]],
    by: str,
    comment: str,
) -> int:
    row = connection.execute(
        "INSERT INTO release (environment, number, created_by, comment) VALUES (%(environment)s,"
        " 1 + (SELECT coalesce(max(number), 0) FROM release WHERE environment = %(environment)s),"
        " %(by)s, %(comment)s) RETURNING number",
        {"environment": environment, "by": by, "comment": comment},
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
