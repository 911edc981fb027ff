"""The answer to a scored transaction, with its trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import wire
from .errors import NoScoreError, ProtocolError


@dataclass(frozen=True, slots=True)
class Trace:
    """Which release, pipeline and nodes gave an answer, and how long each part took.

    Attributes:
        release: number of the release in its environment.
        environment: name of the environment.
        pipeline: stage (`features`, `model`, `decision`, `model:NAME`, ...) to the sha256 of its artifact.
        nodes: role (`preprocessor`, `scorer`) to the node that did it.
        us: part of the way to microseconds: `features`, `scorer` (from asking to the answer), `kernel`
            (the batch that this row was in), `decision`, `total` (in the preprocessor).
        stale_s: seconds since the preprocessor could last see which release is current; None while that is
            fresh. It serves on with what it holds.
    """

    release: int
    environment: str
    pipeline: Mapping[str, str]
    nodes: Mapping[str, str]
    us: Mapping[str, int]
    stale_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the decision rules made of the scores.

    Attributes:
        outcome: `approve`, `review` or `decline`.
        reasons: the codes of the rules that gave it.
    """

    outcome: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of one transaction.

    Attributes:
        id: the transaction's id, as its feature spec names it; "" where it names none.
        scores: name of each output to its value (float64, as the model's library gives it); those of a
            further model are `NAME.output`, and stand before those of the one without a name.
        trace: where the answer comes from.
        decision: what was decided; None where the pipeline has no decision rules.
        fallback: whether this is what the release's rules say where no score came in time: `scores` is empty.
    """

    id: str
    scores: Mapping[str, float]
    trace: Trace
    decision: Decision | None = None
    fallback: bool = False

    @property
    def score(self) -> float:
        """The last output: the positive class of a binary classifier, the value of a regressor.

        Raises:
            NoScoreError: this is a fallback answer; its `decision` says what to do.
        """
        if self.fallback:
            raise NoScoreError("no score came in time: this is the fallback answer of the release's rules")
        return list(self.scores.values())[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, ready for JSON."""
        return asdict(self)


def answer_body(
    id_: str,
    scores: Mapping[str, float],
    *,
    release: int,
    environment: str,
    pipeline: Mapping[str, str],
    nodes: Mapping[str, str],
    us: Mapping[str, int],
    decision: Decision | None = None,
    stale_s: float | None = None,
    fallback: bool = False,
) -> wire.Body:
    """Return the body of an ANSWER message; the arguments are attributes of Answer and of its Trace."""
    body = {
        "id": id_,
        "scores": scores,
        "release": release,
        "environment": environment,
        "pipeline": pipeline,
        "nodes": nodes,
        "us": us,
        # By hand: asdict copies deeply, which takes 4 us of an answer's 50.
        "decision": {"outcome": decision.outcome, "reasons": decision.reasons} if decision else None,
    }
    if stale_s is not None:
        body["stale_s"] = stale_s
    if fallback:
        body["fallback"] = True
    return body


def pack_answer(answer: Answer) -> bytes:
    """Pack an answer as the body of an ANSWER message."""
    trace = answer.trace
    return wire.pack_body(
        answer_body(
            answer.id,
            answer.scores,
            release=trace.release,
            environment=trace.environment,
            pipeline=trace.pipeline,
            nodes=trace.nodes,
            us=trace.us,
            decision=answer.decision,
            stale_s=trace.stale_s,
            fallback=answer.fallback,
        )
    )


def unpack_answer(frame: bytes) -> Answer:
    """Read an ANSWER message.

    Raises:
        ProtocolError: a part is missing or of another type.
    """
    body = wire.unpack_body(frame)
    try:
        trace = Trace(
            body["release"],
            body["environment"],
            body["pipeline"],
            body["nodes"],
            body["us"],
            body.get("stale_s"),
        )
        told = body.get("decision")
        decision = Decision(told["outcome"], tuple(told["reasons"])) if told else None
        return Answer(body["id"], body["scores"], trace, decision, body.get("fallback", False))
    except KeyError as error:
        raise ProtocolError(f"the answer has no {error}", field=str(error), rule="missing") from error


def read_answer(frame: bytes) -> dict[str, Any]:
    """Read an ANSWER message into what `Answer.to_dict` gives, in half the time.

    Raises:
        ProtocolError: a part is missing.
    """
    body = wire.unpack_body(frame)
    try:
        trace = {name: body[name] for name in _TRACE}
        trace["stale_s"] = body.get("stale_s")
        return {
            "id": body["id"],
            "scores": body["scores"],
            "trace": trace,
            "decision": body.get("decision"),
            "fallback": body.get("fallback", False),
        }
    except KeyError as error:
        raise ProtocolError(f"the answer has no {error}", field=str(error), rule="missing") from error


_TRACE = ("release", "environment", "pipeline", "nodes", "us")
