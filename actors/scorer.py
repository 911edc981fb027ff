"""The scorer actor: feature vectors in, scores out."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import Any

from actors.code import calls
from actors.code.live import LiveCode
from actors.code.stages import ROWS_A_CALL, CodeModel
from actors.rows import Row, rows_of
from actors.serving import ServingActor
from actors.state import Loaded
from actors.traces import PACKED, TRACEPARENT, Traces
from models.errors import InputError
from transport.client import wire
from transport.client.errors import (
    ClosedError,
    ProtocolError,
    ScorewireError,
    TransactionRefusedError,
    UnavailableError,
    UnknownReleaseError,
)
from transport.client.wire import Kind
from transport.listener import Request

logger = logging.getLogger(__name__)


class ScorerActor(ServingActor):
    """Scores vectors with the release that each names; all that has arrived is scored as one batch."""

    kind = Kind.VECTOR
    stages = ("kernel",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._with_code = 0
        self.code = LiveCode(self.loop, self.state.code_used, self.state.code_crew)
        self.state.code_counters[self.name] = self.code.counters

    def in_flight(self) -> int:
        """Return the number of vectors that are with code."""
        return self._with_code

    def close(self) -> None:
        """End the workers of code, and close the sockets."""
        logger.info("%s counted of code %s", self.name, self.code.counters())
        self.code.close()
        super().close()

    def on_batch(self, requests: list[Request]) -> None:
        """Score a batch. A request at fault is refused alone.

        An error that nobody foresaw fails the row on which it comes, so that it is asked elsewhere at once:
        odd rows, one after another, must not keep a node from serving. Where this actor cannot score what its
        models were made ready with either, it is itself at fault, and fails instead, so that its supervisor
        starts a clean one. It stops to listen at once: a request that came to a dying actor would count one
        more failure against itself.
        """
        by_release: dict[int, list[Row]] = defaultdict(list)
        for request in self.listener.drop_late(requests):
            try:
                body = wire.unpack_body(request.frame)
                by_release[_release(body)].append(rows_of(self.listener, request, body))
            except ScorewireError as error:
                self.listener.refuse(request, error)
        for number, rows in by_release.items():
            try:
                self._score_release(number, rows)
            except Exception as error:
                if not self._is_sound(number):
                    self.code.close()
                    self.listener.close()
                    raise
                self._fail_the_one(number, rows, error)
                # Behind the answers: a log may be a disk.
                logger.exception("a row could not be scored", extra={"release": number})

    def _fail_the_one(self, number: int, rows: list[Row], error: Exception) -> None:
        """Score the rows of a batch alone, so that none is failed for its neighbour."""
        alone = _each_alone(rows)
        if len(alone) == 1:
            alone[0].fail(error)
            return
        for row in alone:
            try:
                self._score_release(number, [row])
            except Exception as own:  # noqa: BLE001 - the actor is sound, so it is this row's
                row.fail(own)

    def _is_sound(self, number: int) -> bool:
        """Say whether a release still scores a row that it is known to score."""
        loaded = self.state.holdings.releases.get(number)
        try:
            for _, model in loaded.scoring() if loaded is not None else ():
                if not isinstance(model, CodeModel):
                    model.predict(model.bundle.golden.x[:1])
        except Exception:  # noqa: BLE001 - the one that led here is told
            return False
        return True

    def _score_release(self, number: int, rows: list[Row]) -> None:
        loaded = self.state.holdings.releases.get(number)
        if loaded is None:
            held = sorted(self.state.holdings.releases)
            error = UnknownReleaseError(
                f"scorer {self.state.node_id} holds the releases {held}, not {number}"
            )
            for row in rows:
                row.refuse(error)
            return
        fitting = []
        for row in rows:
            try:
                _check_widths(loaded, row)
            except ProtocolError as misfit:
                row.refuse(misfit)
            else:
                fitting.append(row)
        if fitting:
            self._score(loaded, fitting)

    def _score(self, loaded: Loaded, rows: list[Row]) -> None:
        if loaded.scores_by_code:
            alone = _each_alone(rows)
            for start in range(0, len(alone), ROWS_A_CALL):
                self._ask_code(loaded, alone[start : start + ROWS_A_CALL])
            return
        began = time.perf_counter_ns()
        try:
            scores = loaded.score(loaded.rows([row.vectors for row in rows]))
        except InputError as error:
            self._refuse_rows(loaded, rows, error)
            return
        self._answer(rows, scores, began)

    def _answer(self, rows: list[Row], scores: list[dict[str, float]], began: int) -> None:
        kernel_us = (time.perf_counter_ns() - began) // 1000
        self.timings.stages["kernel"].add(kernel_us)
        more = {"node": self.state.node_id, "kernel_us": kernel_us}
        start = 0
        for row in rows:
            row.answer(scores[start : start + row.count], more)
            start += row.count
        if self.state.traces is not None:
            self._trace(self.state.traces, rows, began, kernel_us)

    def _trace(self, traces: Traces, rows: list[Row], began: int, kernel_us: int) -> None:
        """Add to the traces of those that are traced; their answers have left."""
        begun = time.monotonic() - (time.perf_counter_ns() - began) / 1e9
        for row in rows:
            request = row.request
            # What is traced comes alone.
            if row.count > 1 or PACKED not in request.frame:
                continue
            body = wire.unpack_body(request.frame)
            span = traces.begin(body.get(TRACEPARENT, ""), "scorewire.scorer.score", request.arrived)
            if span is not None:
                span.set_attributes({"scorewire.release": _release(body), "scorewire.batch": len(rows)})
                traces.child(span, "scorewire.kernel", begun, begun + kernel_us / 1e6)
                span.end()

    def _ask_code(self, loaded: Loaded, rows: list[Row]) -> None:
        """Score rows with the models that are code, and with the others once those have answered."""
        began = time.perf_counter_ns()
        x = loaded.rows([row.vectors for row in rows])
        models = {str(place): model for place, model in enumerate(loaded.scoring())}

        def take(outcome: dict[str, Any] | ScorewireError) -> None:
            self._with_code -= len(rows)
            try:
                if isinstance(outcome, ScorewireError):
                    raise outcome
                scores = loaded.name_scores(
                    [
                        calls.read_scores(outcome[place], len(rows), len(model.outputs))
                        if isinstance(model, CodeModel)
                        else model.predict(x[stage])
                        for place, (stage, model) in models.items()
                    ]
                )
            except InputError as error:
                self._refuse_rows(loaded, rows, error)
            except ScorewireError as error:
                self._fail_rows(loaded, rows, error)
            else:
                self._answer(rows, scores, began)

        wanted = {
            place: (model.code, calls.pack_rows(x[stage]))
            for place, (stage, model) in models.items()
            if isinstance(model, CodeModel) and model.code is not None
        }
        self._with_code += len(rows)
        deadline = min(row.request.deadline for row in rows)
        self.code.gather(wanted, deadline, take, {"release": loaded.release})

    def _fail_rows(self, loaded: Loaded, rows: list[Row], error: ScorewireError) -> None:
        """Fail the one row of a batch on which code fails, and score the others alone."""
        if len(rows) == 1 or isinstance(error, UnavailableError | ClosedError):
            for row in rows:
                row.refuse(error)
            return
        for row in rows:
            self._ask_code(loaded, [row])

    def _refuse_rows(self, loaded: Loaded, rows: list[Row], error: InputError) -> None:
        """Refuse the one row of a batch that a model cannot take, and score the others alone."""
        alone = _each_alone(rows)
        if len(alone) == 1:
            alone[0].refuse(TransactionRefusedError(str(error), field=error.field, rule=error.rule))
            return
        for row in alone:
            self._score(loaded, [row])


def _release(body: dict[str, object]) -> int:
    number = body.get("release")
    if not isinstance(number, int):
        raise ProtocolError("a vector names the release to score it with", field="release", rule="type")
    return number


def _each_alone(rows: list[Row]) -> list[Row]:
    return [alone for row in rows for alone in row.alone()]


def _check_widths(loaded: Loaded, row: Row) -> None:
    for stage, width in loaded.widths.items():
        found = row.vectors.get(stage)
        if found is None or len(found) != width * row.count:
            got = "got none" if found is None else f"got {len(found) // row.count}"
            detail = f"release {loaded.release} takes {width} bytes of float32 for {stage}, {got}"
            field = "vector" if len(loaded.widths) == 1 else "vectors"
            raise ProtocolError(detail, field=field, rule="length")
