"""Scores payments one by one, and acts on each answer and on each error that a caller can meet.

pip install ./transport        # once: brings scorewire_client
python examples/clients/plain.py tcp://127.0.0.1:7301,tcp://127.0.0.1:7302 < payments.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scorewire_client import Client, OverloadedError, RefusedError, ScorewireError, UnavailableError

#: Seconds after which a payment goes through without a score: nobody waits longer at a till.
DEADLINE_S = 0.2


def decide(client: Client, payment: Mapping[str, Any]) -> str:
    """Return what is done with a payment, and why."""
    try:
        answer = client.score(payment, deadline=DEADLINE_S)
    except RefusedError as error:
        return f"mend it: {error.field} breaks the rule {error.rule}"
    except OverloadedError as error:
        return f"accept unseen, and slow down for {error.retry_after} s"
    except UnavailableError as error:
        return f"accept unseen: {error.code}"
    except ScorewireError as error:
        return f"accept unseen, and tell who promoted the release: {error}"
    if answer.decision is not None:
        return f"{answer.decision.outcome} ({', '.join(answer.decision.reasons) or 'no reason'})"
    return "decline" if answer.score > 0.9 else "accept"


def decide_all(addresses: str, payments: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is done with each. One client serves all calls, from any number of threads."""
    with Client(addresses) as client:
        for payment in payments:
            yield decide(client, payment)


if __name__ == "__main__":
    for what in decide_all(sys.argv[1], map(json.loads, sys.stdin)):
        print(what)
