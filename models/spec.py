"""The feature spec: the named, versioned recipe from a transaction to a feature vector.

A spec is a TOML (or JSON) file, named by its sha256. It declares fields, which say what a transaction must
look like, and features, which are computed from them, in the vector's order:

    name = "payments"
    version = 1
    id = "id"                       # the field that holds the transaction's id (optional)
    timezone = "UTC"                # in which hours and days are counted
    undeclared = "keep"             # whether fields that are not declared here are stored: "keep" or "drop"

    [fields.amount]
    type = "number"                 # number, category, flag, timestamp, text, ip or any
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
    field = "amount"
    by = "mean_amount"
    steps = [{ kind = "ratio", zero = 0 }, { kind = "clip", high = 100 }]

A feature is one kind, or several as `steps`. It is computed from fields, from features above it, or from
`[[values]]`, which look like features and stay out of the vector. The vocabulary: docs/features.md.

Training and serving run the same recipe: `matrix` gives the bits that `vector` gives, row by row.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.errors import GoldenMismatchError
from models.features.compile_many import compile_many
from models.features.compile_one import compile_one, finite
from models.features.compile_typed import TypedSpec, compile_typed
from models.features.drift import DriftCounter
from models.features.fields import Storage, reader, zone_of
from models.features.kind import OddError
from models.features.plan import make_plan
from models.features.profile import Profile, make_profile
from models.features.recipe import Recipe
from models.features.schema import json_schema
from models.problems import problems
from models.spec_errors import SpecError, TransactionError

__all__ = ["FeatureSpec", "SpecError", "Storage", "TransactionError", "load_spec"]

Transaction = Mapping[str, Any]
Matrix = NDArray[np.float32]

_WIRE = np.dtype("<f4")
#: Transactions that are computed at once: their columns stay in the processor's cache.
_CHUNK = 4096


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
        declared: the fields that it declares.
        recipe: what the file says.
        declared: the fields that it declares.
        reads: those of them that it computes with.
    """

    def __init__(self, recipe: Recipe, source: bytes) -> None:
        self.recipe = recipe
        self.name = recipe.name
        self.version = recipe.version
        self.id_field = recipe.id
        self.storage: Mapping[str, Storage] = MappingProxyType(
            {name: field.store for name, field in recipe.fields.items() if field.store != "keep"}
        )
        self.undeclared = recipe.undeclared
        self.declared = frozenset(recipe.fields)
        self._source = source
        self.plan = make_plan(recipe)
        self.declared = frozenset(recipe.fields)
        self.reads = frozenset(self.plan.fields)
        self.feature_names = self.plan.names
        zone = zone_of(recipe.timezone)
        self._reads = [reader(name, field, zone) for name, field in self.plan.fields.items()]
        self._compute = compile_one(self.plan, self._reads)
        self._compute_many = compile_many(self.plan, self._reads)
        self._pack = struct.Struct(f"<{len(self.feature_names)}f").pack

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file, in hex."""
        return hashlib.sha256(self._source).hexdigest()

    @property
    def n_features(self) -> int:
        """The length of a vector."""
        return len(self.feature_names)

    def packed(self, transaction: Transaction) -> bytes:
        """Compute the features of one transaction, as the wire has them.

        Returns:
            n_features float32, little-endian; each value is computed in float64 and rounded once.

        Raises:
            TransactionError: a field breaks a rule; names both.
        """
        if type(transaction) is not dict and not isinstance(transaction, Mapping):
            kind = type(transaction).__name__
            raise TransactionError("transaction", "type", f"must be a map of named fields, got {kind}")
        return self._packed(self._compute(transaction))

    @cached_property
    def typed(self) -> TypedSpec | None:
        """What reads messages that are as this spec says, faster than maps; None where that cannot be."""
        return compile_typed(self.plan, self.recipe.fields, self.id_field, self._reads, self._packed)

    def vector(self, transaction: Transaction) -> Matrix:
        """Compute the features of one transaction; see packed.

        Returns:
            float32 [n_features].
        """
        # Of a bytearray, so that callers may write to it.
        return np.frombuffer(bytearray(self.packed(transaction)), _WIRE).astype(np.float32, copy=False)

    def matrix(self, transactions: Iterable[Transaction]) -> Matrix:
        """Compute the features of many transactions, as training does.

        Returns:
            float32 [transactions, n_features], C-contiguous; row i is vector(transaction i) to the bit.

        Raises:
            TransactionError: as vector, of the first that is refused.
        """
        feed = iter(transactions)
        parts = []
        while chunk := list(islice(feed, _CHUNK)):
            parts.append(self._chunk(chunk))
        return np.concatenate(parts) if parts else np.empty((0, self.n_features), np.float32)

    def columns(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Matrix:
        """Compute the features of many transactions that come as columns, such as those of a data frame.

        Args:
            columns: field to values, all of the same number, or a data frame; arrays of float64 are taken as
                they are, and NaN is missing in columns of anything else too. A field that is not there is
                missing in every row.

        Returns:
            As matrix, of the same transactions as rows.

        Raises:
            TransactionError: as matrix.
            ValueError: columns differ in length.
        """
        sizes = {len(columns[name]) for name in columns}
        if len(sizes) > 1:
            raise ValueError(f"the columns are of {len(sizes)} lengths")
        rows = sizes.pop() if sizes else 0
        used = {name: _raw(columns[name]) for name in self.plan.fields if name in columns}
        found = np.empty((rows, self.n_features), np.float32)
        for begin in range(0, rows, _CHUNK):
            size = min(_CHUNK, rows - begin)
            part = {name: column[begin : begin + size] for name, column in used.items()}
            found[begin : begin + size] = self._columns(part, size)
        return found

    @property
    def profile(self) -> Profile | None:
        """What its fields looked like in training; None where nobody told it."""
        return self.recipe.profile

    def drift_counter(self) -> DriftCounter | None:
        """Return what counts live transactions against the training profile; None where there is none."""
        return None if self.profile is None else DriftCounter(self.plan.fields, self.profile)

    def profiled(self, transactions: Iterable[Transaction]) -> bytes:
        """Return the file of the same spec with the training profile of these transactions in it (JSON).

        Raises:
            ValueError: there are none.
        """
        profile = make_profile(self.plan.fields, transactions)
        document = {**_parse(self._source), "profile": profile.model_dump(mode="json", exclude_defaults=True)}
        return json.dumps(document, indent=1).encode()

    def check_golden(self) -> int:
        """Compute the golden transactions again on this machine; return how many there are.

        Raises:
            GoldenMismatchError: one of them has other features here than where the spec was made.
        """
        for number, golden in enumerate(self.recipe.golden):
            try:
                found = self.packed(golden.transaction)
            except TransactionError as error:
                raise GoldenMismatchError(f"golden transaction {number} is refused here: {error}") from error
            if found.hex() != golden.vector:
                raise GoldenMismatchError(
                    f"golden transaction {number} of spec {self.name!r} has other features here than where "
                    "it was made: do not use it on this machine"
                )
        return len(self.recipe.golden)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of the transactions that it takes."""
        return json_schema(f"{self.name} {self.version}", self.plan)

    def _chunk(self, transactions: Sequence[Transaction]) -> Matrix:
        if set(map(type, transactions)) == {dict}:
            columns = {name: [one.get(name) for one in transactions] for name in self.plan.fields}
            try:
                return self._compute_many(columns, len(transactions))
            except OddError:
                pass
        return self._one_by_one(transactions)

    def _columns(self, part: Mapping[str, Sequence[Any]], rows: int) -> Matrix:
        try:
            return self._compute_many(part, rows)
        except OddError:
            lists = [
                column.tolist() if isinstance(column, np.ndarray) else column for column in part.values()
            ]
            values: Iterator[tuple[Any, ...]] = zip(*lists, strict=True) if lists else iter([()] * rows)
            return self._one_by_one([dict(zip(part, row, strict=True)) for row in values])

    def _one_by_one(self, transactions: Sequence[Transaction]) -> Matrix:
        data = b"".join(map(self.packed, transactions))
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, self.n_features)

    def _packed(self, numbers: Sequence[float]) -> bytes:
        if finite(numbers):
            try:
                return self._pack(*numbers)
            except OverflowError:
                pass
        return self._look_closer(numbers)

    def _look_closer(self, numbers: Sequence[float]) -> bytes:
        """Refuse what float32 cannot hold; NaN is a missing value that the spec allows."""
        with np.errstate(over="ignore"):
            vector = np.array(numbers, np.float32)
        if np.isinf(vector).any():
            place = int(np.flatnonzero(np.isinf(vector))[0])
            name, value = self.feature_names[place], float(numbers[place])
            raise TransactionError(name, "infinite", f"is {value!r}, which float32 cannot hold")
        vector[np.isnan(vector)] = math.nan
        return vector.astype("<f4").tobytes()


def _raw(column: Sequence[Any] | NDArray[Any]) -> Any:
    """Return a column as an array of float64, or as a list of Python's own values."""
    if hasattr(column, "to_numpy"):  # a series of pandas
        column = column.to_numpy()
    if not isinstance(column, np.ndarray):
        return list(column)
    if column.dtype == np.float64:
        return column
    found = column.tolist()
    return [None if one != one else one for one in found] if column.dtype == object else found  # noqa: PLR0124


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
