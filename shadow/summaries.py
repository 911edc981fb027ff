"""Summaries in the database: one an hour, and one of all hours that were settled."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from governance.database import Connection
from shadow.summary import Document, merge_all

#: Hours whose summaries are kept apart; older ones are merged into one.
HOURS_APART = 3
#: Summaries that are merged at once.
_AT_ONCE = 200


def read_summary(connection: Connection, shadow: int) -> Document:
    """Return what all results of a shadow come to.

    Raises:
        SummaryError: another version wrote some of it.
    """
    rows = connection.execute(
        "SELECT document FROM shadow_summary WHERE shadow = %s AND document <> '{}'", (shadow,)
    ).fetchall()
    return merge_all(row["document"] for row in rows)


def settle(connection: Connection, shadow: int) -> int:
    """Merge the summaries of older hours into one, so that reading all of them costs the same after years.

    The one of all settled hours is that of the hour -infinity. The hours stay, empty, and take what comes
    late; that is settled the next time. Any number of nodes may do so at once, and while results are stored:
    all of them lock the hours in their order.

    Returns:
        how many were merged.

    Raises:
        SummaryError: another version wrote some of it.
    """
    merged = 0
    while found := _settle_some(connection, shadow):
        merged += found
    return merged


def _settle_some(connection: Connection, shadow: int) -> int:
    with connection.transaction():
        connection.execute(
            "INSERT INTO shadow_summary VALUES (%s, '-infinity', '{}') ON CONFLICT DO NOTHING", (shadow,)
        )
        # The first of these is -infinity, which is merged with the others and takes them all.
        rows = connection.execute(
            "SELECT hour = '-infinity' AS settled, extract(epoch FROM hour) AS second, document"
            " FROM shadow_summary WHERE shadow = %s AND (hour = '-infinity' OR document <> '{}'"
            " AND hour < date_trunc('hour', now()) - make_interval(hours => %s))"
            " ORDER BY hour LIMIT %s FOR UPDATE",
            (shadow, HOURS_APART, _AT_ONCE),
        ).fetchall()
        hours = [row["second"] for row in rows if not row["settled"]]
        if hours:
            whole = merge_all(row["document"] for row in rows)
            connection.execute(
                "UPDATE shadow_summary SET document = %s WHERE shadow = %s AND hour = '-infinity'",
                (Jsonb(whole), shadow),
            )
            connection.execute(
                "UPDATE shadow_summary SET document = '{}' WHERE shadow = %s"
                " AND hour = ANY (SELECT to_timestamp(s) FROM unnest(%s::float8[]) AS s)",
                (shadow, [float(hour) for hour in hours]),
            )
    return len(hours)
