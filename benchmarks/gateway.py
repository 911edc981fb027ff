"""What a gateway answers: JSON transactions, batches, and tensors of the Open Inference Protocol.

    python -m benchmarks.gateway [--json] [--seconds 4] [--preprocessors 1] [--scorers 1]

One gateway, in a process of its own; closed loop, distinct payments, a forest of 100 trees. A rate by the
clock says what the whole machine gave, callers included; `a core-s` is requests a second of the gateway's own
CPU time.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np

from actors.config import Settings
from benchmarks.http_load import drive, post
from benchmarks.round_trip import serve
from examples.card_payments import PAYMENT_SPEC, stream
from governance.database import connect
from governance.membership import members
from models.spec import load_spec

BATCH = 64
#: Rows of a request to the connections that send such at a time: more rows would be refused by one node.
CONNECTIONS = {1: (1, 16, 64), BATCH: (1, 4)}
_INFER = "/v2/models/champion/infer"


def requests_of(count: int) -> dict[str, tuple[int, list[bytes]]]:
    """Return what is sent: name to the rows of each request, and distinct requests."""
    payments = list(islice(stream(seed=5), count))
    vectors = load_spec(PAYMENT_SPEC).matrix(payments)
    singles = [post("/v1/score", json.dumps({"transaction": one}).encode()) for one in payments]
    batches = [payments[start : start + BATCH] for start in range(0, count, BATCH)]
    many = [post("/v1/score/batch", json.dumps({"transactions": one}).encode()) for one in batches]
    return {
        "score": (1, singles),
        f"score/batch of {BATCH}": (BATCH, many),
        "infer, JSON": (1, [_tensor(row[None, :], binary=False) for row in vectors]),
        "infer, binary": (1, [_tensor(row[None, :], binary=True) for row in vectors]),
        f"infer, binary, {BATCH} rows": (
            BATCH,
            [_tensor(vectors[start : start + BATCH], binary=True) for start in range(0, count, BATCH)],
        ),
    }


def _tensor(rows: np.ndarray[Any, Any], *, binary: bool) -> bytes:
    head: dict[str, Any] = {"name": "features", "shape": list(rows.shape), "datatype": "FP32"}
    if not binary:
        # NaN is null where it stands in JSON.
        flat = [None if np.isnan(value) else value for value in rows.ravel().tolist()]
        return post(_INFER, json.dumps({"inputs": [{**head, "data": flat}]}).encode())
    raw = rows.tobytes()
    head["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    return post(_INFER, text + raw, Inference_Header_Content_Length=str(len(text)))


def measure(settings: Settings, seconds: float) -> dict[str, Any]:
    """Drive the gateway with each kind of request, from so many connections."""
    with connect(settings.dsn) as connection:
        (gateway,) = [one for one in members(connection, settings.environment) if one.role == "gateway"]
    port = int(gateway.endpoints[0].rpartition(":")[2])
    found: dict[str, Any] = {}
    for name, (rows, requests) in requests_of(64 * BATCH).items():
        for connections in CONNECTIONS[rows]:
            figures = drive(port, [gateway.pid], requests, connections, seconds)
            figures["rows_a_second"] = figures["a_second"] * rows
            found.setdefault(name, {})[connections] = figures
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each measurement")
    parser.add_argument("--preprocessors", type=int, default=1)
    parser.add_argument("--scorers", type=int, default=1)
    arguments = parser.parse_args()
    more = "[gateway]\nnodes = 1\nport = 0\n"
    with ExitStack() as stack:
        settings, _ = serve(stack, arguments.preprocessors, arguments.scorers, more)
        found = measure(settings, arguments.seconds)
    if arguments.json:
        print(json.dumps({"preprocessors": arguments.preprocessors, "scorers": arguments.scorers, **found}))
        return
    print(f"{'request':>24} {'conns':>5} {'a second':>9} {'a core-s':>9} {'p50 ms':>7} {'p99 ms':>7}")
    for name, rows in found.items():
        for connections, row in rows.items():
            print(
                f"{name:>24} {connections:>5} {row['a_second']:>9} {row['a_core_second']:>9}"
                f" {row['p50_ms']:>7} {row['p99_ms']:>7}"
            )


if __name__ == "__main__":
    main()
