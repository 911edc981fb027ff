"""The feature spec: the named, versioned recipe from a transaction to a feature vector.

A spec is a TOML (or JSON) file, named by its sha256. It declares fields, which say what a transaction must
look like, and features, which are computed from them, in the vector's order:

    name = "payments"
    version = 1
    id = "id"                       # the field that holds the transaction's id (optional)
    timezone = "UTC"                # in which hours and days are counted
    undeclared = "keep"             # whether fields that are not declared here are stored: "keep" or "drop"

    [fields.amount]
    type = "number"                 # number, category, flag or timestamp
    min = 0                         # rule `range`
    missing = "error"               # what a missing (or NaN) value is: "error", "nan" or a number
    store = "keep"                  # what of it is stored with a live record: "keep", "hash" or "drop"

    [fields.channel]
    type = "category"
    categories = ["chip", "online"] # become 0, 1, ...
    unknown = -1                    # what any other string is: a number or "error"

    [[features]]
    name = "log_amount"
    kind = "log1p"
    field = "amount"

    [[features]]
    name = "amount_to_mean"
    kind = "ratio"
    field = "amount"
    by = "mean_amount"
    zero = 0                        # the value where `by` is zero

Kinds of features: `numeric`, `log1p` (number); `category`; `flag`; `ratio`, `difference` (two numbers);
`hour`, `weekday` (Monday is 0), `day`, `month`, `is_weekend`, `is_night` (22:00 to 05:59) (timestamp).

Training and serving run the same compiled code: `matrix` is `vector`, row by row.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.problems import problems
from models.spec_compile import Compute, Read, compile_feature, compile_field
from models.spec_errors import SpecError, TransactionError
from models.spec_schema import Recipe, Storage

__all__ = ["FeatureSpec", "SpecError", "Storage", "TransactionError", "load_spec"]

Transaction = Mapping[str, Any]


class FeatureSpec:
    """A compiled feature spec.

    Args:
        recipe: what the file says.
        source: the file's bytes, which name it.

    Attributes:
        name: the spec's name.
        version: its version.
        id_field: the field that holds a transaction's id, or None.
        feature_names: names of the features, in the vector's order.
        storage: what becomes of a field where transactions are stored; fields that are kept are left out.
        undeclared: what becomes there of the fields that the spec does not declare: `keep` or `drop`.
    """

    def __init__(self, recipe: Recipe, source: bytes) -> None:
        self.name = recipe.name
        self.version = recipe.version
        self.id_field = recipe.id
        self.feature_names = tuple(feature.name for feature in recipe.features)
        self.storage: Mapping[str, Storage] = MappingProxyType(
            {name: field.store for name, field in recipe.fields.items() if field.store != "keep"}
        )
        self.undeclared = recipe.undeclared
        self._source = source
        used = [n for n in recipe.fields if any(n in feature.inputs for feature in recipe.features)]
        places = {name: place for place, name in enumerate(used)}
        self._read: Sequence[Read] = [compile_field(n, recipe.fields[n], recipe.timezone) for n in used]
        self._compute: Sequence[Compute] = [compile_feature(feature, places) for feature in recipe.features]

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file, in hex."""
        return hashlib.sha256(self._source).hexdigest()

    @property
    def n_features(self) -> int:
        """The length of a vector."""
        return len(self.feature_names)

    def vector(self, transaction: Transaction) -> NDArray[np.float32]:
        """Compute the features of one transaction.

        Returns:
            float32 [n_features]; each value is computed in float64 and rounded once.

        Raises:
            TransactionError: a field breaks a rule; names both.
        """
        if not isinstance(transaction, Mapping):
            kind = type(transaction).__name__
            raise TransactionError("transaction", "type", f"must be a map of named fields, got {kind}")
        fields = [read(transaction) for read in self._read]
        values = [compute(fields) for compute in self._compute]
        with np.errstate(over="ignore"):
            vector = np.array(values, np.float32)
        if not np.isfinite(vector).all():
            self._check_overflow(values, vector)
        return vector

    def matrix(self, transactions: Iterable[Transaction]) -> NDArray[np.float32]:
        """Compute the features of many transactions, as training does.

        Returns:
            float32 [transactions, n_features], C-contiguous; row i is vector(transaction i) to the bit.

        Raises:
            TransactionError: as vector.
        """
        rows = [self.vector(transaction) for transaction in transactions]
        return np.stack(rows) if rows else np.empty((0, self.n_features), np.float32)

    def _check_overflow(self, values: Sequence[float], vector: NDArray[np.float32]) -> None:
        """Refuse what float32 cannot hold; NaN is a missing value that the spec allows."""
        for name, value, rounded in zip(self.feature_names, values, vector, strict=True):
            if np.isinf(rounded):
                raise TransactionError(name, "infinite", f"is {value!r}, which float32 cannot hold")


def load_spec(source: Path | str | bytes) -> FeatureSpec:
    """Read and compile a feature spec from a file, or from a file's bytes.

    Raises:
        SpecError: names every key that is wrong, and its rule.
    """
    if isinstance(source, bytes):
        data, where = source, "feature spec"
    else:
        where = str(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise SpecError(f"{where}: cannot be read: {error}") from error
    try:
        return FeatureSpec(Recipe.model_validate(_parse(data)), data)
    except ValidationError as error:
        raise SpecError(f"{where}: {problems(error, 'spec')}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where}: {error}") from error


def _parse(data: bytes) -> Any:
    text = data.decode("utf-8")
    return json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
