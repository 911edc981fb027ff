"""Loads a model from the file that its library wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.errors import ImportRefusedError, SourceFileError

#: Files that hold objects of Python, and with them code.
PICKLES = (".joblib", ".pkl", ".pickle")


def load_file(path: Path, *, trust_pickle: bool = False) -> Any:
    """Load a model.

    Args:
        path: a LightGBM text model (.txt), an XGBoost model (.json, .ubj), an ONNX model (.onnx), or a
            scikit-learn, LightGBM or XGBoost object (.skops; .joblib, .pkl).
        trust_pickle: load also what runs its maker's code: .joblib and .pkl files.

    Raises:
        SourceFileError: it is not there, is of another kind, is damaged, its library is not installed, or
            it is a pickle and nobody trusts it; says what to do.
        ImportRefusedError: a .skops file holds objects of types that are not known.
    """
    if not path.is_file():
        raise SourceFileError(f"there is no file {path}")
    if path.suffix in PICKLES:
        return _pickle(path, trusted=trust_pickle)
    loader = _LOADERS.get(path.suffix)
    if loader is None:
        kinds = ", ".join((*_LOADERS, *PICKLES))
        raise SourceFileError(f"{path} is of a kind that is not known: {kinds} are")
    try:
        return loader(path)
    except ImportRefusedError:
        raise
    except ImportError as error:
        raise SourceFileError(
            f"{path} needs {error.name}: pip install -e '.[{_EXTRAS[path.suffix]}]'"
        ) from error
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise SourceFileError(f"{path} is no {path.suffix} model: {type(error).__name__}: {why}") from error


def _lightgbm(path: Path) -> Any:
    import lightgbm  # noqa: PLC0415 - only importing a model needs its library

    return lightgbm.Booster(model_file=str(path))


def _xgboost(path: Path) -> Any:
    """A booster; or the estimator that it belonged to, whose outputs are others."""
    import xgboost  # noqa: PLC0415

    booster = xgboost.Booster(model_file=str(path))
    kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    estimators = {"classifier": xgboost.XGBClassifier, "regressor": xgboost.XGBRegressor}
    if kind not in estimators:
        return booster
    estimator = estimators[kind]()
    estimator.load_model(path)
    return estimator


def _onnx(path: Path) -> Any:
    import onnx  # noqa: PLC0415

    model = onnx.load(path)
    onnx.checker.check_model(model)
    return model


#: Types beside those that skops trusts by itself; none of them runs code when it is made.
_SKOPS_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.tree._tree.Tree",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
    }
)


def _skops(path: Path) -> Any:
    """An object of scikit-learn from a file that holds no code; types that are not known are refused."""
    import skops.io  # noqa: PLC0415

    unknown = set(skops.io.get_untrusted_types(file=path)) - _SKOPS_TYPES
    if unknown:
        raise ImportRefusedError(
            f"{path} holds objects of types that are not carried: {', '.join(sorted(unknown))}"
        )
    return skops.io.load(path, trusted=sorted(_SKOPS_TYPES))


def _pickle(path: Path, *, trusted: bool) -> Any:
    if not trusted:
        raise SourceFileError(
            f"{path} is not loaded: a {path.suffix} file runs whatever code its maker put into it. "
            "If you trust its maker as you trust your own code, say --trust-pickle",
        )
    try:
        import joblib  # noqa: PLC0415 - comes with scikit-learn

        return joblib.load(path)
    except Exception as error:
        raise SourceFileError(
            f"{path} cannot be loaded: {error!r}; was it made with other library versions?"
        ) from error


_LOADERS: Mapping[str, Callable[[Path], Any]] = {
    ".txt": _lightgbm,
    ".json": _xgboost,
    ".ubj": _xgboost,
    ".onnx": _onnx,
    ".skops": _skops,
}
_EXTRAS: Mapping[str, str] = {
    ".txt": "demo",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".onnx": "onnx",
    ".skops": "import",
}
