"""The scorer actor: feature vectors in, scores out."""

from __future__ import annotations

import logging
import time
from collections import defaultdict

from actors.evaluation import FEATURES, Vectors
from actors.serving import ServingActor
from actors.state import Loaded
from models.errors import InputError
from transport.client import wire
from transport.client.errors import (
    ProtocolError,
    ScorewireError,
    TransactionRefusedError,
    UnknownReleaseError,
)
from transport.client.wire import Kind
from transport.listener import Request

logger = logging.getLogger(__name__)


class ScorerActor(ServingActor):
    """Scores vectors with the release that each names; all that has arrived is scored as one batch."""

    kind = Kind.VECTOR

    def on_batch(self, requests: list[Request]) -> None:
        """Score a batch. A request at fault is refused alone.

        An error that nobody foresaw fails the requests that it touched, so that they are answered
        elsewhere at once, and then this actor, so that its supervisor starts a clean one. It stops to listen
        there and then: a request that came to a dying actor would count one more failure against itself.
        """
        by_release: dict[int, list[tuple[Request, Vectors]]] = defaultdict(list)
        for request in self.listener.drop_late(requests):
            try:
                body = wire.unpack_body(request.frame)
                by_release[_release(body)].append((request, _vectors(body)))
            except ScorewireError as error:
                self.listener.refuse(request, error)
        for number, rows in by_release.items():
            try:
                self._score_release(number, rows)
            except Exception as error:
                for request, _ in rows:
                    self.listener.fail(request, error)
                self.listener.close()
                raise

    def _score_release(self, number: int, rows: list[tuple[Request, Vectors]]) -> None:
        loaded = self.state.holdings.releases.get(number)
        if loaded is None:
            held = sorted(self.state.holdings.releases)
            error = UnknownReleaseError(
                f"scorer {self.state.node_id} holds the releases {held}, not {number}"
            )
            for request, _ in rows:
                self.listener.refuse(request, error)
            return
        fitting = []
        for request, vectors in rows:
            try:
                _check_widths(loaded, vectors)
            except ProtocolError as misfit:
                self.listener.refuse(request, misfit)
            else:
                fitting.append((request, vectors))
        if fitting:
            self._score(loaded, fitting)

    def _score(self, loaded: Loaded, rows: list[tuple[Request, Vectors]]) -> None:
        began = time.perf_counter_ns()
        try:
            scores = loaded.score(loaded.rows([vectors for _, vectors in rows]))
        except InputError as error:
            self._refuse_rows(loaded, rows, error)
            return
        kernel_us = (time.perf_counter_ns() - began) // 1000
        for (request, _), found in zip(rows, scores, strict=True):
            answer = {"scores": found, "node": self.state.node_id, "kernel_us": kernel_us}
            self.listener.answer(request, wire.pack_body(answer))

    def _refuse_rows(self, loaded: Loaded, rows: list[tuple[Request, Vectors]], error: InputError) -> None:
        """Refuse the one row of a batch that a model cannot take, and score the others alone."""
        if len(rows) == 1:
            refusal = TransactionRefusedError(str(error), field=error.field, rule=error.rule)
            self.listener.refuse(rows[0][0], refusal)
            return
        for row in rows:
            self._score(loaded, [row])


def _release(body: dict[str, object]) -> int:
    number = body.get("release")
    if not isinstance(number, int):
        raise ProtocolError("a vector names the release to score it with", field="release", rule="type")
    return number


def _vectors(body: dict[str, object]) -> Vectors:
    """Return features stage to vector: `vector` is that of the stage `features`, `vectors` has all."""
    vector = body.get("vector")
    if isinstance(vector, bytes):
        return {FEATURES: vector}
    vectors = body.get("vectors")
    if not isinstance(vectors, dict) or not all(isinstance(one, bytes) for one in vectors.values()):
        field = "vector" if vectors is None else "vectors"
        raise ProtocolError("a vector is raw little-endian float32", field=field, rule="type")
    return vectors


def _check_widths(loaded: Loaded, vectors: Vectors) -> None:
    for stage, width in loaded.widths.items():
        found = vectors.get(stage)
        if found is None or len(found) != width:
            got = "got none" if found is None else f"got {len(found)}"
            detail = f"release {loaded.release} takes {width} bytes of float32 for {stage}, {got}"
            field = "vector" if len(loaded.widths) == 1 else "vectors"
            raise ProtocolError(detail, field=field, rule="length")
