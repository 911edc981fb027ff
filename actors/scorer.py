"""The scorer actor: feature vectors in, scores out."""

from __future__ import annotations

import logging
import time
from collections import defaultdict

import numpy as np

from actors.serving import ServingActor
from actors.state import Loaded
from models.errors import InputError
from models.forest import Forest
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

_VECTOR_DTYPE = np.dtype("<f4")


class ScorerActor(ServingActor):
    """Scores vectors with the release that each names; all that has arrived is scored as one batch."""

    kind = Kind.VECTOR

    def on_batch(self, requests: list[Request]) -> None:
        """Score a batch. A request at fault is refused alone.

        An error that nobody foresaw fails the requests that it touched, so that they are answered
        elsewhere at once, and then this actor, so that its supervisor starts a clean one. It stops to listen
        there and then: a request that came to a dying actor would count one more failure against itself.
        """
        by_release: dict[int, list[tuple[Request, bytes]]] = defaultdict(list)
        for request in self.listener.drop_late(requests):
            try:
                body = wire.unpack_body(request.frame)
                by_release[_release(body)].append((request, _vector(body)))
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

    def _score_release(self, number: int, rows: list[tuple[Request, bytes]]) -> None:
        loaded = self.state.holdings.releases.get(number)
        if loaded is None or loaded.forest is None:
            held = sorted(self.state.holdings.releases)
            error = UnknownReleaseError(
                f"scorer {self.state.node_id} holds the releases {held}, not {number}"
            )
            for request, _ in rows:
                self.listener.refuse(request, error)
            return
        width = _VECTOR_DTYPE.itemsize * loaded.spec.n_features
        fitting = []
        for request, vector in rows:
            if len(vector) == width:
                fitting.append((request, vector))
            else:
                detail = f"release {number} takes {width} bytes of float32, got {len(vector)}"
                self.listener.refuse(request, ProtocolError(detail, field="vector", rule="length"))
        if fitting:
            self._score(loaded, loaded.forest, fitting)

    def _score(self, loaded: Loaded, forest: Forest, rows: list[tuple[Request, bytes]]) -> None:
        began = time.perf_counter_ns()
        # frombuffer over joined rows: one copy, and the row is aligned for the kernel.
        x = np.frombuffer(b"".join(vector for _, vector in rows), _VECTOR_DTYPE)
        try:
            scores = forest.predict(x.reshape(len(rows), loaded.spec.n_features))
        except InputError as error:
            self._refuse_rows(loaded, forest, rows, error)
            return
        kernel_us = (time.perf_counter_ns() - began) // 1000
        names = forest.bundle.meta.outputs
        for (request, _), row in zip(rows, scores.tolist(), strict=True):
            answer = {
                "scores": dict(zip(names, row, strict=True)),
                "node": self.state.node_id,
                "kernel_us": kernel_us,
            }
            self.listener.answer(request, wire.pack_body(answer))

    def _refuse_rows(
        self,
        loaded: Loaded,
        forest: Forest,
        rows: list[tuple[Request, bytes]],
        error: InputError,
    ) -> None:
        """Refuse the one row of a batch that the model cannot take, and score the others alone."""
        if len(rows) == 1:
            refusal = TransactionRefusedError(str(error), field=error.field, rule=error.rule)
            self.listener.refuse(rows[0][0], refusal)
            return
        for row in rows:
            self._score(loaded, forest, [row])


def _release(body: dict[str, object]) -> int:
    number = body.get("release")
    if not isinstance(number, int):
        raise ProtocolError("a vector names the release to score it with", field="release", rule="type")
    return number


def _vector(body: dict[str, object]) -> bytes:
    vector = body.get("vector")
    if not isinstance(vector, bytes):
        raise ProtocolError("a vector is raw little-endian float32", field="vector", rule="type")
    return vector
