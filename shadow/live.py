"""From what a preprocessor had at hand to a live record: the field policy applied, and sampled."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgpack

from actors.evaluation import FEATURES
from models.decision import DecisionFile, DecisionRules, Rule
from models.errors import DecisionError, ModelError
from models.field_policy import unpack_policy
from shadow.errors import RecordError, SamplingError
from shadow.record import LiveRecord
from transport.client import wire
from transport.client.errors import ProtocolError
from transport.tee_record import CANARY, RawRecord


class Sampler:
    """Says which transactions are copied.

    Args:
        share: of all, chosen by a hash of their ids: always the same ones, and more as it grows.
        always: a CEL expression over `tx`, `scores` and `score`; where it is true, or cannot be evaluated, a
            transaction is copied whatever the share. "" is never true.

    Raises:
        SamplingError: the expression is none.
    """

    def __init__(self, share: float = 1.0, always: str = "") -> None:
        self._limit = int(share * 2**64)
        self._rules = _rules(always) if always else None

    def takes(self, id_: str, transaction: Mapping[str, Any], scores: Mapping[str, float]) -> bool:
        """Say whether a transaction is copied."""
        if self._limit == 2**64:
            return True
        point = int.from_bytes(blake2b(b"tee:" + id_.encode("utf-8"), digest_size=8).digest())
        if point < self._limit:
            return True
        return self._rules is not None and self._rules.decide(scores, transaction).outcome == "review"


def live_record(raw: RawRecord, node: str, hash_key: bytes, sampler: Sampler) -> LiveRecord | None:
    """Make the live record of an answered transaction; None if it is not copied.

    Args:
        raw: what the preprocessor sent.
        node: the preprocessor.
        hash_key: of the hashes that stand for fields; empty, such fields are dropped.
        sampler: says what is copied.

    Raises:
        RecordError: a part is not what it should be.
    """
    try:
        transaction = wire.unpack_body(raw.request)["transaction"]
        answer = _parsed(raw.answer)
        id_ = answer["id"] or f"{node}/{raw.seq}"
        if not sampler.takes(id_, transaction, answer["scores"]):
            return None
        return LiveRecord(
            id=id_,
            node=node,
            seq=raw.seq,
            at=raw.at,
            release=answer["release"],
            environment=answer["environment"],
            pipeline=answer["pipeline"],
            transaction=unpack_policy(raw.policy).apply(transaction, hash_key),
            nodes=answer["nodes"],
            features=_vectors(_parsed(raw.vectors)) if raw.vectors else {},
            scores=answer["scores"],
            decision=answer["decision"],
            us=answer["us"],
            canary=bool(raw.flags & CANARY),
            fallback=bool(answer.get("fallback", False)),
        )
    except (ProtocolError, ModelError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(f"record {raw.seq} of {node}: {type(error).__name__}: {error}") from error


def _vectors(body: Mapping[str, Any]) -> dict[str, bytes]:
    vectors = body.get("vectors")
    return dict(vectors) if vectors is not None else {FEATURES: body["vector"]}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body = msgpack.unpackb(data, max_ext_len=0)
    except (msgpack.UnpackException, RecursionError) as error:
        raise ValueError(f"not msgpack: {error}") from error
    if not isinstance(body, dict):
        raise TypeError("not a map")
    return body


#: What the rule of a sampler decides; the words are those of decisions, and mean nothing here.
_REASON: Final = "always"


def _rules(expression: str) -> DecisionRules:
    try:
        rule = Rule(when=expression, decide="review", reason=_REASON)
        return DecisionRules(DecisionFile(name="tee", version=1, rules=(rule,), on_error="review"))
    except (DecisionError, ValueError) as error:
        raise SamplingError(f"always in [tee] is no expression: {error}") from error
