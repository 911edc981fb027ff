"""Tensors of the Open Inference Protocol: JSON or raw bytes to NumPy and back, each element to the bit.

https://github.com/kserve/open-inference-protocol (REST), and Triton's extension for binary tensor data: what
an input says of `binary_data_size` follows the JSON in the order of the inputs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from transport.client.errors import ProtocolError

Array = NDArray[Any]
Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
Parameters = dict[str, Any]

#: Datatype to how its elements lie in binary data: little-endian.
DTYPES: Final[dict[str, str]] = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_NONE: Final = type(None)
_LENGTH: Final = struct.Struct("<I")


class Input(msgspec.Struct):
    """One tensor of a request."""

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**40)]]
    datatype: Datatype
    parameters: Parameters | None = None
    data: list[Any] | None = None


class Wanted(msgspec.Struct):
    """One tensor that a request wants to have back."""

    name: str
    parameters: Parameters | None = None


class InferBody(msgspec.Struct):
    """The JSON of an inference request."""

    inputs: Annotated[list[Input], msgspec.Meta(min_length=1)]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Wanted] | None = None


def read_inputs(body: InferBody, raw: bytes) -> dict[str, Array]:
    """Return name to tensor, in the shape that the request says; texts and bytes as objects.

    Args:
        body: the JSON of the request.
        raw: what followed it.

    Raises:
        ProtocolError: a tensor does not have what it says; names the input and the rule.
    """
    found: dict[str, Array] = {}
    place = 0
    for tensor in body.inputs:
        if tensor.name in found:
            raise _wrong(tensor, "is given twice", "twice")
        size = (tensor.parameters or {}).get("binary_data_size")
        if "shared_memory_region" in (tensor.parameters or {}):
            raise _wrong(
                tensor, "is in shared memory, which no gateway reads: send its data", "shared_memory"
            )
        if size is None:
            flat = _from_json(tensor)
        else:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw) - place:
                why = f"has {size!r} bytes of binary data, by what it says, and {len(raw) - place} follow"
                raise _wrong(tensor, why, "binary_data_size")
            flat = _from_raw(tensor, raw[place : place + size])
            place += size
        if flat.size != prod(tensor.shape):
            raise _wrong(tensor, f"has {flat.size} elements, and its shape is {tensor.shape}", "shape")
        found[tensor.name] = flat.reshape(tensor.shape)
    if place != len(raw):
        why = f"{len(raw) - place} bytes follow the JSON that no input speaks of (binary_data_size)"
        raise ProtocolError(why, field="inputs", rule="binary_data_size")
    return found


def _wrong(tensor: Input, why: str, rule: str) -> ProtocolError:
    return ProtocolError(f"input {tensor.name!r} {why}", field=tensor.name, rule=rule)


def _from_json(tensor: Input) -> Array:
    if tensor.data is None:
        raise _wrong(tensor, "has neither data nor binary_data_size", "missing")
    flat: list[Any] = tensor.data
    while flat and type(flat[0]) is list:
        if not all(type(one) is list for one in flat):
            raise _wrong(tensor, "is nested here and not there", "nesting")
        flat = list(chain.from_iterable(flat))
    kinds = set(map(type, flat))
    if not kinds <= _KINDS[tensor.datatype]:
        odd = next(one for one in flat if type(one) not in _KINDS[tensor.datatype])
        raise _wrong(tensor, f"has {odd!r} among elements of {tensor.datatype}", "type")
    if tensor.datatype == "BYTES":
        return _objects(flat)
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, DTYPES[tensor.datatype])
    except OverflowError as error:
        raise _wrong(tensor, f"has a number that is none of {tensor.datatype}: {error}", "range") from error
    if array.dtype.kind == "f" and np.isinf(array).any() and not any(map(_is_infinite, flat)):
        raise _wrong(tensor, f"has a number that {tensor.datatype} cannot hold", "range")
    return array


def _is_infinite(value: Any) -> bool:
    return value in (float("inf"), float("-inf"))


#: Datatype to what may stand for an element in JSON; null is a number that is missing.
_NUMBER: Final[set[type]] = {int, float, _NONE}
_INTEGER: Final[set[type]] = {int}
_KINDS: Final[dict[str, set[type]]] = {
    **dict.fromkeys(DTYPES, _INTEGER),
    **dict.fromkeys(("FP16", "FP32", "FP64"), _NUMBER),
    "BOOL": {bool},
    "BYTES": {str, _NONE},
}


def _from_raw(tensor: Input, raw: bytes) -> Array:
    if tensor.data is not None:
        raise _wrong(tensor, "has data both in JSON and behind it", "twice")
    if tensor.datatype == "BYTES":
        return _objects(_elements(tensor, raw))
    dtype = np.dtype(DTYPES[tensor.datatype])
    if len(raw) % dtype.itemsize:
        why = f"has {len(raw)} bytes, which are no whole elements of {tensor.datatype}"
        raise _wrong(tensor, why, "binary_data_size")
    if tensor.datatype == "BOOL":
        truths: Array = np.frombuffer(raw, "|u1") != 0  # any other byte than 0 is true
        return truths
    return np.frombuffer(raw, dtype)


def _elements(tensor: Input, raw: bytes) -> list[bytes]:
    """Read elements of BYTES: each behind its length in four bytes."""
    found, place = [], 0
    while place < len(raw):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, place)[0] if start <= len(raw) else start
        if end > len(raw):
            raise _wrong(tensor, "ends in the midst of an element", "binary_data_size")
        found.append(raw[start:end])
        place = end
    return found


def _objects(values: Sequence[object]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def write_output(
    name: str, datatype: Datatype, array: Array, *, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """Return an output's JSON and the bytes that follow it.

    Args:
        name: its name.
        datatype: its datatype.
        array: its elements; texts as objects of str.
        binary: as bytes behind the JSON, instead of in it.
    """
    head = {"name": name, "shape": list(array.shape), "datatype": datatype}
    if not binary:
        return {**head, "data": array.ravel().tolist()}, b""
    if datatype == "BYTES":
        texts = [text.encode("utf-8", "surrogatepass") for text in array.ravel().tolist()]
        raw = b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    else:
        raw = np.ascontiguousarray(array, DTYPES[datatype]).tobytes()
    return {**head, "parameters": {"binary_data_size": len(raw)}}, raw
