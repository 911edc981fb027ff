"""Where others fail in public: hundreds of swaps leave nothing behind, no caller gets another's answer."""

from __future__ import annotations

import gc
import random
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from sklearn.ensemble import RandomForestClassifier

from actors.evaluation import NamedModel
from actors.state import Holdings, Loaded
from benchmarks.chaos.checks import gone_backwards
from benchmarks.chaos.load import Entry
from models.bundle import open_bundle
from models.forest import Forest
from models.importers import import_model
from tests.acceptance.test_chaos import activation, entry
from tests.actors.test_serving import LIMIT_S, SPEC, Context, Small, load_with, wait_until
from transport.client import ScorewireError, wire
from transport.client.wire import Kind

SWAPS = 300
FLIPS = 40


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of the same features that score otherwise."""
    x = np.random.default_rng(0).standard_normal((2_000, 2)).astype(np.float32)
    paths = []
    for seed in (1, 2):
        forest = RandomForestClassifier(40, random_state=seed).fit(x, x[:, 0] + seed * x[:, 1] > 0)
        path = tmp_path_factory.mktemp("m") / f"{seed}.bundle"
        paths.append(import_model(forest, path, feature_names=["a", "b"]).path)
    return paths


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def release(path: Path, number: int) -> Loaded:
    """Open a bundle anew, as a node does that prepares a release."""
    bundle = open_bundle(path)
    loaded = load_with(SPEC, NamedModel("", "features", Forest(bundle), bundle.meta.outputs))
    return replace(loaded, release=number)


def left_behind(paths: list[Path]) -> tuple[int, int, int]:
    """Return how many mappings of bundles, descriptors and threads this process has."""
    gc.collect()
    names = {str(path) for path in paths}
    maps = sum(line.split()[-1] in names for line in Path("/proc/self/maps").read_text().splitlines())
    return maps, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def test_hundreds_of_swaps_under_load_leave_nothing_behind_and_every_answer_is_its_releases(
    context: Context, bundles: list[Path]
) -> None:
    expected = [
        Forest(open_bundle(path)).predict(np.array([[0.5, -0.25]], np.float32))[0, 1] for path in bundles
    ]
    small = Small(context, release(bundles[0], 1))
    over = threading.Event()
    seen: list[tuple[int, float]] = []
    failed: list[Exception] = []
    latest = [0, 0]

    def caller(index: int) -> None:
        while not over.is_set():
            try:
                answer = small.client.score({"id": 1, "a": 0.5, "b": -0.25})
            except ScorewireError as error:
                failed.append(error)
                return
            seen.append((answer.trace.release, answer.score))
            latest[index] = answer.trace.release

    def reached(number: int) -> bool:
        return bool(failed) or min(latest) >= number

    threads = [threading.Thread(target=caller, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        before, memory = left_behind(bundles), 0
        for number in range(2, SWAPS + 2):
            coming = release(bundles[(number + 1) % 2], number)
            current = small.state.holdings.releases[number - 1]
            # As the governance actor does: the coming one beside the current, then the flip; one is kept.
            both = MappingProxyType({number - 1: current, number: coming})
            for state in (*small.scorers, small.state):
                state.holdings = Holdings(both, number)
            # A release is held as long as it was stamped a moment ago: nobody is two of them behind.
            wait_until(partial(reached, number))
            if number == SWAPS // 3:
                memory = psutil.Process().memory_info().rss
    finally:
        over.set()
        for thread in threads:
            thread.join(LIMIT_S)
        after = left_behind(bundles)
        grown = psutil.Process().memory_info().rss - memory
        small.close()
    assert failed == []
    assert [score for number, score in seen if score != expected[(number + 1) % 2]] == []
    assert {number for number, _ in seen} >= set(range(2, SWAPS + 2))
    # The mappings of two releases instead of one, whatever came between.
    assert after[0] <= 2 * before[0]
    assert after[1:] == (before[1], before[2] - len(threads))
    assert grown < 20e6


def test_a_caller_is_led_back_to_nothing_while_nodes_take_rollbacks_over_one_after_another(
    context: Context, bundles: list[Path]
) -> None:
    both = MappingProxyType({number: release(bundles[number - 1], number) for number in (1, 2)})
    small = Small(context, both[1], preprocessors=2)
    for scorer in small.scorers:
        scorer.holdings = Holdings(both, 1, activation=1)
    rng, over = random.Random(3), threading.Event()
    found = [activation(1, 0.0)]
    history: list[Entry] = []

    def flip() -> None:
        for place in range(1, FLIPS + 1):
            time.sleep(0.02)
            number = 1 + place % 2
            found.append(activation(number, time.time()))
            for state in rng.sample(small.preprocessors, 2):
                state.holdings = Holdings(both, number, activation=1 + place)
                time.sleep(0.02)
        over.set()

    for state in small.preprocessors:
        state.holdings = Holdings(both, 1, activation=1)
    flipping = threading.Thread(target=flip)
    flipping.start()
    while not over.is_set():
        sent = time.time()
        answer = small.client.score({"id": len(history), "a": 0.5, "b": -0.25})
        history.append(entry(len(history), sent, time.time(), answer.trace.release))
        # Who names a release gets that one, whatever is current where.
        pinned = small.client.score({"id": 0, "a": 0.5, "b": -0.25}, release=1)
        assert pinned.trace.release == 1
    flipping.join(LIMIT_S)
    small.close()
    assert {answer.release for answer in history} == {1, 2}
    assert gone_backwards(history, found) == []


def test_no_answers_are_mixed_between_the_callers_of_one_batch(context: Context, bundles: list[Path]) -> None:
    # A rival's batching gave one caller all three predictions, and the others none.
    loaded = release(bundles[0], 1)
    forest = loaded.models[0].forest
    assert forest is not None
    small = Small(context, loaded)
    callers, each = 8, 150
    rows = np.random.default_rng(7).standard_normal((callers, each, 2)).astype("<f4")
    sockets = [context.socket(zmq.DEALER) for _ in range(callers)]
    try:
        for socket in sockets:
            socket.connect(small.scorers[0].endpoints["s0"])
        for number in range(each):  # all at once, so that batches have rows of all
            for caller, socket in enumerate(sockets):
                body = wire.pack_body({"release": 1, "vector": rows[caller, number].tobytes()})
                socket.send(wire.pack_header(Kind.VECTOR, number, 10**7) + body)
        for caller, socket in enumerate(sockets):
            answers: dict[int, bytes] = {}
            for _ in range(each):
                assert socket.poll(LIMIT_S * 1000)
                frame = socket.recv()
                scores = wire.unpack_body(frame)["scores"]
                answers[wire.unpack_header(frame).id] = struct.pack("<2d", *scores.values())
            for number in range(each):
                alone = forest.predict(rows[caller, number : number + 1])[0]
                assert answers[number] == alone.astype("<f8").tobytes()
    finally:
        for socket in sockets:
            socket.close(0)
        small.close()


def test_many_callers_of_a_preprocessor_each_get_their_own(context: Context, bundles: list[Path]) -> None:
    loaded = release(bundles[0], 1)
    forest = loaded.models[0].forest
    assert forest is not None
    small = Small(context, loaded, scorers=2)
    rows = np.random.default_rng(9).standard_normal((600, 2)).astype(np.float32)
    alone = [forest.predict(row[np.newaxis])[0, 1] for row in rows]
    wrong: list[Any] = []

    def caller(first: int) -> None:
        mine = range(first, len(rows), 4)
        stream = ({"id": n, "a": float(rows[n, 0]), "b": float(rows[n, 1])} for n in mine)
        for number, answer in zip(mine, small.client.score_many(stream, window=40), strict=True):
            if isinstance(answer, Exception) or (answer.id, answer.score) != (str(number), alone[number]):
                wrong.append((number, answer))

    threads = [threading.Thread(target=caller, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S * 3)
    small.close()
    assert wrong == []
