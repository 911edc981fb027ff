"""The links from raw scores to outputs, operation by operation as the source libraries have them.

A link that is plain arithmetic gives the source's bits. Others call the mathematical library, whose last bits
differ between systems: `BOUND` says by how many units in the last place an output may differ.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import numpy as np
from numba import njit

Link = Literal[
    "identity",
    "sigmoid",
    "softmax",
    "sigmoid_each",
    "exp",
    "signed_square",
    "log1p_exp",
    "sigmoid_pair",
    "isolation",
    "sigmoid32",
    "sigmoid_pair32",
    "softmax32",
    "exp32",
    "step",
    "argmax",
    "pair",
    "logistic32",
    "logistic_pair32",
    "mirror",
]

#: Each link's number in the kernel.
NUMBERS: Final[dict[str, int]] = {name: number for number, name in enumerate(get_args(Link))}
#: Outputs of links that have not one for each raw score.
OUTPUTS: Final[dict[str, int]] = {
    "sigmoid_pair": 2,
    "sigmoid_pair32": 2,
    "pair": 2,
    "logistic_pair32": 2,
    "mirror": 2,
    "argmax": 1,
}
#: Units in the last place (of float64, of float32 where the link is) by which an output may differ.
BOUND: Final[dict[str, int]] = {
    **dict.fromkeys(get_args(Link), 0),
    "sigmoid": 1,
    "sigmoid_each": 1,
    "sigmoid_pair": 1,
    "exp": 1,
    "log1p_exp": 2,
    "softmax": 4,
    "isolation": 2,
    "sigmoid32": 2,
    "sigmoid_pair32": 2,
    "exp32": 1,
    "softmax32": 4,
    "logistic32": 2,
    "logistic_pair32": 2,
}
#: Links whose outputs are float32.
FLOAT32: Final = frozenset(name for name in get_args(Link) if name.endswith("32"))
#: Links that take a number from one, and of how many outputs: the last bits of that number count there,
#: however small what is left.
COMPLEMENTS: Final = {"sigmoid_pair": 1, "sigmoid_pair32": 1, "logistic_pair32": 2, "logistic32": None}

_N: Final = NUMBERS
(
    _SIGMOID,
    _SOFTMAX,
    _SIGMOID_EACH,
    _EXP,
    _SIGNED_SQUARE,
    _LOG1P_EXP,
    _SIGMOID_PAIR,
    _ISOLATION,
    _SIGMOID32,
    _SIGMOID_PAIR32,
    _SOFTMAX32,
    _EXP32,
    _STEP,
    _ARGMAX,
    _PAIR,
    _LOGISTIC32,
    _LOGISTIC_PAIR32,
    _MIRROR,
) = list(_N.values())[1:]

_ONE32: Final = np.float32(1.0)


@njit(nogil=True, inline="always")
def _softmax(raw, out):
    """LightGBM's Common::Softmax, and scikit-learn's softmax."""
    top = raw[0]
    for k in range(1, raw.size):
        top = max(raw[k], top)
    total = 0.0
    for k in range(raw.size):
        out[k] = math.exp(raw[k] - top)
        total += out[k]
    for k in range(raw.size):
        out[k] /= total


@njit(nogil=True, inline="always")
def _exp32(value):
    """The nearest float32 to e^value, from float64: what a good expf gives."""
    return np.float32(math.exp(np.float64(value)))


@njit(nogil=True, inline="always")
def _softmax32(raw, out):
    """XGBoost's and ONNX Runtime's: float32 throughout, but for XGBoost's sum, in float64."""
    top = raw[0]
    for k in range(1, raw.size):
        top = max(raw[k], top)
    total = 0.0
    for k in range(raw.size):
        out[k] = _exp32(np.float32(raw[k]) - np.float32(top))
        total += out[k]
    for k in range(raw.size):
        out[k] = np.float32(out[k]) / np.float32(total)


@njit(nogil=True, inline="always")
def _sigmoid32(raw):
    """XGBoost's Sigmoid of float32."""
    power = min(-np.float32(raw), np.float32(88.7))
    return _ONE32 / (_exp32(power) + _ONE32 + np.float32(1e-16))


@njit(nogil=True, inline="always")
def _logistic32(raw):
    """ONNX Runtime's ComputeLogistic."""
    value = _ONE32 / (_ONE32 + _exp32(-abs(np.float32(raw))))
    return _ONE32 - value if raw < 0 else value


@njit(nogil=True, inline="always")
def _link_one(link, scale, value):
    """Links of one output for each raw score."""
    if link in (_SIGMOID, _SIGMOID_EACH):
        return 1.0 / (1.0 + math.exp(-scale * value))
    if link == _EXP:
        return math.exp(value)
    if link == _SIGNED_SQUARE:
        return math.copysign(value * value, value)
    if link == _LOG1P_EXP:
        return math.log1p(math.exp(value))
    if link == _ISOLATION:
        return -(2.0 ** -(value / scale))
    if link == _SIGMOID32:
        return np.float64(_sigmoid32(value))
    if link == _EXP32:
        return np.float64(_exp32(value))
    if link == _STEP:
        return 1.0 if value > 0.0 else 0.0
    if link == _LOGISTIC32:
        return np.float64(_logistic32(value))
    return value


@njit(nogil=True, inline="always")
def apply_link(link, scale, raw, out):
    """Turn a row's raw scores into its outputs."""
    if link == _SOFTMAX:
        _softmax(raw, out)
    elif link == _SOFTMAX32:
        _softmax32(raw, out)
    elif link == _ARGMAX:
        best = 0
        for k in range(1, raw.size):
            if raw[k] > raw[best]:
                best = k
        out[0] = best
    elif link == _SIGMOID_PAIR:
        # scipy's expit, and then the rest to one.
        out[1] = 1.0 / (1.0 + math.exp(-scale * raw[0]))
        out[0] = 1.0 - out[1]
    elif link == _SIGMOID_PAIR32:
        positive = _sigmoid32(raw[0])
        out[1] = positive
        out[0] = _ONE32 - positive
    elif link == _PAIR:
        out[1], out[0] = raw[0], 1.0 - raw[0]
    elif link == _LOGISTIC_PAIR32:
        out[1], out[0] = _logistic32(raw[0]), _logistic32(-raw[0])
    elif link == _MIRROR:
        out[1], out[0] = raw[0], -raw[0]
    else:
        for k in range(raw.size):
            out[k] = _link_one(link, scale, raw[k])
