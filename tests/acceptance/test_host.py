"""A host that is changed while it serves: replaced node by node, grown and shrunk, mended when it hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from actors import host as hosts
from actors import launcher
from examples.card_payments import PAYMENT_SPEC, simulate
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.test_system import live_stream, more
from transport.client import Answer, Client

ROOT = Path(__file__).parents[2]
# Ten seconds each where nothing else runs; each starts several nodes, one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
ROOMS = ("actors", "examples", "governance", "haproxy", "models", "shadow", "transport")


@pytest.fixture(scope="module")
def payments() -> list[dict[str, Any]]:
    return simulate(n=4_000, seed=3)[0]


@pytest.fixture(scope="module")
def served(system: Any, directory: Path) -> Any:
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=4_000, seed=3)
    forest = RandomForestClassifier(20, random_state=1).fit(spec.matrix(payments), labels)
    import_model(forest, directory / "f.bundle", feature_names=list(spec.feature_names))
    system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    system.register(directory / "f.bundle", "bundle", "forest")
    settled = system.promote(features=system.digests["card-payments"], model=system.digests["forest"])
    assert settled.state == "active", settled
    return system


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "SETTLE_S", 0.4)


def run(system: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *arguments, f"--config={system.file}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)


def scorers_of(results: list[Any]) -> set[str]:
    return {r.trace.nodes["scorer"].split("@")[0] for r in results if isinstance(r, Answer)}


def test_every_node_is_replaced_one_by_one_and_no_request_notices(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    before = dict(served.host.pids())
    with live_stream(served, payments) as results:
        more(results, wait_until)
        done = run(served, "restart", "--rolling", "--json")
        assert done.returncode == 0, done.stderr
        more(results, wait_until)
    after = dict(served.host.pids())
    assert json.loads(done.stdout)["replaced"] == list(before)
    assert set(before) == set(after)
    assert not set(before.values()) & set(after.values())
    # They left as they were asked to, and none of it counts as a death
    assert {(one["restarts"], one["last_exit"]) for one in served.host.states()} == {(0, 0)}


def test_nodes_are_added_and_taken_away_and_nobody_is_told(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    with live_stream(served, payments) as results:
        more(results, wait_until)
        done = run(served, "scale", "scorer=3", "preprocessor=3")
        assert done.returncode == 0, done.stderr
        assert "scorer-2 is there" in done.stderr
        wait_until(lambda: "scorer-2" in scorers_of(results), "the third scorer answers")
        done = run(served, "scale", "scorer=1", "preprocessor=2", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"scorer": 1, "preprocessor": 2, "gateway": 0}
        marked = len(results)
        more(results, wait_until)
        assert scorers_of(results[marked + 100 :]) == {"scorer-0"}
        assert run(served, "scale", "scorer=2").returncode == 0
    done = run(served, "scale", "tee=2")
    assert done.returncode == 1
    assert "scorer, preprocessor, gateway can" in done.stderr


def test_a_hung_scorer_is_replaced_and_no_request_notices(
    served: Any, payments: list[dict[str, Any]], wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SILENT_S", 4.0)
    with live_stream(served, payments) as results:
        more(results, wait_until)
        old = served.host.pids()["scorer-0"]
        os.kill(old, signal.SIGSTOP)
        wait_until(lambda: served.host.pids().get("scorer-0") not in (None, old), "scorer-0 is replaced")
        wait_until(lambda: all(one["ready"] for one in served.host.states()), "it serves")
        more(results, wait_until)
    told = json.loads(run(served, "status", "--json").stdout)["processes"]
    assert [one["restarts"] for one in told if one["id"] == "scorer-0"] == [1]
    crash = (served.settings.logs / "scorer-0.crash").read_text()
    assert "scorer-0 ended: killed by" in crash
    assert "scorer-0 takes" in crash


def copy_code(to: Path) -> None:
    to.mkdir()
    shutil.copy(ROOT / "run.py", to)
    for room in ROOMS:
        shutil.copytree(ROOT / room, to / room, ignore=shutil.ignore_patterns("__pycache__"))


def test_an_upgrade_whose_nodes_cannot_work_is_put_back_and_no_request_notices(
    served: Any,
    payments: list[dict[str, Any]],
    wait_until: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "READY_S", 6.0)
    newer = tmp_path / "newer"
    copy_code(newer)
    # It starts, and waits for ever: nobody has applied the migration that it brings
    (newer / "governance" / "migrations" / "9999_newer.sql").write_text("SELECT 1;")
    before = dict(served.host.pids())
    first = served.host.states()[0]["id"]
    with live_stream(served, payments) as results:
        more(results, wait_until)
        done = run(served, "upgrade", "--to", str(newer))
        assert done.returncode == 1
        assert f"{first} could not do its work within 6 s of its replacement and is put back" in done.stderr
        assert "replaced before it: none" in done.stderr
        wait_until(lambda: all(one["ready"] for one in served.host.states()), "it serves again")
        more(results, wait_until)
    after = dict(served.host.pids())
    assert {name for name, pid in after.items() if pid != before[name]} == {first}
    assert str(ROOT / "run.py") in Path(f"/proc/{after[first]}/cmdline").read_text()


def test_an_upgrade_runs_other_code_and_code_that_does_not_start_is_refused(
    served: Any,
    payments: list[dict[str, Any]],
    wait_until: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "READY_S", 300.0)  # its first scorer compiles the kernel, beside other tests
    broken, other = tmp_path / "broken", tmp_path / "other"
    broken.mkdir()
    (broken / "run.py").write_text("raise SystemExit('no such module')")
    before = dict(served.host.pids())
    done = run(served, "upgrade", "--to", str(broken))
    assert done.returncode == 1
    assert "does not start: no such module" in done.stderr
    assert dict(served.host.pids()) == before
    copy_code(other)
    with live_stream(served, payments) as results:
        more(results, wait_until)
        done = run(served, "upgrade", "--to", str(other))
        assert done.returncode == 0, done.stderr
        more(results, wait_until)
    for pid in served.host.pids().values():
        assert str(other / "run.py") in Path(f"/proc/{pid}/cmdline").read_text()


def test_a_node_that_is_told_to_end_drains_and_exits_with_0(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    with Client(served.addresses(), deadline=30.0) as client:
        client.score(payments[0])
        old = served.host.pids()["preprocessor-1"]
        os.kill(old, signal.SIGTERM)
        # It has said goodbye, is in the membership no more, and its end was an orderly one
        wait_until(lambda: "not_ready" in client.inspect()["members"].values(), "goodbye is heard")
        wait_until(lambda: all(m.pid != old for m in served.members()), "it has left")
        state = wait_until(
            lambda: next(
                (s for s in served.host.states() if s["id"] == "preprocessor-1" and s["last_exit"] == 0), None
            ),
            "it ended",
        )
        assert state["last_exit"] == 0
        assert isinstance(client.score(payments[1]), Answer)
