"""JSON that gives back what it was given: bytes, numbers that are none, and keys that are no text included.

What JSON cannot say is written as an object of one name: {"$float": "nan"}, {"$bytes": "00ff"},
{"$map": [[key, value], ...]}.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

_FLOAT: Final = "$float"
_BYTES: Final = "$bytes"
_MAP: Final = "$map"
_NAMES: Final = frozenset({_FLOAT, _BYTES, _MAP})


def to_json(value: Any) -> str:
    """Write a value that msgpack carries: None, bool, int, float, str, bytes, lists and maps of them."""
    if isinstance(value, dict) and len(value) > 1 and all(map(_is_plain, value, value.values())):
        return json.dumps(value, allow_nan=False)
    return json.dumps(_coded(value), allow_nan=False)


def from_json(value: Any) -> Any:
    """Return what was written, from the parsed JSON."""
    if isinstance(value, list):
        return [from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name == _FLOAT:
            return float(inner)
        if name == _BYTES:
            return bytes.fromhex(inner)
        if name == _MAP:
            return {from_json(key): from_json(one) for key, one in inner}
    return {key: from_json(one) for key, one in value.items()}


def _is_plain(key: Any, value: Any) -> bool:
    """Say of a name and its value whether JSON has them as they are; most transactions have nothing else."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value) and type(key) is str
    return kind in _PLAIN and type(key) is str


_PLAIN: Final = frozenset({str, int, bool, type(None)})


def _coded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    if isinstance(value, list | tuple):
        return [_coded(one) for one in value]
    if isinstance(value, dict):
        plain = all(isinstance(key, str) for key in value) and not (len(value) == 1 and value.keys() & _NAMES)
        if not plain:
            return {_MAP: [[_coded(key), _coded(one)] for key, one in value.items()]}
        return {key: _coded(one) for key, one in value.items()}
    return value
