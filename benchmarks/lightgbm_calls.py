"""LightGBM's two ways to be called; it needs no library of this project, so that peers can use it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Score = Callable[[Rows], NDArray[Any]]


def lightgbm_scores(booster: Any) -> dict[str, Score]:
    """Return LightGBM's Python interface, and its C function for single rows, with the set-up done once."""
    import lightgbm  # noqa: PLC0415

    library, handle = lightgbm.basic._LIB, ctypes.c_void_p()  # noqa: SLF001 - Python does not offer it
    lightgbm.basic._safe_call(  # noqa: SLF001
        library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle,  # noqa: SLF001
            ctypes.c_int(0),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_int(0),  # float32
            ctypes.c_int(booster.num_feature()),
            ctypes.c_char_p(b"num_threads=1"),
            ctypes.byref(handle),
        )
    )
    out, length = np.zeros(1), ctypes.c_int64()
    pointer = out.ctypes.data_as(ctypes.POINTER(ctypes.c_double))

    # The handle is of this booster, which must not be freed before it.
    def fast(x: Rows, _kept: Any = booster) -> NDArray[Any]:
        library.LGBM_BoosterPredictForMatSingleRowFast(
            handle, ctypes.c_void_p(x.ctypes.data), ctypes.byref(length), pointer
        )
        return out.copy()

    return {
        "lightgbm": lambda x: np.asarray(booster.predict(x, num_threads=1)),
        "lightgbm C fast path": fast,
    }
