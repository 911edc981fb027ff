"""Two shadows beside each other, on the transactions that both evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from governance.database import Connection
from shadow.errors import ReportError
from shadow.figures import Figures, Options, work_out
from shadow.pairs import read_labelled, read_pairs
from shadow.reading import Reading, one_moment
from shadow.result import ResultRow, row_of
from shadow.summary import fold

#: Columns in which the first shadow takes the champion's place.
_PLACES: Final = ("score", "scores", "outcome", "reasons", "us")


def compare(connection: Connection, first: int, second: int, options: Options) -> Figures:
    """Work out the figures of the second shadow beside the first, which takes the champion's place.

    All of them are of a uniform sample of the common transactions, at a bounded cost.

    Raises:
        ReportError: one of them is not there, or they have no transaction in common.
    """
    bounds = options.bounds
    with one_moment(connection):
        shadows = [_shadow(connection, number) for number in (first, second)]
        pairs = read_pairs(connection, first, second, bounds)
        if not len(pairs.ids):
            names = " and ".join(shadow["name"] for shadow in shadows)
            raise ReportError(f"{names} have no transaction in common: let both run on the same stream")
        environment = shadows[0]["environment"]
        labelled = read_labelled(
            connection, environment, first, second, bounds, total=_results(connection, first)
        )
        summary = fold(_rows(connection, first, second, pairs.ids))
    reading = Reading(
        at=shadows[0]["read_at"],
        shadow=shadows[1],
        summary=summary,
        pairs=pairs,
        labelled=labelled,
        coverage=None,
        progress=(),
        nodes=(),
    )
    return work_out(reading, options, first=shadows[0]["name"])


def _shadow(connection: Connection, number: int) -> Mapping[str, Any]:
    row = connection.execute("SELECT *, now() AS read_at FROM shadow WHERE id = %s", (number,)).fetchone()
    if row is None:
        raise ReportError(f"there is no shadow of the number {number}: `run.py shadow list` tells them")
    return row


def _results(connection: Connection, shadow: int) -> int:
    row = connection.execute(
        "SELECT coalesce(sum((document ->> 'n')::bigint), 0)::bigint AS n FROM shadow_summary"
        " WHERE shadow = %s AND document <> '{}'",
        (shadow,),
    ).fetchone()
    return int(row["n"]) if row else 0


def _rows(connection: Connection, first: int, second: int, ids: Sequence[str]) -> list[ResultRow]:
    """Return the second shadow's results of some transactions, the first in the champion's place."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in connection.execute(
        "SELECT * FROM shadow_result WHERE shadow = ANY (%s) AND transaction_id = ANY (%s)",
        ([first, second], list(ids)),
    ):
        found.setdefault(record["transaction_id"], {})[record["shadow"]] = record
    rows = []
    for both in found.values():
        place = {f"champion_{name}": both[first][f"shadow_{name}"] for name in _PLACES}
        rows.append(row_of({**both[second], **place, "drift": {}}))
    return rows
