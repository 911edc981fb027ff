"""Changes that need no approval, since they undo: rollback and retire."""

from __future__ import annotations

from governance.artifacts import Artifact
from governance.audit import acting
from governance.database import Connection
from governance.errors import PromotionRefusedError
from governance.promotion import PREPARE_S
from governance.releases import current_release
from governance.rollouts import Rollout, abandon, open_rollout


def rollback(
    connection: Connection,
    environment: str,
    *,
    by: str,
    reason: str,
    to: int | None = None,
    prepare_s: float = PREPARE_S,
) -> Rollout:
    """Lead an environment back to a release that was active before.

    It asks for no approval and heeds no freeze and no window: it undoes. A rollout that is preparing is
    abandoned for it. Nodes keep the releases that were active last loaded, so leading back to one of those
    takes them no preparation.

    Args:
        connection: to the database.
        environment: where.
        by: who leads back.
        reason: why; it must be said.
        to: the release; None is the one that was active before the current one.
        prepare_s: seconds that the nodes have to prepare it.

    Raises:
        PromotionRefusedError: no reason is given, there is no such release, it was never active, or it is
            the current one.
    """
    if not reason.strip():
        raise PromotionRefusedError("say why: whoever looks back in years must be able to read it")
    with acting(connection, by, reason):
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
        current = current_release(connection, environment)
        if current is None:
            raise PromotionRefusedError(f"{environment} has no release yet")
        number = _was_active(connection, environment, to, current.number)
        preparing = connection.execute(
            "SELECT id FROM rollout WHERE environment = %s AND state = 'preparing'", (environment,)
        ).fetchone()
        if preparing:
            abandon(connection, preparing["id"], f"{by} leads back to release {number}: {reason}")
        return open_rollout(
            connection, environment, number, prepare_s, by=by, comment=reason, kind="rollback"
        )


def _was_active(connection: Connection, environment: str, to: int | None, current: int) -> int:
    if to == current:
        raise PromotionRefusedError(f"{environment} serves release {to} already")
    row = connection.execute(
        "SELECT number FROM rollout WHERE environment = %(environment)s AND state = 'active'"
        " AND kind <> 'canary'"
        " AND number <> %(current)s AND (%(to)s::integer IS NULL OR number = %(to)s)"
        " ORDER BY id DESC LIMIT 1",
        {"environment": environment, "current": current, "to": to},
    ).fetchone()
    if row is None:
        what = "no release" if to is None else f"release {to}"
        raise PromotionRefusedError(f"{what} was active in {environment} before: see `run.py history`")
    return int(row["number"])


def retire(connection: Connection, artifact: Artifact, *, by: str, reason: str) -> tuple[str, ...]:
    """Let an artifact be promoted no more. Where it serves, it serves on, and it can still be led back to.

    Returns:
        the environments whose current release has it.

    Raises:
        PromotionRefusedError: no reason is given, or it is retired already.
    """
    if not reason.strip():
        raise PromotionRefusedError("say why: whoever wants to promote it will read it")
    with acting(connection, by, reason):
        done = connection.execute(
            "INSERT INTO retirement (digest, retired_by, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (artifact.digest, by, reason),
        )
        if not done.rowcount:
            raise PromotionRefusedError(f"{artifact.kind} {artifact.name} is retired already")
        rows = connection.execute(
            "SELECT DISTINCT e.name FROM environment e JOIN release_stage s"
            " ON s.environment = e.name AND s.number = e.current WHERE s.digest = %s ORDER BY e.name",
            (artifact.digest,),
        ).fetchall()
    return tuple(row["name"] for row in rows)
