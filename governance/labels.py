"""Labels: what transactions turned out to be, and what that says of the decisions."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.database import Connection
from governance.errors import LabelError

#: Bad lines that are told one by one.
BAD_SHOWN: Final = 20
_TRUE: Final = frozenset({"1", "1.0", "true", "t", "yes", "y", "positive", "fraud", "chargeback"})
_FALSE: Final = frozenset({"0", "0.0", "false", "f", "no", "n", "negative", "genuine", "legitimate"})
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Label:
    """A word on a transaction.

    Attributes:
        transaction_id: which.
        positive: whether it was what the model looks for.
        source: who says so: `chargeback`, `review`, ...
        labelled_at: when it was said; None where the file does not tell.
    """

    transaction_id: str
    positive: bool
    source: str = ""
    labelled_at: datetime | None = None


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        added: transactions that had no label.
        changed: those whose label is now another.
        unchanged: those whose label says the same already.
        older: words that a later one had overtaken.
        bad: lines that could not be read.
        problems: the first of them, with what is wrong.
    """

    added: int
    changed: int
    unchanged: int
    older: int
    bad: int
    problems: tuple[str, ...] = ()


@dataclass
class LabelFile:
    """The labels of a CSV or JSONL file. `problems` and `bad` grow while it is read.

    Columns, or keys: `id` (or `transaction_id`), `label` (or `positive`, or `fraud`: 1, true, fraud, ... or
    0, false, genuine, ...), and optionally `source` and `when` (ISO 8601, or Unix seconds; UTC where it names
    no zone).

    Args:
        path: the file: .jsonl or .ndjson has an object a line, anything else is CSV with a header.
        source: where a line names none.
    """

    path: Path
    source: str = ""
    bad: int = 0
    problems: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Label]:
        """Yield the labels in the file's order.

        Raises:
            LabelError: the file cannot be read at all.
        """
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as lines:
                rows = _objects(lines) if self.path.suffix in (".jsonl", ".ndjson") else _cells(lines)
                for number, row in rows:
                    label = self._label(number, row)
                    if label is not None:
                        yield label
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise LabelError(f"{self.path} cannot be read: {error}") from error

    def sha256(self) -> str:
        """Return the sha256 of the file, in hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _label(self, number: int, row: Any) -> Label | None:
        try:
            return _read(row, self.source)
        except ValueError as error:
            self.bad += 1
            if len(self.problems) < BAD_SHOWN:
                self.problems.append(f"line {number}: {error}")
            return None


def import_labels(connection: Connection, environment: str, file: LabelFile, *, by: str) -> Imported:
    """Import a file of labels. The later word on a transaction counts; doing it again changes nothing.

    A word without a time is as late as its import, but one that says what is known already is none.

    Raises:
        LabelError: the file cannot be read at all, or there is no such environment. Nothing was imported.
    """
    with acting(connection, by, f"labels from {file.path.name}"):
        _known_environment(connection, environment)
        connection.execute(
            "CREATE TEMP TABLE said (place bigserial, id text, positive boolean, source text, at timestamptz)"
            " ON COMMIT DROP"
        )
        with (
            connection.cursor() as cursor,
            cursor.copy(b"COPY said (id, positive, source, at) FROM STDIN") as copy,
        ):
            for one in file:
                copy.write_row((one.transaction_id, one.positive, one.source, one.labelled_at))
        counts = connection.execute(_MERGE, {"environment": environment, "by": by}).fetchone()
        assert counts is not None  # noqa: S101 - an aggregate gives one row
        imported = Imported(**counts, bad=file.bad, problems=tuple(file.problems))
        connection.execute(
            "INSERT INTO label_import"
            " (environment, file, sha256, imported_by, added, changed, unchanged, older, bad)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(environment, file.path.name, file.sha256(), by, imported.added, imported.changed),
                *(imported.unchanged, imported.older, imported.bad),
            ),
        )
    return imported


#: Of several words on one transaction in a file the latest counts, of equally late ones the last line's.
_MERGE: Final = """
WITH latest AS (
    SELECT DISTINCT ON (id) id, positive, source, coalesce(at, now()) AS at, at IS NULL AS undated FROM said
    ORDER BY id, coalesce(at, now()) DESC, place DESC
), judged AS (
    SELECT n.*, o.transaction_id IS NULL AS is_new, (o.positive, o.source) = (n.positive, n.source) AS same,
        n.at < o.labelled_at AS is_older, n.undated OR n.at = o.labelled_at AS same_time
    FROM latest n
    LEFT JOIN label o ON o.environment = %(environment)s AND o.transaction_id = n.id
), written AS (
    INSERT INTO label (environment, transaction_id, positive, source, labelled_at, imported_by)
    SELECT %(environment)s, id, positive, source, at, %(by)s FROM judged
    WHERE is_new OR NOT (is_older OR same AND same_time)
    ORDER BY id
    ON CONFLICT (environment, transaction_id) DO UPDATE
    SET positive = EXCLUDED.positive, source = EXCLUDED.source, labelled_at = EXCLUDED.labelled_at,
        imported_at = clock_timestamp(), imported_by = EXCLUDED.imported_by
    WHERE label.labelled_at <= EXCLUDED.labelled_at
)
SELECT count(*) FILTER (WHERE is_new) AS added,
    count(*) FILTER (WHERE NOT is_new AND NOT same AND NOT is_older) AS changed,
    count(*) FILTER (WHERE NOT is_new AND same) AS unchanged,
    count(*) FILTER (WHERE NOT is_new AND NOT same AND is_older) AS older
FROM judged
"""


def _known_environment(connection: Connection, environment: str) -> None:
    if not connection.execute("SELECT 1 FROM environment WHERE name = %s", (environment,)).fetchone():
        raise LabelError(f"there is no environment {environment} yet: nothing was ever promoted there")


def _objects(lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON: {error}"


def _cells(lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(lines)
    for row in reader:
        yield reader.line_num, {name: cell for name, cell in row.items() if name is not None}


def _read(row: Any, source: str) -> Label:
    if isinstance(row, str):
        raise ValueError(row)  # noqa: TRY004 - what _objects found wrong with the line
    if not isinstance(row, dict):
        raise ValueError("not an object of named values")  # noqa: TRY004 - one error for all that is wrong
    id_ = _first(row, "id", "transaction_id")
    if id_ is None or isinstance(id_, bool | float | list | dict) or not str(id_) or len(str(id_)) > _LONGEST:
        raise ValueError(f"id is {id_!r}: it must be the transaction's id")
    if "\0" in str(id_):
        raise ValueError("id has a zero byte, which no stored transaction has")
    told = str(row.get("source") or source)[:_LONGEST].replace("\0", "")
    return Label(str(id_), _positive(_first(row, "label", "positive", "fraud")), told, _when(row.get("when")))


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _positive(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"label is {value!r}: it must be 1, true or fraud, or 0, false or genuine")


def _when(value: Any) -> datetime | None:
    if value in (None, ""):
        return None
    try:
        moment = _moment(value)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"when is {value!r}: it must be like 2026-01-31T12:00:00Z") from error
    return moment


def _moment(value: Any) -> datetime:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        moment = datetime.fromisoformat(str(value))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class Performance:
    """How decisions stand against labels.

    Each transaction counts once for a release, with that release's last answer to it.

    Attributes:
        release: of which release; None of several together.
        labels: transactions that were answered and have a label.
        positives: those whose label is positive.
        flagged: those that were not approved: reviewed or declined.
        hits: flagged, and positive.
        declined: those that were declined.
        declined_hits: declined, and positive.
        first_at: the first of these answers.
        last_at: the last.
    """

    release: int | None
    labels: int
    positives: int
    flagged: int
    hits: int
    declined: int
    declined_hits: int
    first_at: datetime | None
    last_at: datetime | None

    @property
    def precision(self) -> float | None:
        """The share of the flagged that are positive; None if nothing with a label was flagged."""
        return self.hits / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """The share of the positive that were flagged; None if no label is positive."""
        return self.hits / self.positives if self.positives else None

    def facts(self) -> dict[str, Any]:
        """Return it all by name, with precision and recall."""
        names = [name for name in self.__slots__ if name not in ("precision", "recall")]
        return {name: getattr(self, name) for name in names} | {
            "precision": self.precision,
            "recall": self.recall,
        }


def performance(
    connection: Connection, environment: str, *, since: datetime | None = None, until: datetime | None = None
) -> list[Performance]:
    """Return how the decisions of each release stand against labels, the newest release first.

    Only answers of pipelines with decision rules count, and none that had no score.

    Args:
        connection: to the database.
        environment: where.
        since: only answers from then on; fewer days are looked at.
        until: only answers before then.
    """
    where = {"environments": [environment], "since": since, "until": until, "stages": None}
    rows = connection.execute(_PERFORMANCE.format(release="t.release").encode(), where).fetchall()
    return [Performance(**row) for row in rows]


def performance_of(
    connection: Connection,
    environments: list[str],
    stages: Mapping[str, str],
    *,
    since: datetime | None = None,
) -> Performance:
    """Return how the decisions of one pipeline stand against labels, over all releases that had it.

    Args:
        connection: to the database.
        environments: where it may have run.
        stages: the whole pipeline: stage to digest.
        since: only answers from then on.
    """
    where = {
        "environments": environments,
        "since": since,
        "until": None,
        "stages": Jsonb(dict(stages)),
    }
    row = connection.execute(_PERFORMANCE.format(release="NULL::integer").encode(), where).fetchone()
    return Performance(**row) if row else Performance(None, 0, 0, 0, 0, 0, 0, None, None)


_PERFORMANCE: Final = """
WITH answered AS (
    SELECT DISTINCT ON (t.environment, {release}, t.id)
        {release} AS release, t.outcome, t.at, l.positive
    FROM label l
    JOIN transaction t ON t.environment = l.environment AND t.id = l.transaction_id
    WHERE l.environment = ANY (%(environments)s) AND t.environment = ANY (%(environments)s)
        AND t.outcome IS NOT NULL AND cardinality(t.outputs) > 0
        AND (%(since)s::timestamptz IS NULL OR t.at >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR t.at < %(until)s)
        AND (%(stages)s::jsonb IS NULL OR (
            SELECT jsonb_object_agg(s.stage, s.digest) FROM release_stage s
            WHERE s.environment = t.environment AND s.number = t.release AND s.slot = 'champion'
        ) = %(stages)s)
    ORDER BY t.environment, {release}, t.id, t.at DESC
)
SELECT release, count(*) AS labels, count(*) FILTER (WHERE positive) AS positives,
    count(*) FILTER (WHERE outcome <> 'approve') AS flagged,
    count(*) FILTER (WHERE outcome <> 'approve' AND positive) AS hits,
    count(*) FILTER (WHERE outcome = 'decline') AS declined,
    count(*) FILTER (WHERE outcome = 'decline' AND positive) AS declined_hits,
    min(at) AS first_at, max(at) AS last_at
FROM answered GROUP BY release ORDER BY release DESC
"""
