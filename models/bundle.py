"""The bundle: a forest as one portable, immutable file that needs no training library to run.

It is a safetensors file: a JSON header and flat arrays, no pickle and no code. It is mapped and not read, so
all processes of a host share one copy. Everything that the kernel follows is checked before it does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import save

from models.check import check_forest
from models.errors import BundleError
from models.layout import LINE, LINE_BYTES, SHAPE_WORDS
from models.meta import FORMAT, BundleMeta
from models.pack import Packed
from models.pages import Pages, huge_bytes, map_file

Rows = NDArray[np.float32] | NDArray[np.float64]

_META = "scorewire"
_PAD = "pad"
_MAX_HEADER = 64 << 20
_DTYPES = {"U64": "<u8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "U16": "<u2", "U8": "u1"}


@dataclass(frozen=True)
class Golden:
    """Rows with the scores that the source library gave them.

    Attributes:
        x: float32 [rows, features], float64 where the source compares that.
        raw: float64 [rows, n_raw].
        out: float64 [rows, outputs].
    """

    x: Rows
    raw: NDArray[np.float64]
    out: NDArray[np.float64]


@dataclass(frozen=True)
class Bundle:
    """An open bundle; all arrays are read-only views of the mapped file.

    Attributes:
        path: the file.
        meta: what it says of itself.
        forest: the packed trees.
        categories: uint32, sets of categories: a count of words, then their bits.
        groups: uint32 [trees], the raw score that each tree adds to; empty where leaves hold all of them.
        rules: uint8 [features], what to do with each feature's value first (models.layout).
        levels: float64, the distinct thresholds (or categories) of each feature, rising; empty where the
            source compares float32.
        level_codes: float32 [levels], the smallest float32 above each threshold's (or each category's code).
        level_starts: uint32 [features + 1], where each feature's levels begin.
        start: float64 [n_raw], what sums begin with.
        offset: float64 [n_raw], what is added to a sum after it was divided.
        golden: the golden vectors.
        size: bytes of the file.
    """

    path: Path
    meta: BundleMeta
    forest: Packed
    categories: NDArray[np.uint32]
    groups: NDArray[np.uint32]
    rules: NDArray[np.uint8]
    levels: NDArray[np.float64]
    level_codes: NDArray[np.float32]
    level_starts: NDArray[np.uint32]
    start: NDArray[np.float64]
    offset: NDArray[np.float64]
    golden: Golden
    size: int

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file, in hex: the bundle's name everywhere."""
        return file_digest(self.path)

    @property
    def huge(self) -> int:
        """How many bytes of it are mapped in huge pages just now."""
        return huge_bytes(self.forest.lines)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Parts:
    """What a bundle holds beside its trees; for the meaning of each see Bundle."""

    categories: NDArray[np.uint32]
    groups: NDArray[np.uint32]
    rules: NDArray[np.uint8]
    levels: NDArray[np.float64]
    level_codes: NDArray[np.float32]
    level_starts: NDArray[np.uint32]
    start: NDArray[np.float64]
    offset: NDArray[np.float64]


def write_bundle(path: Path, meta: BundleMeta, forest: Packed, parts: Parts, golden: Golden) -> Bundle:
    """Write a bundle whole or not at all, and open it as anybody else would.

    Raises:
        BundleError: it does not pass its own checks.
        OSError: it cannot be written.
    """
    arrays = {
        # As 8-byte words they come first in the file, and so at a multiple of 64 bytes.
        "lines": forest.lines.view("<u8").reshape(-1, LINE_BYTES // 8),
        "roots": forest.roots,
        "shapes": forest.shapes,
        "codes": forest.codes,
        "table": forest.table,
        **vars(parts),
        "golden_x": golden.x,
        "golden_raw": golden.raw,
        "golden_out": golden.out,
    }
    metadata = {_META: meta.model_dump_json(), _PAD: ""}
    data = save(arrays, metadata)
    header = 8 + int.from_bytes(data[:8], "little")
    if header % LINE_BYTES:
        metadata[_PAD] = " " * (LINE_BYTES - header % LINE_BYTES)
        data = save(arrays, metadata)
    _write(path, data)
    return open_bundle(path)


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # noqa: PTH101 - temporary files are private, a bundle is shared
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def open_bundle(path: Path | str, digest: str | None = None, *, pages: Pages = "shared") -> Bundle:
    """Map a bundle and check all that the kernel will follow.

    Args:
        path: the file.
        digest: the sha256 that it must have, in hex; None trusts whoever verified it before.
        pages: whether to map it as it is, or in huge pages (models.pages).

    Raises:
        BundleError: with the reason, for whatever is wrong with the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:  # noqa: PLR2004 - the length of the header's length
                raise BundleError(f"{path}: {size} bytes are no bundle")
            mapped = map_file(file.fileno(), size, pages)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    if digest is not None and (found := hashlib.sha256(mapped.data).hexdigest()) != digest:
        raise BundleError(f"{path}: its sha256 is {found}, not {digest}: fetch it again")
    try:
        header, start = _read_header(mapped)
        meta = _read_meta(header.pop("__metadata__", None))
        arrays = _map_arrays(mapped, header, start)
        bundle = _assemble(path, meta, arrays, size)
        check_forest(bundle)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return bundle


def _read_header(mapped: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(mapped[:8].tobytes(), "little")
    if length > min(_MAX_HEADER, len(mapped) - 8):
        raise BundleError(f"its header claims {length} bytes: it is truncated, or no bundle")
    try:
        header = json.loads(mapped[8 : 8 + length].tobytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise BundleError("its header is not an object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BundleError("its header names something twice")
    return found


def _read_meta(metadata: Any) -> BundleMeta:
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_META), str):
        raise BundleError("it is a safetensors file without a scorewire header")
    try:
        version = json.loads(metadata[_META]).get("format")
        if version != FORMAT:
            raise BundleError(
                f"its format is {version!r}, this version reads {FORMAT}: import the model again"
            )
        return BundleMeta.model_validate_json(metadata[_META])
    except (ValidationError, ValueError, AttributeError, RecursionError) as error:
        why = re.sub(r"\s+", " ", str(error))[:500]
        raise BundleError(f"its description is not valid: {why}") from error


def _map_arrays(mapped: NDArray[np.uint8], header: dict[str, Any], start: int) -> dict[str, NDArray[Any]]:
    """Map the arrays, which must follow each other without a hole or an overlap up to the file's end."""
    arrays = {}
    end = 0
    for name, entry in sorted(header.items(), key=_offset):
        try:
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            begin, stop = entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"array {name!r} is not described as safetensors describes one") from error
        numbers = (*shape, begin, stop)
        if not all(type(n) is int and 0 <= n <= len(mapped) for n in numbers) or begin != end:
            raise BundleError(f"array {name!r} has the shape {shape} at {begin}..{stop}, which cannot be")
        count = 1
        for n in shape:
            count *= n
        if count * dtype.itemsize != stop - begin or start + stop > len(mapped):
            raise BundleError(f"array {name!r} needs {count * dtype.itemsize} bytes, and has others")
        if (start + begin) % dtype.itemsize:
            raise BundleError(f"array {name!r} is not aligned to its items")
        arrays[name] = np.frombuffer(mapped, dtype, count, start + begin).reshape(shape)
        end = stop
    if start + end != len(mapped):
        raise BundleError(f"it has {len(mapped)} bytes, and its header accounts for {start + end}")
    return arrays


def _offset(item: tuple[str, Any]) -> tuple[int, int]:
    try:
        begin, stop = item[1]["data_offsets"]
        return int(begin), int(stop)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"array {item[0]!r} has no offsets") from error


def _assemble(path: Path, meta: BundleMeta, arrays: dict[str, NDArray[Any]], size: int) -> Bundle:
    """Put the arrays in their places; each must have its type and shape."""
    n_features, n_outputs = len(meta.feature_names), len(meta.outputs)
    n_golden = len(arrays["golden_x"]) if "golden_x" in arrays else 0
    grouped = "groups" in arrays and arrays["groups"].size > 0
    expected: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "lines": ("<u8", (None, LINE_BYTES // 8)),
        "roots": ("<u4", (meta.n_trees,)),
        "shapes": ("<u2", (None, SHAPE_WORDS)),
        "table": ("<f8", (None, 1 if grouped else meta.n_raw)),
        "categories": ("<u4", (None,)),
        "groups": ("<u4", (meta.n_trees if grouped else 0,)),
        "rules": ("u1", (n_features,)),
        "levels": ("<f8", (None,)),
        "level_codes": ("<f4", (arrays["levels"].size if "levels" in arrays else 0,)),
        "level_starts": ("<u4", (n_features + 1,)),
        "start": ("<f8", (meta.n_raw,)),
        "offset": ("<f8", (meta.n_raw,)),
        "golden_x": ("<f4" if meta.input_dtype == "float32" else "<f8", (n_golden, n_features)),
        "golden_raw": ("<f8", (n_golden, meta.n_raw)),
        "golden_out": ("<f8", (n_golden, n_outputs)),
    }
    if set(arrays) != {*expected, "codes"}:
        raise BundleError(f"it holds the arrays {sorted(arrays)}, not those of a bundle")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        fits = len(array.shape) == len(shape) and all(
            w in (None, n) for w, n in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(dtype) or not fits:
            raise BundleError(
                f"array {name!r} is {array.dtype}{list(array.shape)}, and should be {dtype}{shape}"
            )
    codes = arrays["codes"]
    if codes.ndim != 1 or codes.dtype.kind != "u" or codes.dtype.itemsize > 4:  # noqa: PLR2004 - u32
        raise BundleError(f"array 'codes' is {codes.dtype}{list(codes.shape)}")
    lines = arrays["lines"]
    if lines.ctypes.data % LINE_BYTES:
        raise BundleError("its lines are not aligned to 64 bytes")
    forest = Packed(
        lines.reshape(-1).view(LINE),
        arrays["roots"],
        arrays["shapes"],
        codes,
        arrays["table"],
    )
    golden = Golden(arrays["golden_x"], arrays["golden_raw"], arrays["golden_out"])
    parts = {field.name: arrays[field.name] for field in fields(Parts)}
    return Bundle(path, meta, forest, golden=golden, size=size, **parts)
