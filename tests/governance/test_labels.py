from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from governance.database import Connection
from governance.errors import LabelError
from governance.labels import Imported, LabelFile, import_labels, performance, performance_of
from governance.promotion import promote
from governance.transactions import Transaction, make_days, store

NOW = datetime.now(UTC)
ONE = Transaction("qa", "t0", NOW, "n", 1, 1, outcome="approve", scores={"p": 0.5})


@pytest.fixture
def qa(connection: Connection, stages: dict[str, str]) -> Connection:
    for _ in range(2):
        promote(connection, environment="qa", stages=stages, by="ann")
    make_days(connection, "qa", NOW.date() - timedelta(days=1), NOW.date() + timedelta(days=1))
    return connection


def take(connection: Connection, directory: Path, text: str, name: str = "labels.csv") -> Imported:
    (directory / name).write_text(text, encoding="utf-8")
    return import_labels(connection, "qa", LabelFile(directory / name, "review"), by="ann")


def known(connection: Connection) -> dict[str, tuple[bool, str]]:
    rows = connection.execute("SELECT * FROM label WHERE environment = 'qa'").fetchall()
    return {row["transaction_id"]: (row["positive"], row["source"]) for row in rows}


def test_labels_come_from_csv_and_from_lines_of_json(qa: Connection, tmp_path: Path) -> None:
    found = take(qa, tmp_path, "id,label,source,when\na,1,chargeback,2026-01-31T12:00:00Z\nb,genuine,,\n")
    assert (found.added, found.bad) == (2, 0)
    lines = '{"transaction_id": "c", "positive": true, "when": 1767225600}\n\n{"id": 17, "label": 0}\n'
    assert take(qa, tmp_path, lines, "more.jsonl").added == 2
    assert known(qa) == {
        "a": (True, "chargeback"),
        "b": (False, "review"),
        "c": (True, "review"),
        "17": (False, "review"),
    }


def test_doing_it_again_changes_nothing_and_every_import_is_in_the_audit_log(
    qa: Connection, tmp_path: Path
) -> None:
    text = "id,label,when\na,1,2026-01-01\nb,0,\n"
    take(qa, tmp_path, text)
    before = qa.execute("SELECT * FROM label ORDER BY 2").fetchall()
    again = take(qa, tmp_path, text)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 2)
    assert qa.execute("SELECT * FROM label ORDER BY 2").fetchall() == before
    row = qa.execute("SELECT count(*) AS n FROM audit WHERE entry::jsonb ->> 'what' = 'label_import'")
    assert row.fetchone() == {"n": 2}


def test_the_later_word_counts_whatever_the_order_in_which_words_come(qa: Connection, tmp_path: Path) -> None:
    early, late = "id,label,when\na,1,2026-01-01\n", "id,label,when\na,0,2026-02-01\n"
    take(qa, tmp_path, late)
    assert take(qa, tmp_path, early).older == 1
    assert known(qa)["a"][0] is False
    # In one file the latest counts, and of equally late ones the last line's.
    assert take(qa, tmp_path, "id,label,when\na,1,2026-03-01\na,0,2026-02-15\n").changed == 1
    assert known(qa)["a"][0] is True
    take(qa, tmp_path, "id,label,when\na,1,2026-03-02\na,0,2026-03-02\n")
    assert known(qa)["a"][0] is False
    # Without a time a word is as late as its import.
    assert take(qa, tmp_path, "id,label\na,1\n").changed == 1
    assert known(qa)["a"][0] is True


def test_bad_lines_are_named_and_the_others_imported(qa: Connection, tmp_path: Path) -> None:
    found = take(qa, tmp_path, "id,label,when\na,1,\n,1,\nb,maybe,\nc,1,yesterday\nd,0,\n")
    assert (found.added, found.bad) == (2, 3)
    assert [problem.split(":")[0] for problem in found.problems] == ["line 3", "line 4", "line 5"]
    lines = (
        '{"id": "x", "label": 1}\nnot json\n[1]\n{"id": null, "label": 1}\n{"id": "y\\u0000", "label": 1}\n'
    )
    assert take(qa, tmp_path, lines, "l.jsonl").bad == 4


def test_a_file_that_is_none_imports_nothing(qa: Connection, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"id,label\na,1\n\xff\xfe,1\n")
    with pytest.raises(LabelError, match="cannot be read"):
        import_labels(qa, "qa", LabelFile(tmp_path / "l.csv"), by="ann")
    assert known(qa) == {}
    with pytest.raises(LabelError, match="no environment nowhere"):
        import_labels(qa, "nowhere", LabelFile(tmp_path / "l.csv"), by="ann")


def test_precision_and_recall_of_each_release(qa: Connection, tmp_path: Path, stages: dict[str, str]) -> None:
    outcomes = ["approve", "review", "decline", "decline", "approve", "review"]
    store(qa, [replace(ONE, id=f"t{n}", outcome=outcome) for n, outcome in enumerate(outcomes)])
    # t0 was asked again of the next release, and declined there, after it had been approved there too.
    second = replace(ONE, release=2, at=NOW + timedelta(seconds=1))
    store(qa, [second, replace(second, at=NOW + timedelta(seconds=2), outcome="decline")])
    store(qa, [replace(ONE, id="undecided", outcome=None), replace(ONE, id="unscored", scores={})])
    take(qa, tmp_path, "id,label\nt0,1\nt1,1\nt2,0\nt3,1\nt4,0\nother,1\nundecided,1\nunscored,1\n")
    second_, first = performance(qa, "qa")
    assert (first.labels, first.positives, first.flagged, first.hits) == (5, 3, 3, 2)
    assert (first.declined, first.declined_hits) == (2, 1)
    assert (first.precision, first.recall) == (2 / 3, 2 / 3)
    assert (second_.labels, second_.hits, second_.precision, second_.recall) == (1, 1, 1.0, 1.0)
    # Both releases have one pipeline: together a transaction counts once, with its last answer.
    both = performance_of(qa, ["qa", "integration"], stages)
    assert (both.labels, both.flagged, both.hits) == (5, 4, 3)
    assert performance_of(qa, ["qa"], {**stages, "model": "0" * 64}).labels == 0
    assert performance(qa, "qa", since=NOW + timedelta(hours=1)) == []
    assert [one.release for one in performance(qa, "qa", until=NOW + timedelta(milliseconds=1))] == [1]
    assert set(both.facts()) >= {"labels", "precision", "recall"}
