"""The preprocessor actor: a transaction in, its features to a scorer, the answer out."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import zmq

from actors.begin import begin
from actors.call import Call
from actors.code import calls
from actors.code.live import LiveCode
from actors.evaluation import DECISION, Vectors
from actors.following import follower
from actors.serving import RefreshPeers, ServingActor
from actors.state import NodeState
from actors.together import Together
from actors.traces import TRACEPARENT, CallTrace
from models.field_policy import policy_of
from transport.client import wire
from transport.client.answer import Decision
from transport.client.errors import (
    DeadlineExceededError,
    NodeFailedError,
    NoNodeError,
    ScorewireError,
)
from transport.client.pool import Pool
from transport.client.wire import Kind
from transport.listener import Request, overloaded
from transport.tee_record import CANARY
from transport.tee_ring import TeeRing

logger = logging.getLogger(__name__)

#: Transactions under way in one preprocessor beyond which it says `overloaded`.
MAX_IN_FLIGHT = 2_000
#: Seconds after which there may be fewer.
FULL_RETRY_S = 0.01


class PreprocessorActor(ServingActor):
    """Stamps a transaction with the current release, computes its features and has them scored."""

    kind = Kind.SCORE
    stages = ("features", "scorer", "decision", "total")

    def __init__(
        self,
        name: str,
        state: NodeState,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        wide: bool = False,
    ) -> None:
        super().__init__(name, state, context, address, wide=wide)
        self._in_flight = 0
        self._answer_timings = [(stage, self.timings.stages[stage]) for stage in self.stages]
        self.code = LiveCode(self.loop, state.code_used, state.code_crew)
        state.code_counters[name] = self.code.counters
        #: How often a decision rule could not be evaluated for a transaction.
        self.rule_errors = 0
        self._tee = state.tee
        self._policies: dict[int, bytes] = {}
        #: How often a release's fallback was answered, since no score came in time.
        self.fallbacks = 0

    def on_start(self) -> None:
        """Reach the scorers that are known, then listen."""
        self.pool = Pool(self.loop, self.context, self.state.scorers)
        self._together = Together(self.pool)
        self.loop.add(follower(self.state, self.pool.heard))
        try:
            super().on_start()
        except BaseException:
            self.pool.close()
            raise

    def close(self) -> None:
        """Close the pool first: what it holds is refused, so that callers ask another preprocessor."""
        logger.info("%s counted at its scorers %s", self.name, self.pool.counters())
        logger.info("%s counted %d rules that could not be evaluated", self.name, self.rule_errors)
        logger.info("%s counted of code %s", self.name, self.code.counters())
        self.code.close()
        logger.info("%s counted %d fallback answers", self.name, self.fallbacks)
        if self._tee is not None:
            logger.info("%s counted towards its tee %s", self.name, self._tee.counters())
        self.pool.close()
        super().close()

    def on_receive(self, message: Any) -> Any:
        """Take a change of the scorers; leave all else to the base."""
        if isinstance(message, RefreshPeers):
            # After an outage of the database all beats there are old, and nobody is on its list.
            self.pool.set_members(self.state.scorers, keep=True)
            return None
        return super().on_receive(message)

    def counters(self) -> dict[str, int]:
        """Return what was counted here, and with `scorers.` before its name what was at the scorers' pool."""
        pool, ring = self.pool.counters(), self.state.tee
        return {
            **super().counters(),
            "fallbacks": self.fallbacks,
            "rule_errors": self.rule_errors,
            **{f"scorers.{name}": count for name, count in pool.items()},
            **{f"members.{state}": count for state, count in Counter(self.pool.states().values()).items()},
            **({} if ring is None else {f"tee.{name}": count for name, count in ring.counters().items()}),
        }

    def busy_s(self, now: float) -> float:
        """Return for how long all scorers have asked not to be asked."""
        return self.pool.busy_s(now)

    def in_flight(self) -> int:
        """Return the number of transactions that are with the scorers, or with code."""
        return self._in_flight

    def on_batch(self, requests: list[Request]) -> None:
        """Send each transaction's features to a scorer. One at fault is refused alone."""
        for request in self.listener.drop_late(requests):
            try:
                self._begin(request)
            except ScorewireError as error:
                self.listener.refuse(request, error)
            except Exception as error:
                # A transaction that trips over a bug must not take the others down with this actor.
                facts = self._facts_of(wire.unpack_body(request.frame))
                logger.exception("a transaction could not be evaluated", extra=facts)
                self.listener.fail(request, error)
        self._together.send()

    def _facts_of(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Name a transaction for the log, once its body was read."""
        loaded = self.state.holdings.find(body.get("release"))
        if loaded is None or not isinstance(body.get("transaction"), dict):
            return {}
        return {
            "release": loaded.release,
            "transaction": body["transaction"].get(loaded.spec.id_field or ""),
            "trace": body.get(TRACEPARENT),
        }

    def _begin(self, request: Request) -> None:
        if self._in_flight >= MAX_IN_FLIGHT:
            raise overloaded(self._in_flight, FULL_RETRY_S)
        call, vectors, traceparent = begin(self, request)
        self._trace(call, traceparent)
        self._in_flight += 1
        if len(vectors) == len(call.loaded.specs):
            self._ask_scorers(call, vectors)
        else:
            self._ask_code(call, vectors)

    def _trace(self, call: Call, traceparent: object) -> None:
        """Begin the trace of a transaction, if it is to have one."""
        traces, arrived = self.state.traces, call.request.arrived
        if traces is not None and (span := traces.begin(traceparent, "scorewire.preprocessor", arrived)):
            call.trace = CallTrace(traces, span, arrived)

    def _ask_scorers(self, call: Call, vectors: Vectors) -> None:
        call.asked, call.vectors = time.monotonic(), vectors
        if call.trace is not None:
            message = call.question(vectors, call.trace.ask())
            self.pool.submit(Kind.VECTOR, message, call.deadline(), call.done)
        else:
            self._together.add(call)

    def _ask_code(self, call: Call, vectors: Vectors) -> None:
        """Have code compute the features that no spec does; then go on as without code."""
        specs, payload = call.loaded.specs, calls.pack_transaction(call.transaction)

        def take(outcome: dict[str, Any] | ScorewireError) -> None:
            try:
                if isinstance(outcome, ScorewireError):
                    raise outcome
                made = {
                    stage: vectors.get(stage) or calls.read_vector(outcome[stage], spec.n_features)
                    for stage, spec in specs.items()
                }
            except ScorewireError as error:
                self.finish(call, error)
            else:
                self._ask_scorers(call, made)
                self._together.send()

        wanted = {stage: (call.loaded.code[stage], payload) for stage in specs if stage not in vectors}
        self.code.gather(wanted, call.request.deadline, take, call.about)

    def finish(self, call: Call, outcome: wire.Body | Exception) -> None:
        """Answer the caller with what the scorers said, or with what went wrong."""
        if isinstance(outcome, Exception):
            fallback = call.fallback() if isinstance(outcome, _UNANSWERED) else None
            self._give_up(call, outcome, fallback)
        elif DECISION in call.loaded.code:
            self._have_decided(call, outcome)
        else:
            self._reply(call, call.answer(outcome))

    def fail(self, call: Call, error: Exception) -> None:
        """Fail one transaction alone, on whose answer an error came that nobody foresaw."""
        logger.error("an answer could not be made of what the scorers said", exc_info=error)
        if not call.settled:
            self._give_up(call, error)

    def _have_decided(self, call: Call, body: wire.Body) -> None:
        """Have code decide, then answer."""
        answered = time.monotonic()

        def take(outcome: Any) -> None:
            try:
                if isinstance(outcome, ScorewireError):
                    raise outcome
                found = calls.read_decision(outcome)
            except ScorewireError as error:
                self._give_up(call, error)
            else:
                decision = Decision(found.outcome, found.reasons)
                self._reply(call, call.with_decision(body, answered, decision))

        payload = calls.pack_case(call.transaction, body["scores"])
        self.code.submit(call.loaded.code[DECISION], payload, call.request.deadline, take, call.about)

    def _reply(self, call: Call, answer: wire.Body) -> None:
        self._answer(call, answer)
        self._in_flight -= 1
        call.settled = True
        if call.trace is not None:
            call.trace.end(answer)
        us = answer["us"]
        for stage, timing in self._answer_timings:
            timing.add(us[stage])
        if call.tally is not None:
            call.tally.count(us["total"], list(answer["scores"].values())[-1])
        for counter in call.loaded.drift.values():
            if counter.sees():
                counter.count(call.transaction)

    def _answer(self, call: Call, answer: wire.Body, *, done: bool = True) -> None:
        """Let the answer leave; then, and only if somebody waits for it, copy it."""
        packed = wire.pack_body(answer)
        left = self.listener.answer(call.request, packed, done=done)
        if left and self._tee is not None and not call.request.replay:
            self._copy(self._tee, call, packed)

    def _copy(self, tee: TeeRing, call: Call, answer: bytes) -> None:
        """Put the parts of an answered transaction into the tee's ring, as they are."""
        loaded, canary = call.loaded, self.state.holdings.canary
        policy = self._policies.get(loaded.release)
        if policy is None:
            held = self.state.holdings.releases
            self._policies = {number: one for number, one in self._policies.items() if number in held}
            policy = self._policies[loaded.release] = policy_of(loaded.specs.values()).pack()
        flags = CANARY if canary is not None and canary.release == loaded.release else 0
        tee.offer(time.time(), flags, policy, call.request.frame, call.question(call.vectors), answer)

    def _give_up(self, call: Call, error: Exception, fallback: wire.Body | None = None) -> None:
        self._in_flight -= 1
        call.settled = True
        if call.trace is not None:
            call.trace.fail(error)
        if fallback is not None:
            self.fallbacks += 1
            self._answer(call, fallback, done=False)
            self.timings.stages["total"].add(fallback["us"]["total"])
        elif isinstance(error, ScorewireError):
            self.listener.refuse(call.request, error)
        else:
            self.listener.fail(call.request, error)
        if call.tally is not None:
            call.tally.fail(getattr(error, "code", "internal"))


#: What the scorers' pool says where no score will come in time.
_UNANSWERED = (DeadlineExceededError, NoNodeError, NodeFailedError)
