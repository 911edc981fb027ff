"""Shadows: what may be started, what becomes of them, and who may say so."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from governance import shadows
from governance.artifacts import find, register
from governance.audit import entries, verify
from governance.changes import retire
from governance.database import Connection, connect
from governance.errors import ShadowRefusedError, UnknownShadowError
from governance.promotion import promote
from governance.rollouts import acknowledge
from tests.governance.conftest import SPEC, enter


@pytest.fixture
def served(connection: Connection, stages: dict[str, str]) -> dict[str, str]:
    promote(connection, environment="qa", stages=stages, by="ann")
    return stages


def begin(connection: Connection, served: dict[str, str], name: str = "one") -> shadows.Shadow:
    return shadows.start(connection, "qa", name, {"model": served["model"]}, by="ann", comment="try")


def test_a_shadow_runs_stops_runs_again_and_is_retired(
    connection: Connection, served: dict[str, str]
) -> None:
    started = begin(connection, served)
    assert (started.state, started.overrides, started.sample) == ("running", {"model": served["model"]}, 1.0)
    assert shadows.shadows(connection, "qa", ("running",)) == [started]
    assert shadows.stop(connection, "qa", "one", by="bob").state == "stopped"
    assert shadows.resume(connection, "qa", "one", by="bob").state == "running"
    over = shadows.retire(connection, "qa", "one", by="bob", reason="no better")
    assert (over.id, over.state, over.state_by, over.state_reason) == (
        started.id,
        "retired",
        "bob",
        "no better",
    )
    with pytest.raises(ShadowRefusedError, match="retired"):
        shadows.resume(connection, "qa", "one", by="bob")
    again = begin(connection, served)
    assert again.id != started.id
    assert shadows.find_shadow(connection, "qa", "one") == again


def test_what_cannot_run_is_refused_by_name(
    connection: Connection, served: dict[str, str], tmp_path: Path
) -> None:
    begin(connection, served)
    with pytest.raises(ShadowRefusedError, match="has a shadow 'one', which is running"):
        begin(connection, served)
    with pytest.raises(ShadowRefusedError, match="nothing to shadow"):
        shadows.start(connection, "prod", "two", {"model": "m"}, by="ann")
    with pytest.raises(ShadowRefusedError, match="overrides a stage"):
        shadows.start(connection, "qa", "two", {}, by="ann")
    with pytest.raises(ShadowRefusedError, match="no stage 'colour'"):
        shadows.start(connection, "qa", "two", {"colour": "m"}, by="ann")
    with pytest.raises(ShadowRefusedError, match="stage model: no bundle"):
        shadows.start(connection, "qa", "two", {"model": served["features"]}, by="ann")
    with pytest.raises(ShadowRefusedError, match="name is lower-case"):
        begin(connection, served, "Two!")
    with pytest.raises(ShadowRefusedError, match="share of the transactions"):
        shadows.start(connection, "qa", "two", served, by="ann", sample=1.5)
    other = tmp_path / "other.toml"
    other.write_text(SPEC.format(name="other").replace('name = "a"', 'name = "b"'))
    register(connection, other, kind="feature_spec", name="other", by="ann")
    with pytest.raises(ShadowRefusedError, match="do not make what the model"):
        shadows.start(connection, "qa", "two", {"features": "other"}, by="ann")
    retire(connection, find(connection, served["model"], "bundle"), by="ann", reason="leaks")
    with pytest.raises(ShadowRefusedError, match="retired by ann: leaks"):
        shadows.start(connection, "qa", "two", {"model": served["model"]}, by="ann")
    with pytest.raises(UnknownShadowError, match="no shadow 'two'"):
        shadows.stop(connection, "qa", "two", by="ann")
    with pytest.raises(ShadowRefusedError, match="say why"):
        shadows.retire(connection, "qa", "one", by="ann", reason=" ")


def test_a_shadow_is_promoted_by_the_rollout_that_brings_what_it_overrides(
    connection: Connection, served: dict[str, str], tmp_path: Path
) -> None:
    spec = tmp_path / "second.toml"
    spec.write_text(SPEC.format(name="second"))
    second = register(connection, spec, kind="feature_spec", name="second", by="ann").digest
    same = begin(connection, served, "same")
    started = shadows.start(connection, "qa", "one", {"features": second}, by="ann")
    unreported = shadows.start(connection, "qa", "two", {"features": second}, by="ann")
    for shadow in (same, started):
        connection.execute("INSERT INTO shadow_report (shadow, figures) VALUES (%s, '{}')", (shadow.id,))
    enter(connection, "scorer-0")
    rollout = promote(connection, environment="qa", stages={"features": second}, by="eve", comment="better")
    assert shadows.find_shadow(connection, "qa", "one").state == "running"
    acknowledge(connection, rollout.id, "scorer-0", ready=True, reason="")
    found = shadows.find_shadow(connection, "qa", "one")
    assert (found.state, found.state_by, found.state_reason, found.release) == (
        "promoted",
        "eve",
        "better",
        2,
    )
    assert shadows.find_shadow(connection, "qa", unreported.name).state == "running"
    assert shadows.find_shadow(connection, "qa", same.name).state == "running"
    for change in ("state = 'running', release = NULL", "release = NULL"):
        with pytest.raises(psycopg.errors.RaiseException, match="is over"):
            connection.execute(f"UPDATE shadow SET {change} WHERE name = 'one'".encode())
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        connection.execute("DELETE FROM shadow")


def test_a_node_may_suspend_a_shadow_and_nothing_else(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    started = begin(connection, served)
    with connect(dsn) as node:
        node.execute("SET ROLE scorewire_node")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            node.execute("UPDATE shadow SET state = 'retired'")
        assert shadows.suspend(node, started, "shadow-0@h/1", "its process dies of every record")
        assert not shadows.suspend(node, started, "shadow-0@h/1", "again")
    found = shadows.find_shadow(connection, "qa", "one")
    assert (found.state, found.state_by) == ("suspended", "shadow-0@h/1")
    assert shadows.resume(connection, "qa", "one", by="ann").state == "running"


def test_each_change_of_a_shadow_is_in_the_audit_log(connection: Connection, served: dict[str, str]) -> None:
    started = begin(connection, served)
    shadows.retire(connection, "qa", "one", by="bob", reason="no better")
    found = [e.facts for e in entries(connection, environment="qa") if e.facts["what"] == "shadow"]
    assert [(f["actor"], f["change"], f["after"]["state"]) for f in found] == [
        ("ann", "insert", "running"),
        ("bob", "update", "retired"),
    ]
    connection.execute("INSERT INTO shadow_report (shadow, figures) VALUES (%s, '{}')", (started.id,))
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        connection.execute("UPDATE shadow_report SET figures = '{\"a\": 1}'")
    verify(connection)
