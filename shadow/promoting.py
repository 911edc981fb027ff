"""Promotes a shadow: its figures are taken down as evidence, and what it overrides goes through the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.canary import Canary
from governance.database import Connection
from governance.errors import ShadowRefusedError
from governance.policy import policy_of
from governance.promotion import PREPARE_S, promote
from governance.rollouts import Rollout
from governance.shadows import OPEN, Shadow, find_shadow
from shadow.figures import Figures, figures

#: What is asked of a shadow where its environment's policy has no `[shadow]` of its own.
MIN_OBSERVATIONS: Final = 1000
MAX_LAG_S: Final = 60.0


def promote_shadow(
    connection: Connection,
    environment: str,
    name: str,
    *,
    by: str,
    comment: str = "",
    prepare_s: float = PREPARE_S,
    canary: Canary | None = None,
) -> tuple[int, Rollout]:
    """Work out a shadow's figures, take them down, and promote what it overrides with them as evidence.

    The report stays whatever comes of it: whoever is refused reads there why. The shadow's state becomes
    `promoted` when a rollout has brought its overrides to the environment.

    Returns:
        the report's number, and the rollout.

    Raises:
        UnknownShadowError: there is no such shadow.
        ShadowRefusedError: it is over, has too few observations, or lags too far behind.
        PromotionRefusedError, ApprovalNeededError: as governance.promotion.promote.
    """
    shadow = find_shadow(connection, environment, name)
    if shadow.state not in OPEN:
        raise ShadowRefusedError(f"shadow {name} is {shadow.state}: nothing of it is left to promote")
    found = figures(connection, shadow.id)
    report = take_down(connection, shadow, found, by=by)
    if policy_of(connection, environment).shadow is None:
        _refuse_unsure(shadow, found.numbers)
    rollout = promote(
        connection,
        environment=environment,
        stages=dict(shadow.overrides),
        by=by,
        comment=comment or f"shadow {name}, report {report}",
        prepare_s=prepare_s,
        canary=canary,
        evidence=report,
    )
    return report, rollout


def take_down(connection: Connection, shadow: Shadow, found: Figures, *, by: str) -> int:
    """Store a shadow's figures for good; return the report's number."""
    with acting(connection, by, f"figures of shadow {shadow.name}"):
        row = connection.execute(
            "INSERT INTO shadow_report (shadow, made_by, figures) VALUES (%s, %s, %s) RETURNING id",
            (shadow.id, by, Jsonb(found.document())),
        ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one inserted row
    return int(row["id"])


def _refuse_unsure(shadow: Shadow, numbers: Mapping[str, float]) -> None:
    """Refuse what cannot be judged yet, where no policy says what is asked."""
    seen = numbers.get("observations", 0)
    if seen < MIN_OBSERVATIONS:
        raise ShadowRefusedError(
            f"shadow {shadow.name} has {seen:g} observations, {MIN_OBSERVATIONS} are asked: let it run on, "
            "or say min_observations in the policy's [shadow]"
        )
    lag = numbers.get("lag_s", 0.0)
    if shadow.state == "running" and lag > MAX_LAG_S:
        raise ShadowRefusedError(
            f"shadow {shadow.name} is {lag:.0f} s behind the live stream, {MAX_LAG_S:.0f} are borne: "
            "start more shadow nodes, or bound lag_s in the policy's [shadow]"
        )
