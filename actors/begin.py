"""How a transaction begins: with the release that is stamped on it, and what features are computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.call import Call
from actors.evaluation import FEATURES, Vectors
from actors.reading import read_map
from actors.state import Loaded, NodeState
from actors.tally import Tally
from actors.traces import TRACEPARENT
from models.spec import TransactionError
from transport.client.errors import ProtocolError, TransactionRefusedError, UnknownReleaseError
from transport.listener import Request

if TYPE_CHECKING:
    from actors.preprocessor import PreprocessorActor

#: A transaction that was read, its features so far, and the trace that it is part of.
_Begun = tuple[Call, Vectors, object]


def begin(actor: PreprocessorActor, request: Request) -> _Begun:
    """Read a transaction, stamp it, and compute those of its features that are no code.

    Raises:
        ProtocolError: the message is not of the form that the wire format has.
        UnknownReleaseError: the release that it asks for is not held here, or there is none.
        TransactionRefusedError: a field of it breaks a rule of the spec.
    """
    return _express(actor, request) or _read(actor, request)


def _express(actor: PreprocessorActor, request: Request) -> _Begun | None:
    """Read a transaction and compute its features in one go, if it is as the spec says."""
    holdings = actor.state.holdings
    loaded = holdings.find(None)
    # Who is given the canary is said by a field of the transaction.
    if loaded is None or loaded.express is None or holdings.canary is not None:
        return None
    found = loaded.express.read(request.frame)
    if found is None:
        return None
    return Call(actor, request, loaded, None, found.id, None), {FEATURES: found.vector}, found.traceparent


def _read(actor: PreprocessorActor, request: Request) -> _Begun:
    """Read a transaction as a map, and compute those of its features that are no code."""
    body = read_map(request.frame)
    transaction = body.get("transaction")
    if not isinstance(transaction, dict):
        why = "a transaction is a map of named fields"
        raise ProtocolError(why, field="transaction", rule="type")
    loaded, tally = _stamp(actor.state, body.get("release"), transaction)
    try:
        vectors = loaded.vectors_of_specs(transaction) if loaded.code else loaded.vectors(transaction)
    except TransactionError as error:
        if tally is not None:
            tally.fail(TransactionRefusedError.code)
        for counter in loaded.drift.values():
            counter.refuse(error.field, error.rule)
        raise TransactionRefusedError(str(error), field=error.field, rule=error.rule) from error
    except Exception:
        if tally is not None:
            tally.fail("internal")
        raise
    if loaded.express is not None:
        loaded.express.learn(transaction)
    id_field = loaded.spec.id_field
    id_ = str(transaction.get(id_field, "")) if id_field else ""
    return Call(actor, request, loaded, tally, id_, transaction), vectors, body.get(TRACEPARENT)


def _stamp(state: NodeState, wanted: object, transaction: Mapping[str, Any]) -> tuple[Loaded, Tally | None]:
    """Return the release that evaluates a transaction: named by it, the canary, or the current.

    While there is a canary, a transaction that might have been given it is counted: with its tally.
    """
    if wanted is not None and not isinstance(wanted, int):
        raise ProtocolError("a release is named by its number", field="release", rule="type")
    holdings = state.holdings
    loaded, tally = holdings.find(wanted), None
    if wanted is None and loaded is not None and (canary := holdings.canary) is not None:
        key = transaction.get(canary.key or loaded.spec.id_field or "")
        if key is not None:
            beside = holdings.releases.get(canary.release) if canary.takes(key) else None
            if canary.watch is not None:
                tally = canary.watch.canary if beside else canary.watch.champion
            loaded = beside or loaded
        elif canary.watch is not None:
            canary.watch.keyless += 1
    if loaded is None:
        held = sorted(state.holdings.releases)
        which = "no release was promoted here yet" if not held else f"the releases held are {held}"
        raise UnknownReleaseError(f"{state.node_id} cannot score with {wanted or 'any release'}: {which}")
    return loaded, tally
