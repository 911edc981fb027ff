"""`run.py model`: what libraries wrote goes in, and a bundle can be read by people and machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import xgboost
from scipy.sparse import csr_matrix
from skl2onnx import to_onnx
from typer.testing import CliRunner, Result

import run
from examples.card_payments import PAYMENT_SPEC
from models.bundle import open_bundle
from models.errors import ImportRefusedError, InputError
from models.forest import Forest
from models.importers import import_model
from models.spec import load_spec
from tests.models.conftest import BOOSTERS, train_booster, training_data
from tests.models.families import FAMILIES

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(run.app, ["model", *map(str, arguments)])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return invoke


def xgb_classifier() -> Any:
    x, y = training_data(missing=True)
    gone = np.where(np.isnan(x), -999, x)
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=1, missing=-999).fit(gone, y)


def written(kind: str, directory: Path) -> tuple[Path, Any, list[Any]]:
    """Train a model and write it as its library does; return also the arguments that its import needs."""
    path = directory / f"model{kind}"
    if kind == ".txt":
        model = train_booster(BOOSTERS["binary"], missing=True, categorical=True)
        model.save_model(path)
        return path, model, []
    if kind in {".json", ".ubj"}:
        model = xgb_classifier()
        model.save_model(path)
        return path, model, ["--missing", -999]
    if kind == ".onnx":
        x, y = training_data(missing=False)
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(5, random_state=0).fit(x, y)
        model = to_onnx(forest, x[:1])
        onnx.save(model, path)
        return path, model, []
    model = xgb_classifier()
    joblib.dump(model, path)
    return path, model, ["--trust-pickle"]


def pipeline(directory: Path) -> tuple[Any, Any]:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = pd.DataFrame({"amount": [1.0, 20, 3, 40] * 20, "kind": ["a", "b", "c", "b"] * 20})
    columns = make_column_transformer(
        (StandardScaler(), ["amount"]), (OneHotEncoder(handle_unknown="ignore"), ["kind"])
    )
    model = make_pipeline(columns, RandomForestClassifier(3, random_state=0))
    model.fit(data, data["amount"] > 10)
    data.to_json(directory / "sample.jsonl", orient="records", lines=True)
    return model, data


@pytest.mark.parametrize("kind", [".skops", ".joblib"])
def test_a_pipeline_becomes_a_spec_and_a_bundle(kind: str, invoke: Invoke, tmp_path: Path) -> None:
    import skops.io

    model, data = pipeline(tmp_path)
    path, out = tmp_path / f"fraud{kind}", tmp_path / "fraud.bundle"
    skops.io.dump(model, path) if kind == ".skops" else joblib.dump(model, path)
    more = ["--trust-pickle"] if kind == ".joblib" else []
    sample = ["--sample", tmp_path / "sample.jsonl", "--id", "id"]
    facts = json.loads(invoke("import", path, "--out", out, "--json", *more, *sample).stdout)
    spec = load_spec(tmp_path / "fraud.features.json")
    assert (spec.name, spec.id_field, spec.digest) == ("fraud", "id", facts["feature_spec"]["digest"])
    assert facts["feature_spec"]["rows_compared"] == 80 + 256
    scores = Forest(open_bundle(out)).predict(spec.matrix(data.to_dict("records")))
    assert np.array_equal(scores, model.predict_proba(data))
    assert "golden_transactions" in invoke("import", path, "--out", out, *more).stdout
    named = invoke("import", path, "--out", out, "--spec", PAYMENT_SPEC, *more, code=2)
    assert "brings its own: --spec, --missing and --sparse" in " ".join(named.stderr.split())


class Unheard:
    pass


def test_a_skops_file_of_other_types_is_refused_by_their_names(invoke: Invoke, tmp_path: Path) -> None:
    import skops.io

    skops.io.dump(Unheard(), tmp_path / "model.skops")
    refused = invoke("import", tmp_path / "model.skops", "--out", tmp_path / "out", code=2)
    assert "Unheard" in refused.stderr
    (tmp_path / "model.skops").write_bytes(b"junk")
    refused = invoke("import", tmp_path / "model.skops", "--out", tmp_path / "out", code=2)
    assert "no .skops model" in refused.stderr


def test_the_schema_of_a_spec_is_printed_or_written(invoke: Invoke, tmp_path: Path) -> None:
    printed = json.loads(invoke("schema", PAYMENT_SPEC).stdout)
    invoke("schema", PAYMENT_SPEC, "--out", tmp_path / "schema.json")
    assert printed == json.loads((tmp_path / "schema.json").read_text())
    assert printed["$schema"].endswith("2020-12/schema")
    assert "amount" in printed["required"]
    assert "cannot be read" in invoke("schema", tmp_path / "none.toml", code=2).stderr


def test_a_spec_is_given_the_profile_of_its_training_data(invoke: Invoke, tmp_path: Path) -> None:
    from itertools import islice

    from examples.card_payments import stream

    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in islice(stream(seed=1), 50)))
    out = tmp_path / "profiled.json"
    facts = json.loads(invoke("profile", PAYMENT_SPEC, data, "--out", out, "--json").stdout)
    assert (facts["rows"], facts["digest"]) == (50, load_spec(out).digest)
    assert "profile of 50 transactions" in invoke("profile", PAYMENT_SPEC, data, "--out", out).stdout
    data.write_text("[1]\n")
    assert "line 1 is no object" in invoke("profile", PAYMENT_SPEC, data, "--out", out, code=2).stderr
    data.write_text("")
    assert "there are none" in invoke("profile", PAYMENT_SPEC, data, "--out", out, code=2).stderr


@pytest.mark.parametrize("kind", [".txt", ".json", ".ubj", ".onnx", ".joblib", ".pkl"])
def test_what_a_library_wrote_is_imported_as_the_model_that_it_was(
    kind: str, invoke: Invoke, tmp_path: Path
) -> None:
    source, model, more = written(kind, tmp_path)
    facts = json.loads(invoke("import", source, "--out", tmp_path / "a", "--json", *more).stdout)
    expected = import_model(model, tmp_path / "b")
    found = open_bundle(tmp_path / "a", facts["digest"])
    assert (found.meta.outputs, found.meta.task) == (expected.meta.outputs, expected.meta.task)
    rows = training_data(missing=False)[0]
    rows[::3, 1] = -999 if kind in {".json", ".ubj", ".joblib", ".pkl"} else 0.5
    assert Forest(found).predict(rows).tobytes() == Forest(expected).predict(rows).tobytes()


def test_a_model_that_was_stopped_early_is_the_same_from_its_file(invoke: Invoke, tmp_path: Path) -> None:
    model = FAMILIES["XGBClassifier, stopped early"]()
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    model.save_model(tmp_path / "model.json")
    invoke("import", tmp_path / "model.json", "--out", tmp_path / "m.bundle")
    rows = training_data(missing=False)[0]
    assert Forest(open_bundle(tmp_path / "m.bundle")).predict(rows) == pytest.approx(
        model.predict_proba(rows), abs=1e-7
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.json", b"{}", "no .json model"),
        ("model.ubj", b"junk", "no .ubj model"),
        ("model.txt", b"junk", "no .txt model"),
        ("model.onnx", b"junk", "no .onnx model"),
        ("model.onnx", b"", "no .onnx model"),
        ("model.joblib", b"junk", "--trust-pickle"),
        ("model.pkl", b"junk", "--trust-pickle"),
        ("model.csv", b"1,2", "not known: .txt"),
    ],
)
def test_a_file_that_holds_no_model_is_refused_with_what_to_do(
    invoke: Invoke, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused = invoke("import", tmp_path / name, "--out", tmp_path / "out", code=2)
    assert words in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_missing_value_is_named_for_xgboost_alone(forest_model: Any, tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="missing"):
        import_model(forest_model, tmp_path / "m.bundle", missing=-1.0)


def test_a_forest_of_sparse_rows_refuses_what_is_missing(
    invoke: Invoke, forest_model: Any, tmp_path: Path
) -> None:
    joblib.dump(forest_model, tmp_path / "m.joblib")
    arguments = ["import", tmp_path / "m.joblib", "--out", tmp_path / "m.bundle", "--trust-pickle"]
    rows = np.full((1, forest_model.n_features_in_), np.nan, np.float32)
    invoke(*arguments)
    assert np.array_equal(
        Forest(open_bundle(tmp_path / "m.bundle")).predict(rows), forest_model.predict_proba(rows)
    )
    invoke(*arguments, "--sparse")
    with pytest.raises(InputError, match="NaN"):
        Forest(open_bundle(tmp_path / "m.bundle")).predict(rows)
    with pytest.raises(ValueError, match="NaN"):
        forest_model.predict_proba(csr_matrix(rows))


def test_an_import_says_how_far_it_is(forest_model: Any, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    import_model(forest_model, tmp_path / "m.bundle", progress=lambda *how_far: said.append(how_far))
    assert said == [(number + 1, 20) for number in range(20)]


def test_a_model_can_be_read_by_people(invoke: Invoke, forest_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.bundle"
    names = ["amount", "hour", "terminal", "kind", "age", "n"]
    bundle = import_model(
        forest_model,
        path,
        feature_names=names,
        trained_at="2026-01-02T03:04:05+00:00",
        notes={"run": "42", "author": "Ada"},
    )
    shown = invoke("inspect", path).stdout
    depth = max(tree.get_depth() for tree in forest_model.estimators_)
    for fact in (
        "RandomForestClassifier of scikit-learn",
        bundle.digest,
        "2026-01-02T03:04:05",
        "run: 42",
        "author: Ada",
        f"{bundle.meta.n_nodes:,}",
        f"{depth} at most",
        f"{bundle.forest.lines.size:,} lines of 64 bytes",
        *names,
    ):
        assert fact in shown, fact


def test_the_layout_of_a_bundle_adds_up(invoke: Invoke, tmp_path: Path) -> None:
    for booster in (False, True):
        path = tmp_path / "m.bundle"
        model = train_booster(BOOSTERS["binary"], missing=True, categorical=True) if booster else None
        x, y = training_data(missing=False)
        from sklearn.ensemble import RandomForestClassifier

        bundle = import_model(model or RandomForestClassifier(5, random_state=0).fit(x, y), path)
        facts = json.loads(invoke("inspect", path, "--json").stdout)
        layout = facts["layout"]
        assert facts["bytes"] == path.stat().st_size == sum(layout["bytes_of"].values())
        assert layout["lines"] == sum(layout["lines_by_splits"]) == bundle.forest.lines.size
        splits = sum(count * lines for count, lines in enumerate(layout["lines_by_splits"]))
        # A binary tree has one leaf more than splits.
        assert 2 * splits + facts["n_trees"] == facts["n_nodes"]
        assert layout["leaves_inline"] == (not booster)
        assert sum(facts["importance"]) == pytest.approx(1, abs=1e-4)
        assert facts["features_used"] == sum(share > 0 for share in facts["importance"])


def test_a_trusted_file_that_cannot_be_loaded_says_so(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"junk")
    arguments = ["import", tmp_path / "model.joblib", "--out", tmp_path / "out", "--trust-pickle"]
    refused = invoke(*arguments, code=2)
    assert "cannot be loaded" in " ".join(refused.stderr.split())
