"""The watcher: a hint makes it look, and a lost hint, link or server only delays it."""

from __future__ import annotations

import select
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from governance.backoff import Backoff
from governance.changes import rollback
from governance.database import CHANNEL, Connection, connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import beat
from governance.notify import concerns
from governance.promotion import promote
from governance.watcher import View, Watcher
from tests.governance.conftest import enter
from tests.governance.proxy import OutageProxy

NEVER_S = 3600.0


def watch(watcher: Watcher, until: Callable[[View], Any], timeout_s: float = 30) -> View:
    """Serve a watcher as its owner does, until it shows what is waited for."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        view = watcher.pump()
        if view is not None and until(view):
            return view
        wait_s = max(0.0, min(watcher.due(), give_up_at) - time.monotonic())
        fd = watcher.fileno()
        if fd is None:
            time.sleep(min(wait_s, 0.05))
        else:
            select.select([fd], [], [], wait_s)
    pytest.fail(f"waited {timeout_s} s in vain; connected: {watcher.connected}, {watcher.reason}")


@pytest.fixture
def watcher(dsn: str) -> Iterator[Watcher]:
    """A watcher that looks when it gets a hint, and otherwise not in the time of a test."""
    with closing(Watcher(dsn, "qa", reread_s=NEVER_S)) as watcher:
        yield watcher


def shows(number: int) -> Callable[[View], bool]:
    return lambda view: view.current is not None and view.current.number == number


def test_an_environment_that_nobody_promoted_to_is_empty(watcher: Watcher) -> None:
    view = watch(watcher, lambda _: True)
    assert view == View(None, None, (), None, (), 0)
    assert watcher.connected
    assert watcher.reason == ""


def test_a_hint_shows_a_promotion_a_rollout_and_a_member(
    watcher: Watcher, connection: Connection, stages: dict[str, str]
) -> None:
    watch(watcher, lambda _: True)
    promote(connection, environment="qa", stages=stages, by="ann")
    assert watch(watcher, shows(1)).earlier == ()
    enter(connection, "a")
    watch(watcher, lambda view: [member.node_id for member in view.members] == ["a"])
    promote(connection, environment="qa", stages=stages, by="ann")
    view = watch(watcher, lambda view: view.coming)
    assert view.coming is not None
    assert view.coming.release.number == 2
    assert view.current is not None
    assert view.current.number == 1


def test_the_releases_before_the_current_one_are_named_the_last_one_first(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    for _ in range(4):
        promote(connection, environment="qa", stages=stages, by="ann")
    rollback(connection, "qa", by="ann", reason="x", to=2)
    with closing(Watcher(dsn, "qa", keep=2)) as watcher:
        view = watch(watcher, shows(2))
        assert [release.number for release in view.earlier] == [4, 3]
        assert view.activation == 5
        # Led back to once more, it is the last one that was left.
        rollback(connection, "qa", by="ann", reason="x", to=1)
        assert [release.number for release in watch(watcher, shows(1)).earlier] == [2, 4]


def test_a_beat_without_news_and_another_environment_give_no_hint(
    watcher: Watcher, connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a", endpoints=("e",))
    watch(watcher, lambda view: view.members)
    assert beat(connection, "a", state="starting", release=None, endpoints=("e",))
    promote(connection, environment="other", stages=stages, by="ann")
    connection.execute("NOTIFY unrelated")
    # The next hint that counts comes after those, and is the first that makes it look.
    enter(connection, "b")
    fd = watcher.fileno()
    assert fd is not None
    select.select([fd], [], [], 30)
    looks: list[View] = []
    give_up_at = time.monotonic() + 30
    while not looks and time.monotonic() < give_up_at:
        view = watcher.pump()
        if view is not None:
            looks.append(view)
    assert [member.node_id for member in looks[0].members] == ["a", "b"]


def test_a_lost_notification_delays_a_change_and_never_loses_it(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    with closing(Watcher(dsn, "qa", reread_s=0.2)) as watcher:
        watch(watcher, lambda _: True)
        assert watcher.connection is not None
        watcher.connection.execute("UNLISTEN *")
        promote(connection, environment="qa", stages=stages, by="ann")
        watch(watcher, shows(1))


def test_a_cut_link_is_noticed_and_what_happened_meanwhile_is_seen(
    watcher: Watcher, connection: Connection, stages: dict[str, str]
) -> None:
    watch(watcher, lambda _: True)
    assert watcher.connection is not None
    pid = watcher.connection.info.backend_pid
    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    promote(connection, environment="qa", stages=stages, by="ann")
    watch(watcher, shows(1))
    assert watcher.connection.info.backend_pid != pid


def test_links_that_are_cut_again_and_again_only_delay_what_is_seen(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    with OutageProxy(dsn) as proxy, closing(Watcher(proxy.dsn, "qa", reread_s=NEVER_S)) as watcher:
        watch(watcher, lambda _: True)
        for number in (1, 2, 3):
            assert proxy.cut() >= 1
            promote(connection, environment="qa", stages=stages, by="ann")
            watch(watcher, shows(number))


def test_a_hint_is_small_however_long_the_name_of_the_environment_is(
    connection: Connection, stages: dict[str, str]
) -> None:
    longest = "e" * 63
    connection.execute(f"LISTEN {CHANNEL}")
    promote(connection, environment=longest, stages=stages, by="ann")
    payloads = [note.payload for note in connection.notifies(timeout=5, stop_after=1)]
    # PostgreSQL takes less than 8000 bytes; what there is to know is read, and never sent along.
    assert payloads
    assert all(len(payload) < 100 and concerns(payload, longest) for payload in payloads)


def test_a_missing_schema_is_named_with_what_to_do(empty_dsn: str) -> None:
    with closing(Watcher(empty_dsn, "qa")) as watcher:
        assert watcher.pump() is None
        assert "run.py migrate" in watcher.reason
        assert not watcher.connected
        migrate(empty_dsn)
        watch(watcher, lambda _: True)


def test_an_older_node_that_meets_a_newer_schema_says_so_and_goes_on_when_it_fits_again(
    watcher: Watcher, connection: Connection
) -> None:
    watch(watcher, lambda _: True)
    connection.execute("INSERT INTO migration (name, sha256) VALUES ('9999_later', 'x')")
    assert watcher.connection is not None
    connection.execute("SELECT pg_terminate_backend(%s)", (watcher.connection.info.backend_pid,))
    give_up_at = time.monotonic() + 30
    while "this node is older: deploy the new one" not in watcher.reason:
        assert time.monotonic() < give_up_at
        assert watcher.pump() is None
        time.sleep(0.01)
    assert not watcher.connected
    connection.execute("DELETE FROM migration WHERE name = '9999_later'")
    watch(watcher, lambda _: True)


def test_a_server_that_is_killed_or_not_there_is_waited_for(
    stages_of: Callable[[str], dict[str, str]],
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="scorewire-pg-") as directory,
        EmbeddedPostgres(Path(directory)) as server,
    ):
        migrate(server.dsn)
        with closing(Watcher(server.dsn, "qa", reread_s=0.1)) as watcher:
            watch(watcher, lambda _: True)
            server.kill()
            give_up_at = time.monotonic() + 30
            while watcher.connected and time.monotonic() < give_up_at:
                watcher.pump()
            assert not watcher.connected
            assert watcher.reason
            assert watcher.fileno() is None
            assert watcher.pump() is None
            server.start()
            stages = stages_of(server.dsn)
            with connect(server.dsn) as connection:
                promote(connection, environment="qa", stages=stages, by="ann")
            watch(watcher, shows(1))


@pytest.fixture
def stages_of(bundle_file: Path, spec_file: Path) -> Callable[[str], dict[str, str]]:
    from governance.artifacts import register

    def stages(dsn: str) -> dict[str, str]:
        with connect(dsn) as connection:
            model = register(connection, bundle_file, kind="bundle", name="m", by="ann")
            features = register(connection, spec_file, kind="feature_spec", name="f", by="ann")
        return {"model": model.digest, "features": features.digest}

    return stages


def test_pauses_grow_up_to_a_limit_and_begin_again() -> None:
    backoff = Backoff(0.1, 2.0)
    pauses = [backoff.pause_s() for _ in range(10)]
    for pause, expected in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2, 2], strict=True):
        assert expected * 0.79 < pause < expected * 1.21
    backoff.reset()
    assert backoff.pause_s() < 0.13


def test_a_notification_that_cannot_be_read_might_be_about_us() -> None:
    assert concerns('{"environment": "qa"}', "qa")
    assert not concerns('{"environment": "other"}', "qa")
    for payload in ("", "junk", "[]", "\x00"):
        assert concerns(payload, "qa")
