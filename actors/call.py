"""One transaction that is with the scorers: when its answer is due, and what that says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actors.evaluation import FEATURES, Vectors
from actors.reading import read_map
from actors.state import Loaded
from actors.tally import Tally
from actors.traces import CallTrace
from transport.client import wire
from transport.client.answer import Decision, answer_body
from transport.listener import Request

if TYPE_CHECKING:
    from actors.preprocessor import PreprocessorActor

#: How long before the deadline a fallback answer leaves: a share of the time left, and seconds at most.
FALLBACK_SHARE, FALLBACK_S = 0.1, 0.02


class Call:
    """One transaction that is with the scorers.

    Args:
        actor: whose it is; its counters are kept up.
        request: as it came.
        loaded: the release that was stamped on it.
        tally: where it is counted; None while there is no canary.
        id_: the transaction's id; "" where it has none.
        transaction: its fields; None where they were not read as a map so far.

    Attributes:
        asked: when its features went to the scorers (time.monotonic seconds).
        vectors: those features.
        settled: whether it was answered, or refused.
        trace: its spans, where it is traced.
    """

    __slots__ = (
        "_transaction",
        "actor",
        "asked",
        "id",
        "loaded",
        "request",
        "settled",
        "tally",
        "trace",
        "vectors",
    )

    def __init__(
        self,
        actor: PreprocessorActor,
        request: Request,
        loaded: Loaded,
        tally: Tally | None,
        id_: str,
        transaction: Mapping[str, Any] | None,
    ) -> None:
        self.actor = actor
        self.request = request
        self.loaded = loaded
        self.tally = tally
        self.id = id_
        self._transaction = transaction
        self.asked = time.monotonic()
        self.vectors: Vectors = {}
        self.settled = False
        self.trace: CallTrace | None = None

    @property
    def transaction(self) -> Mapping[str, Any]:
        """Its fields."""
        if self._transaction is None:
            self._transaction = read_map(self.request.frame)["transaction"]
        return self._transaction

    @property
    def about(self) -> dict[str, object]:
        """What it is called in a log."""
        return {"transaction": self.id, "release": self.loaded.release}

    def question(self, vectors: Vectors, more: Mapping[str, Any] = MappingProxyType({})) -> bytes:
        """Pack what scorers are asked: its own vectors or those of several, and what else there is to say."""
        sent = {"vector": vectors[FEATURES]} if len(vectors) == 1 else {"vectors": vectors}
        priority = wire.REPLAY if self.request.replay else {}
        return wire.pack_body({**priority, "release": self.loaded.release, **more, **sent})

    def done(self, outcome: bytes | wire.Body | Exception) -> None:
        """Take what the scorers' pool says, or what it said of this one among several."""
        try:
            self.actor.finish(self, wire.unpack_body(outcome) if isinstance(outcome, bytes) else outcome)
        except Exception as error:  # noqa: BLE001 - a bug that one trips over takes no other down with the actor
            self.actor.fail(self, error)

    def answer(self, body: wire.Body) -> wire.Body:
        """Return the answer to what the scorers said, with what the rules decide."""
        answered = time.monotonic()
        return self.with_decision(body, answered, self.decide(body["scores"]))

    def with_decision(self, body: wire.Body, answered: float, decision: Decision | None) -> wire.Body:
        """Return the answer to what the scorers said (`body`), which came at `answered`, with a decision."""
        now, state, loaded = time.monotonic(), self.actor.state, self.loaded
        asked, arrived = self.asked, self.request.arrived
        return answer_body(
            self.id,
            body["scores"],
            release=loaded.release,
            environment=loaded.environment,
            pipeline=loaded.pipeline,
            nodes={"preprocessor": state.node_id, "scorer": body["node"]},
            us={
                "features": int((asked - arrived) * 1e6),
                "scorer": int((answered - asked) * 1e6),
                "kernel": body["kernel_us"],
                "decision": int((now - answered) * 1e6),
                "total": int((now - arrived) * 1e6),
            },
            decision=decision,
            stale_s=state.stale_s(now),
        )

    def deadline(self) -> float:
        """Return until when the scorers may answer: earlier where there is something to say without them."""
        rules, until = self.loaded.rules, self.request.deadline
        if rules is None or rules.fallback is None:
            return until
        return until - min(FALLBACK_S, FALLBACK_SHARE * (until - self.request.arrived))

    def fallback(self) -> wire.Body | None:
        """Return what the release's rules answer without a score; None where they say nothing."""
        found = None if self.loaded.rules is None else self.loaded.rules.fallback
        if found is None:
            return None
        total_s, features_s = time.monotonic() - self.request.arrived, self.asked - self.request.arrived
        return answer_body(
            self.id,
            {},
            release=self.loaded.release,
            environment=self.loaded.environment,
            pipeline=self.loaded.pipeline,
            nodes={"preprocessor": self.actor.state.node_id},
            us={"features": int(features_s * 1e6), "total": int(total_s * 1e6)},
            decision=Decision(found.outcome, found.reasons),
            fallback=True,
        )

    def decide(self, scores: Mapping[str, float]) -> Decision | None:
        """Decide by the release's rules; None where it has none."""
        if self.loaded.rules is None:
            return None
        found = self.loaded.rules.decide(scores, self.transaction)
        if found.errors:
            self.actor.rule_errors += found.errors
            if self.tally is not None:
                self.tally.note("rule")
        return Decision(found.outcome, found.reasons)
