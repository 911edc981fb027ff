"""Shadows: candidates that override stages of an environment's champion, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from governance.artifacts import find_for_stage, split_stage
from governance.audit import acting
from governance.database import Connection
from governance.errors import ShadowRefusedError, UnknownArtifactError, UnknownShadowError, UnknownStageError
from governance.notify import notify
from governance.releases import CHAMPION, current_release

State = Literal["running", "suspended", "stopped", "promoted", "retired"]

#: The states of a shadow that is not over.
OPEN: tuple[State, ...] = ("running", "suspended", "stopped")


@dataclass(frozen=True)
class Shadow:
    """A candidate beside the champion.

    Attributes:
        id: its number.
        environment: where.
        name: what people call it; one of a name at a time.
        overrides: stage to digest; all other stages are taken from the live record.
        sample: the share of the transactions that it evaluates, by a hash of their ids.
        amount_field: the field of a transaction that says what is at stake.
        started_at: when.
        started_by: who started it.
        comment: why.
        state: `running`, `suspended` by a node that it failed on, `stopped`, or over: `promoted`, `retired`.
        state_at: since when.
        state_by: who, or which node, brought it there.
        state_reason: why.
        release: where it was promoted to, if that is known.
    """

    id: int
    environment: str
    name: str
    overrides: Mapping[str, str]
    sample: float
    amount_field: str
    started_at: datetime
    started_by: str
    comment: str
    state: State
    state_at: datetime
    state_by: str
    state_reason: str
    release: int | None


def start(
    connection: Connection,
    environment: str,
    name: str,
    overrides: Mapping[str, str],
    *,
    by: str,
    sample: float = 1.0,
    amount_field: str = "amount",
    comment: str = "",
) -> Shadow:
    """Start a shadow.

    Args:
        connection: to the database.
        environment: where; it must have a champion.
        name: what to call it: lower-case letters, digits, `-` and `_`.
        overrides: stage to artifact (a digest, its beginning, or a name's newest version).
        by: who starts it.
        sample: the share of the transactions that it evaluates, above 0 and up to 1.
        amount_field: the field of a transaction that says what is at stake.
        comment: why.

    Raises:
        ShadowRefusedError: no release to shadow, nothing is overridden, an unknown stage, an artifact that is
            missing, of another kind or retired, one of this name is there, or a value is out of range.
    """
    with acting(connection, by, comment):
        # The environment is held, as by whoever promotes: the champion stays who it is meanwhile.
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
        release = current_release(connection, environment)
        if release is None:
            raise ShadowRefusedError(f"{environment} has no release yet: there is nothing to shadow")
        if not overrides:
            raise ShadowRefusedError("a shadow overrides a stage: name --model, --features or --decision")
        found = resolve(connection, overrides)
        _refuse_misfit(connection, {**release.slots[CHAMPION].stages, **found})
        _refuse_namesake(connection, environment, name)
        try:
            row = connection.execute(
                "INSERT INTO shadow (environment, name, overrides, sample, amount_field, started_by, comment,"
                " state_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING *",
                (environment, name, Jsonb(found), sample, amount_field, by, comment, by),
            ).fetchone()
        except psycopg.errors.CheckViolation as error:
            constraint = error.diag.constraint_name or ""
            why = next((text for word, text in _REFUSED.items() if word in constraint), str(error))
            raise ShadowRefusedError(why) from error
        notify(connection, environment)
    assert row is not None  # noqa: S101 - RETURNING of one inserted row
    return Shadow(**row)


def resolve(connection: Connection, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of what stages are to be overridden with.

    Raises:
        ShadowRefusedError: an unknown stage, or an artifact that is missing, of another kind or retired.
    """
    return {stage: _artifact(connection, stage, wanted) for stage, wanted in overrides.items()}


def resume(connection: Connection, environment: str, name: str, *, by: str, reason: str = "") -> Shadow:
    """Let a shadow that was stopped or suspended run again, where it was.

    Raises:
        UnknownShadowError: there is none of that name.
        ShadowRefusedError: it runs, or it is over.
    """
    return _bring(connection, environment, name, "running", ("stopped", "suspended"), by, reason)


def stop(connection: Connection, environment: str, name: str, *, by: str, reason: str = "") -> Shadow:
    """Let a shadow run no more; what it found stays, and it can be started again.

    Raises:
        UnknownShadowError: there is none of that name.
        ShadowRefusedError: it is stopped already, or it is over.
    """
    return _bring(connection, environment, name, "stopped", ("running", "suspended"), by, reason)


def retire(connection: Connection, environment: str, name: str, *, by: str, reason: str) -> Shadow:
    """End a shadow for good; what it found stays.

    Raises:
        UnknownShadowError: there is none of that name.
        ShadowRefusedError: no reason is given, or it is over.
    """
    if not reason.strip():
        raise ShadowRefusedError("say why: whoever tries the same again will read it")
    return _bring(connection, environment, name, "retired", OPEN, by, reason)


def suspend(connection: Connection, shadow: Shadow, node_id: str, reason: str) -> bool:
    """Give up a shadow that fails whatever it is given, as a node may; False if it runs no more."""
    with acting(connection, node_id, reason):
        row = connection.execute(
            "SELECT suspend_shadow(%s, %s, %s) AS done", (shadow.id, node_id, reason)
        ).fetchone()
        notify(connection, shadow.environment)
    return bool(row and row["done"])


def shadows(connection: Connection, environment: str, states: tuple[State, ...] = ()) -> list[Shadow]:
    """Return an environment's shadows, the newest first; all of them, or those in these states."""
    rows = connection.execute(
        "SELECT * FROM shadow WHERE environment = %(environment)s"
        " AND (%(states)s::text[] = '{}' OR state = ANY (%(states)s)) ORDER BY id DESC",
        {"environment": environment, "states": list(states)},
    ).fetchall()
    return [Shadow(**row) for row in rows]


def find_shadow(connection: Connection, environment: str, name: str) -> Shadow:
    """Return the newest shadow of a name.

    Raises:
        UnknownShadowError: there is none.
    """
    row = connection.execute(
        "SELECT * FROM shadow WHERE environment = %s AND name = %s ORDER BY id DESC LIMIT 1",
        (environment, name),
    ).fetchone()
    if row is None:
        raise UnknownShadowError(f"{environment} has no shadow {name!r}: `run.py shadow list` names them")
    return Shadow(**row)


def _bring(
    connection: Connection,
    environment: str,
    name: str,
    state: State,
    before: tuple[State, ...],
    by: str,
    reason: str,
) -> Shadow:
    with acting(connection, by, reason):
        found = find_shadow(connection, environment, name)
        row = connection.execute(
            "UPDATE shadow SET state = %s, state_at = clock_timestamp(), state_by = %s, state_reason = %s"
            " WHERE id = %s AND state = ANY (%s) RETURNING *",
            (state, by, reason, found.id, list(before)),
        ).fetchone()
        if row is None:
            raise ShadowRefusedError(f"shadow {name} is {found.state}, so it cannot be {state}")
        notify(connection, environment)
    return Shadow(**row)


def _artifact(connection: Connection, stage: str, wanted: str) -> str:
    """Return the digest of what a stage is overridden with."""
    try:
        digest = find_for_stage(connection, wanted, stage).digest
    except UnknownStageError as error:
        raise ShadowRefusedError(str(error)) from error
    except UnknownArtifactError as error:
        raise ShadowRefusedError(f"stage {stage}: {error}") from error
    row = connection.execute("SELECT * FROM retirement WHERE digest = %s", (digest,)).fetchone()
    if row:
        raise ShadowRefusedError(
            f"stage {stage}: {digest[:12]} was retired by {row['retired_by']}: {row['reason']}"
        )
    return digest


def _refuse_misfit(connection: Connection, pipeline: Mapping[str, str]) -> None:
    """Refuse features and a model that do not belong together, as far as their provenance says."""
    for stage, model in pipeline.items():
        base, name = split_stage(stage)
        if base != "model":
            continue
        features = pipeline.get(f"features:{name}", pipeline["features"])
        made, taken = (_feature_names(connection, digest) for digest in (features, model))
        if made and taken and made != taken:
            raise ShadowRefusedError(
                f"the features {features[:12]} do not make what the {stage} {model[:12]} "
                "takes: override both with a spec and a model that belong together"
            )


def _feature_names(connection: Connection, digest: str) -> list[Any]:
    row = connection.execute(
        "SELECT provenance -> 'feature_names' AS names FROM artifact WHERE digest = %s", (digest,)
    ).fetchone()
    return list(row["names"] or ()) if row else []


def _refuse_namesake(connection: Connection, environment: str, name: str) -> None:
    row = connection.execute(
        "SELECT state FROM shadow WHERE environment = %s AND name = %s AND state = ANY (%s)",
        (environment, name, list(OPEN)),
    ).fetchone()
    if row:
        raise ShadowRefusedError(
            f"{environment} has a shadow {name!r}, which is {row['state']}: retire it, or take another name"
        )


#: A part of a constraint's name to what it asks.
_REFUSED = {
    "name": "a shadow's name is lower-case letters, digits, - and _, at most 50",
    "sample": "a sample is a share of the transactions: above 0 and up to 1",
    "amount_field": "an amount field has a name",
}
