"""The transactions that all services score: 100 named numbers each, and the scores that must come."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import FEATURES, Case, unseen_rows

#: Distinct transactions; callers go round in them.
COUNT = 2_000
#: Decimals of each number: what a transaction in JSON has.
DECIMALS = 4
NAMES = tuple(f"f{number}" for number in range(FEATURES))
Rows = NDArray[np.float64]


@cache
def rows() -> Rows:
    """Return the numbers, float64 [COUNT, FEATURES]."""
    return unseen_rows(COUNT).astype(np.float64).round(DECIMALS)


def transaction(number: int, row: list[float]) -> dict[str, Any]:
    """Return a transaction as callers have it: an id, and numbers by name."""
    return {"id": f"tx-{number}", **dict(zip(NAMES, row, strict=True))}


def expected(case: Case, count: int) -> NDArray[np.float64]:
    """Return the share of the positive class of the first transactions."""
    from models.bundle import open_bundle  # noqa: PLC0415 - the kernel takes a second to load
    from models.forest import Forest  # noqa: PLC0415

    forest = Forest(open_bundle(case.file(".bundle")))
    return np.asarray(forest.predict(rows()[:count].astype(np.float32))[:, 1])


def spec_text() -> str:
    """Return the feature spec: each number is a feature."""
    head = 'name = "numbers"\nversion = 1\nid = "id"\n'
    fields = "".join(f'[fields.{name}]\ntype = "number"\n' for name in NAMES)
    features = "".join(
        f'[[features]]\nname = "{name}"\nkind = "numeric"\nfield = "{name}"\n' for name in NAMES
    )
    return head + fields + features
