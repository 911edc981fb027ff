"""Features of one transaction and of many: the compiled spec beside scikit-learn, pandas and code by hand.

    python -m benchmarks.features [--json] [--sizes 20,100,500] [--end-to-end]

For each size a ColumnTransformer is fitted (scaled, logged, binned, one-hot and plain columns in the shares
of _SHARES), imported as a feature spec, and asked for the very same features. The code by hand is what a
person writes for one model: straight lines with the numbers in them, no check of any field, no message for
anybody. All take the same distinct transactions, in turns; figures are medians over the turns.

With --end-to-end a whole Scorewire runs, and answers tell what features took of a transaction's time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder, StandardScaler

from examples.card_payments import PAYMENT_SPEC, stream
from models.importers.pipelines.pipeline import carry
from models.spec import FeatureSpec, load_spec

#: Columns of each kind for 20 features; the one text becomes six.
_SHARES = {"scaled": 5, "logged": 3, "binned": 3, "plain": 3, "text": 1}
_WORDS = ("chip", "contactless", "online", "transfer", "debit", "other")
_TURNS, _ROWS, _SLOW_ROWS, _BATCH = 5, 1_000, 10, 10_000

Row = dict[str, Any]


def make_case(features: int, rows: int) -> tuple[pd.DataFrame, Pipeline]:
    """Return data and a fitted pipeline of so many features (a multiple of 20)."""
    random = np.random.default_rng(features)
    columns: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for kind, count in _SHARES.items():
        groups[kind] = [f"{kind}_{number}" for number in range(count * features // 20)]
        for name in groups[kind]:
            words = random.choice(_WORDS, rows).astype(object)
            columns[name] = words if kind == "text" else random.lognormal(3, 1, rows)
    data = pd.DataFrame(columns)
    transformer = ColumnTransformer(
        [
            ("scaled", StandardScaler(), groups["scaled"]),
            ("logged", FunctionTransformer(np.log1p), groups["logged"]),
            ("binned", KBinsDiscretizer(8, encode="ordinal", quantile_method="linear"), groups["binned"]),
            ("plain", "passthrough", groups["plain"]),
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), groups["text"]),
        ]
    )
    pipeline = Pipeline([("features", transformer), ("model", DummyClassifier())])
    return data, pipeline.fit(data, np.arange(rows) % 2)


def by_hand(pipeline: Pipeline) -> Callable[[Row], Any]:
    """Return the same features as straight lines of Python, as somebody would write them for this model."""
    parts = {name: (model, columns) for name, model, columns in pipeline[0].transformers_}
    lines = []
    model, names = parts["scaled"]
    lines += [
        f"(tx[{name!r}] - {mean!r}) / {scale!r}"
        for name, mean, scale in zip(names, model.mean_.tolist(), model.scale_.tolist(), strict=True)
    ]
    lines += [f"log1p(tx[{name!r}])" for name in parts["logged"][1]]
    model, names = parts["binned"]
    lines += [f"bisect_right(edges[{number}], tx[{name!r}])" for number, name in enumerate(names)]
    lines += [f"tx[{name!r}]" for name in parts["plain"][1]]
    model, names = parts["text"]
    for name, words in zip(names, model.categories_, strict=True):
        lines += [f"1.0 if tx[{name!r}] == {word!r} else 0.0" for word in words.tolist()]
    source = (
        "def features(tx):\n    return np.array([\n        " + ",\n        ".join(lines) + "], np.float32)\n"
    )
    scope: dict[str, Any] = {
        "np": np,
        "log1p": math.log1p,
        "bisect_right": bisect_right,
        "edges": [edges[1:-1].tolist() for edges in parts["binned"][0].bin_edges_],
    }
    exec(source, scope)
    found: Callable[[Row], Any] = scope["features"]
    return found


def by_pandas(pipeline: Pipeline) -> Callable[[pd.DataFrame], Any]:
    """Return the same features as pandas' own operations on a frame."""
    parts = {name: (model, columns) for name, model, columns in pipeline[0].transformers_}
    scaled, logged, binned, plain, text = (parts[name] for name in _SHARES)

    def features(frame: pd.DataFrame) -> Any:
        hot = [
            frame[name].to_numpy()[:, None] == words[None, :]
            for name, words in zip(text[1], text[0].categories_, strict=True)
        ]
        bins = [
            np.searchsorted(edges[1:-1], frame[name], side="right")[:, None]
            for name, edges in zip(binned[1], binned[0].bin_edges_, strict=True)
        ]
        blocks = [
            frame[scaled[1]].sub(scaled[0].mean_).div(scaled[0].scale_),
            np.log1p(frame[logged[1]]),
            *bins,
            frame[plain[1]],
            *hot,
        ]
        return np.concatenate([np.asarray(block, np.float64) for block in blocks], axis=1).astype(np.float32)

    return features


def us_a_call(call: Callable[[Any], Any], rows: Sequence[Any]) -> float:
    """Return microseconds of this process a call, over all rows once."""
    began = time.process_time()
    for row in rows:
        call(row)
    return (time.process_time() - began) / len(rows) * 1e6


def measure(features: int) -> dict[str, Any]:
    """Measure one size."""
    data, pipeline = make_case(features, _BATCH)
    spec = carry(pipeline).spec
    hand, panda, transformer = by_hand(pipeline), by_pandas(pipeline), pipeline[0]
    rows: list[Row] = data.head(_ROWS).to_dict("records")
    frames = [data.iloc[number : number + 1] for number in range(_SLOW_ROWS)]
    expected = np.asarray(transformer.transform(data.head(64)), np.float64).astype(np.float32)
    close(spec.matrix(rows[:64]), expected)
    close(np.stack([hand(row) for row in rows[:64]]), expected)
    close(panda(data.head(64)), expected)
    contenders: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "spec": (spec.vector, rows),
        "spec, packed": (spec.packed, rows),
        "by hand": (hand, rows),
        "scikit-learn": (transformer.transform, frames),
        "scikit-learn from a dict": (
            lambda row: transformer.transform(pd.DataFrame([row])),
            rows[:_SLOW_ROWS],
        ),
        "pandas": (panda, frames),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_TURNS):
        for name, (call, some) in contenders.items():
            taken[name].append(us_a_call(call, some))
    us = {name: round(statistics.median(times), 2) for name, times in taken.items()}
    return {
        "features": spec.n_features,
        "us": us,
        "of_hand": round(us["spec"] / us["by hand"], 2),
        "times_scikit_learn": round(us["scikit-learn"] / us["spec"], 1),
        "rows_a_second": batches(spec, transformer, data),
    }


def close(found: Any, expected: Any) -> None:
    """Make sure that all compute the same: to the last bit of float32, or the one beside it."""
    assert np.allclose(found, expected, rtol=2.0**-23, atol=0, equal_nan=True)


def batches(spec: FeatureSpec, transformer: Any, data: pd.DataFrame) -> dict[str, int]:
    """Return rows a second of whole batches."""
    rows = data.to_dict("records")
    columns = {name: data[name].to_numpy() for name in data}
    ways: Mapping[str, Callable[[], Any]] = {
        "matrix of dicts": lambda: spec.matrix(rows),
        "columns": lambda: spec.columns(columns),
        "scikit-learn": lambda: transformer.transform(data),
    }
    found: dict[str, int] = {}
    for name, way in ways.items():
        times = []
        for _ in range(3):
            began = time.process_time()
            way()
            times.append(time.process_time() - began)
        found[name] = round(len(rows) / statistics.median(times))
    return found


def payments() -> dict[str, float]:
    """Measure the example's 26 features, and what counting their drift adds after the answer."""
    rows = list(islice(stream(seed=5), 2_000))
    spec = load_spec(PAYMENT_SPEC)
    counter = load_spec(spec.profiled(rows)).drift_counter()
    assert counter is not None

    def drift(row: dict[str, Any]) -> None:
        if counter.sees():
            counter.count(row)

    calls = {"vector": spec.vector, "packed": spec.packed, "drift": drift}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_TURNS):
        for name, call in calls.items():
            taken[name].append(us_a_call(call, rows))
    return {name: round(statistics.median(times), 2) for name, times in taken.items()}


def end_to_end(seconds: float) -> dict[str, float]:
    """Return what features take of a lone transaction's time: medians of answers' traces, microseconds."""
    from benchmarks.round_trip import serve  # noqa: PLC0415 - starts a whole system
    from transport.client import AsyncClient  # noqa: PLC0415

    async def ask(addresses: list[str]) -> list[tuple[float, ...]]:
        found: list[tuple[float, ...]] = []
        async with AsyncClient(addresses, deadline=5.0) as client:
            end = time.perf_counter() + seconds
            for payment in stream(seed=5):
                began = time.perf_counter()
                if began > end:
                    break
                answer = await client.score(payment)
                took = (time.perf_counter() - began) * 1e6
                found.append((took, answer.trace.us["total"], answer.trace.us["features"]))
        return found[len(found) // 5 :]

    with ExitStack() as stack:
        _, addresses = serve(stack, 1, 1)
        found = np.array(asyncio.run(ask(addresses)))
    took, inside, features = np.median(found, axis=0)
    return {
        "client_us": round(float(took), 1),
        "preprocessor_us": round(float(inside), 1),
        "features_us": round(float(features), 1),
        "share_of_client": round(float(features / took), 4),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sizes", default="20,100,500", help="numbers of features, multiples of 20")
    parser.add_argument("--end-to-end", action="store_true", help="run a whole system, 5 seconds")
    arguments = parser.parse_args()
    facts: dict[str, Any] = {"sizes": [measure(int(size)) for size in arguments.sizes.split(",")]}
    facts["card_payments_us"] = payments()
    if arguments.end_to_end:
        facts["end_to_end"] = end_to_end(5.0)
    if arguments.json:
        print(json.dumps(facts))
        return
    names = list(facts["sizes"][0]["us"])
    print(f"{'us a transaction':>26}" + "".join(f"{one['features']:>12}" for one in facts["sizes"]))
    for name in names:
        print(f"{name:>26}" + "".join(f"{one['us'][name]:>12,}" for one in facts["sizes"]))
    for name in facts["sizes"][0]["rows_a_second"]:
        print(
            f"{'rows/s, ' + name:>26}"
            + "".join(f"{one['rows_a_second'][name]:>12,}" for one in facts["sizes"])
        )
    print(json.dumps({key: value for key, value in facts.items() if key != "sizes"}))


if __name__ == "__main__":
    main()
