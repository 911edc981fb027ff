"""The client library: from threads, from asyncio, and installed alone in another team's environment."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.transport.conftest import LIMIT_S, ThreadNode, wait_until
from transport.client import (
    Answer,
    AsyncClient,
    Client,
    ClosedError,
    DeadlineExceededError,
    ScorewireError,
    TransactionRefusedError,
)

ROOT = Path(__file__).parents[2]
Threads = Callable[..., ThreadNode]


@pytest.fixture
def client(threads: Threads) -> Iterator[Client]:
    with Client([threads().endpoint, threads().endpoint], deadline=LIMIT_S) as client:
        yield client


def test_many_threads_share_a_client_and_get_their_own_answers(client: Client) -> None:
    def caller(number: int) -> bool:
        return all(client.score({"payload": f"{number}-{i}"}).id == f"{number}-{i}" for i in range(100))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(caller, range(16)))


def test_a_stream_keeps_its_order_and_a_bad_one_harms_no_other(client: Client) -> None:
    stream: list[dict[str, Any]] = [{"payload": number} for number in range(500)]
    stream[3] = {"do": "bad_transaction"}
    stream[250] = {"payload": object()}
    results = list(client.score_many(stream, window=50))
    assert len(results) == 500
    for index, result in enumerate(results):
        if index in (3, 250):
            assert isinstance(result, TransactionRefusedError)
        else:
            assert isinstance(result, Answer)
            assert result.id == str(index)


def test_a_stream_is_read_no_further_than_its_window(client: Client) -> None:
    read: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            read.append(1)
            yield {"payload": 1}

    results = client.score_many(endless(), window=10)
    for _ in range(5):
        next(results)
    assert len(read) <= 16


def test_a_deadline_of_a_call_is_its_own(client: Client) -> None:
    with pytest.raises(DeadlineExceededError):
        client.score({"do": "silent"}, deadline=0.05)
    assert client.score({"payload": 1}).score == 0.5
    for wrong in (0, -1, 1e9, float("nan")):
        with pytest.raises(ValueError, match="deadline"):
            client.score({}, deadline=wrong)


def test_addresses_that_are_none_are_refused() -> None:
    for wrong in ("", [], "127.0.0.1:7301", ["http://a:1"]):
        with pytest.raises(ValueError, match="address"):
            Client(wrong)


def test_a_closed_client_says_so_and_closing_fails_what_is_under_way(threads: Threads) -> None:
    client = Client(threads().endpoint, deadline=LIMIT_S)
    failed: list[Exception] = []

    def caller() -> None:
        try:
            client.score({"do": "silent"})
        except ClosedError as error:
            failed.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    wait_until(lambda: client.inspect()["counters"]["sent"] == 1)
    client.close()
    client.close()
    thread.join(LIMIT_S)
    assert len(failed) == 1
    with pytest.raises(ClosedError, match="make a new one"):
        client.score({})


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_clients_leave_neither_threads_nor_sockets_behind(threads: Threads) -> None:
    endpoint = threads().endpoint

    def use() -> None:
        with Client(endpoint, deadline=LIMIT_S) as client:
            client.score({})

    use()
    gc.collect()
    before = threading.active_count(), open_files()
    for _ in range(5):
        use()
    # ZeroMQ closes the node's end of each connection in the background.
    wait_until(lambda: threading.active_count() <= before[0] and open_files() <= before[1])


def test_other_addresses_may_be_named_while_it_runs(client: Client, threads: Threads) -> None:
    client.score({})
    another = threads()
    client.set_addresses(another.endpoint)
    client.score({"payload": 1})
    assert sum(another.node.batches) == 1
    assert list(client.inspect()["members"]) == [another.endpoint]


FORKED = """
import os, sys
from transport.client import Client, ClosedError
client = Client(sys.argv[1], deadline=20)
client.score({})
if os.fork() == 0:
    try:
        client.score({})
    except ClosedError as error:
        client.close()
        os._exit(7 if "fork" in str(error) else 8)
_, status = os.wait()
client.score({})
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_client_that_is_used_after_a_fork_says_so(threads: Threads) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, threads().endpoint], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 7


def test_asyncio_scores_at_once_in_order_and_cancels(threads: Threads) -> None:
    async def run(endpoint: str) -> None:
        async with AsyncClient(endpoint, deadline=LIMIT_S) as client:
            answers = await asyncio.gather(*(client.score({"payload": i}) for i in range(500)))
            assert [answer.id for answer in answers] == [str(i) for i in range(500)]
            stream: list[dict[str, Any]] = [{"payload": i} for i in range(300)]
            stream[7] = {"do": "bad_transaction"}
            results = [result async for result in client.score_many(stream, window=20)]
            assert isinstance(results.pop(7), ScorewireError)
            ids = [result.id for result in results if isinstance(result, Answer)]
            assert ids == [str(i) for i in range(300) if i != 7]
            task = asyncio.create_task(client.score({"do": "silent"}))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(DeadlineExceededError):
                await client.score({"do": "silent"}, deadline=0.05)
            assert (await client.score({"payload": "after"})).id == "after"

    asyncio.run(run(threads().endpoint))


def test_an_asyncio_client_belongs_to_one_event_loop_and_has_no_thread(threads: Threads) -> None:
    client = AsyncClient(threads().endpoint, deadline=LIMIT_S)  # before there is an event loop
    before = threading.active_count()

    async def use() -> None:
        assert (await client.score({"payload": "a"})).id == "a"
        assert threading.active_count() == before
        assert client.inspect()["counters"]["answered"] == 1

    async def misuse() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await client.score({})

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(use())
        asyncio.run(misuse())
        loop.run_until_complete(use_after(client))
    finally:
        loop.close()


async def use_after(client: AsyncClient) -> None:
    task = asyncio.create_task(client.score({"do": "silent"}))
    while client.inspect()["counters"]["sent"] < 2:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    await client.close()
    await client.close()
    with pytest.raises(ClosedError):
        await task
    with pytest.raises(ClosedError, match="make a new one"):
        await client.score({})


def test_an_event_loop_that_is_held_up_costs_no_request(threads: Threads) -> None:
    async def run(*endpoints: str) -> None:
        async with AsyncClient(endpoints, deadline=LIMIT_S) as client:
            await client.score({})
            calls = [asyncio.create_task(client.score({"payload": number})) for number in range(50)]
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - ten beats long
            assert [answer.id for answer in await asyncio.gather(*calls)] == [str(n) for n in range(50)]
            assert client.inspect()["counters"]["ejected"] == 0

    asyncio.run(run(threads().endpoint, threads().endpoint))


def test_asyncio_clients_leave_no_sockets_behind(threads: Threads) -> None:
    endpoint = threads().endpoint

    async def use() -> None:
        async with AsyncClient(endpoint, deadline=LIMIT_S) as client:
            await client.score({})

    asyncio.run(use())
    gc.collect()
    before = open_files()
    for _ in range(5):
        asyncio.run(use())
    wait_until(lambda: open_files() <= before)


ALONE = """
import sys
import scorewire_client
from scorewire_client import Client
with Client(sys.argv[1], deadline=20) as client:
    assert client.score({"payload": "alone"}).id == "alone"
loaded = {name.split(".")[0] for name in sys.modules}
strangers = loaded & {"numpy", "numba", "pykka", "psycopg", "transport", "actors", "models", "governance"}
assert not strangers, strangers
assert "site-packages" not in scorewire_client.__file__
"""


def test_the_client_installs_alone_and_scores(threads: Threads, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    options = ["--disable-pip-version-check", "--target", str(tmp_path / "site")]
    # A copy, so that the build writes nothing into this checkout.
    import shutil

    shutil.copytree(ROOT / "transport", tmp_path / "transport")
    subprocess.run([*install, *options, str(tmp_path / "transport")], check=True, timeout=100)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", ALONE, threads().endpoint]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert (tmp_path / "site" / "scorewire_client" / "py.typed").exists()
