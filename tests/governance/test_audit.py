"""The audit log: every change is in it, and whoever tampers with it is found out."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance.artifacts import register
from governance.audit import entries, verify
from governance.database import Connection, connect
from governance.errors import AuditBrokenError, RolloutInProgressError
from governance.promotion import promote
from governance.rollouts import acknowledge, settle
from tests.governance.conftest import enter

GOVERNED = ("artifact", "artifact_chunk", "release", "release_stage", "audit")


def facts_of(connection: Connection) -> list[dict[str, Any]]:
    return [entry.facts for entry in entries(connection)]


def test_every_change_says_who_did_it_why_and_what_was_before_and_after(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "scorer-0")
    rollout = promote(connection, environment="qa", stages=stages, by="ann", comment="better on gift cards")
    acknowledge(connection, rollout.id, "scorer-0", ready=True, reason="")
    found = facts_of(connection)
    assert [fact["seq"] for fact in found] == list(range(1, len(found) + 1))
    (release,) = (fact for fact in found if fact["what"] == "release")
    assert (release["actor"], release["reason"]) == ("ann", "better on gift cards")
    assert release["before"] is None
    assert release["after"]["number"] == 1
    flip = found[-1]
    assert (flip["what"], flip["change"], flip["actor"]) == ("environment", "update", "scorer-0")
    assert (flip["before"]["current"], flip["after"]["current"]) == (None, 1)
    assert flip["environment"] == "qa"
    login = connection.execute("SELECT session_user AS login").fetchone()
    assert login
    assert {fact["login"] for fact in found} == {login["login"]}
    assert {fact["after"]["digest"] for fact in found if fact["what"] == "artifact"} == set(stages.values())


def test_the_chain_can_be_checked_without_this_code(connection: Connection, stages: dict[str, str]) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    last = verify(connection)
    found = bytes(32)
    for entry in entries(connection):
        found = hashlib.sha256(found + entry.text.encode()).digest()
    assert last is not None
    assert last.hash == found


def test_a_change_that_is_taken_back_leaves_nothing(connection: Connection, stages: dict[str, str]) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    enter(connection, "scorer-0")
    promote(connection, environment="qa", stages=stages, by="ann")
    before = verify(connection)
    with pytest.raises(RolloutInProgressError):
        promote(connection, environment="qa", stages=stages, by="bob")
    assert verify(connection) == before


@pytest.mark.parametrize("table", GOVERNED)
@pytest.mark.parametrize("command", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_ran_cannot_be_taken_out_even_by_its_owner(
    connection: Connection, stages: dict[str, str], table: str, command: str
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        connection.execute(command.format(table).encode())


TAMPERED = {
    "an entry that was changed": (
        "UPDATE audit SET entry = replace(entry, 'ann', 'bob') WHERE seq = 2",
        "entry 2",
    ),
    "an entry that was taken out": ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
    "two that were exchanged": (
        "UPDATE audit a SET entry = b.entry FROM audit b WHERE a.seq IN (2, 3) AND b.seq = 5 - a.seq",
        "entry 2",
    ),
    "a hash that was made to fit": (
        "UPDATE audit SET entry = 'x', hash = sha256('x') WHERE seq = 2",
        "entry 2",
    ),
    "an end that was cut off": ("DELETE FROM audit WHERE seq > 3", "some are missing"),
    "the whole log": ("DELETE FROM audit", "some are missing"),
}


def with_triggers_off(connection: Connection, statement: str) -> None:
    """Do what only a superuser can: change what is immutable."""
    connection.execute("SET session_replication_role = replica")
    connection.execute(statement.encode())
    connection.execute("SET session_replication_role = origin")


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found_even_where_it_was_done_by_a_superuser(
    connection: Connection, stages: dict[str, str], name: str
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    statement, reason = TAMPERED[name]
    with_triggers_off(connection, statement)
    with pytest.raises(AuditBrokenError, match=reason):
        verify(connection)


def test_an_end_that_was_cut_off_with_great_care_is_found_by_an_anchor(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    last = verify(connection)
    assert last is not None
    anchor = (last.seq, last.hash.hex())
    register_more(connection, stages)
    verify(connection, anchor)
    with_triggers_off(connection, "DELETE FROM audit WHERE seq > 3")
    connection.execute("UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 3)")
    verify(connection)
    with pytest.raises(AuditBrokenError, match="anchor"):
        verify(connection, anchor)


def register_more(connection: Connection, stages: dict[str, str]) -> None:
    promote(connection, environment="integration", stages=stages, by="bob")


def test_many_may_change_things_at_once_and_the_chain_holds(
    dsn: str, connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    def work(number: int) -> None:
        with connect(dsn) as own:
            for turn in range(5):
                path = tmp_path / f"{number}-{turn}.json"
                path.write_text(json.dumps({"name": f"s{number}", "version": turn + 1, **FEATURES}))
                register(own, path, kind="feature_spec", name="s", by=f"person {number}")
                promote(own, environment=f"e{number % 3}", stages=stages, by=f"person {number}")
                settle(own, f"e{number % 3}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    last = verify(connection)
    assert last is not None
    releases = [fact for fact in facts_of(connection) if fact["what"] == "release"]
    assert len(releases) == 30
    for environment in ("e0", "e1", "e2"):
        numbers = [fact["after"]["number"] for fact in releases if fact["environment"] == environment]
        assert numbers == list(range(1, 11))


FEATURES = {
    "fields": {"a": {"type": "number"}},
    "features": [{"name": "a", "kind": "numeric", "field": "a"}],
}

#: For each role, what it must not do.
FORBIDDEN = {
    "node": (
        "INSERT INTO release (environment, number, created_by) VALUES ('qa', 9, 'me')",
        "UPDATE rollout SET number = 1",
        "UPDATE environment SET frozen_reason = ''",
        "INSERT INTO audit VALUES (99, '{}', sha256(''))",
        "UPDATE audit_head SET seq = 0",
        "DELETE FROM audit",
    ),
    "promoter": (
        "UPDATE release SET comment = ''",
        "DELETE FROM release_stage",
        "INSERT INTO audit VALUES (99, '{}', sha256(''))",
        "TRUNCATE audit",
        "DELETE FROM member",
    ),
    "approver": (
        "INSERT INTO policy (environment, version, document, set_by) VALUES ('qa', 1, '{}', 'me')",
        "INSERT INTO approver VALUES ('me', 'risk')",
        "UPDATE environment SET frozen_reason = ''",
        "DELETE FROM approval",
        "UPDATE release SET comment = ''",
    ),
    "auditor": ("UPDATE environment SET current = NULL", "DELETE FROM rollout", "DELETE FROM member"),
    "owner": ("DELETE FROM audit", "UPDATE audit_head SET seq = 0", "UPDATE artifact SET name = 'x'"),
}


@pytest.mark.parametrize("role", FORBIDDEN)
def test_a_role_may_do_its_work_and_no_more(
    connection: Connection, stages: dict[str, str], role: str
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    connection.execute(f"SET ROLE scorewire_{role}".encode())
    assert connection.execute("SELECT count(*) AS n FROM audit").fetchone() != {"n": 0}
    for statement in FORBIDDEN[role]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_a_promoter_promotes_and_a_node_takes_part_with_their_roles_alone(
    connection: Connection, stages: dict[str, str], spec_file: Path
) -> None:
    connection.execute("SET ROLE scorewire_node")
    enter(connection, "scorer-0")
    connection.execute("SET ROLE scorewire_promoter")
    spec_file.write_text(spec_file.read_text().replace("version = 1", "version = 2"))
    register(connection, spec_file, kind="feature_spec", name="f2", by="ann")
    rollout = promote(connection, environment="qa", stages={**stages, "features": "f2"}, by="ann")
    connection.execute("SET ROLE scorewire_node")
    acknowledge(connection, rollout.id, "scorer-0", ready=True, reason="")
    assert connection.execute("SELECT current FROM environment").fetchone() == {"current": 1}
    verify(connection)
