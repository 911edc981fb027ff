"""Bundle files: what they hold, and that no truncated, damaged or hostile one reaches the kernel."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from models.bundle import Bundle, open_bundle
from models.errors import BundleError, GoldenMismatchError
from models.forest import Forest
from models.importers import import_model
from models.layout import LINE
from tests.models.conftest import BOOSTERS, train_booster
from tests.models.families import FAMILIES

ROOT = Path(__file__).parents[2]


def test_a_bundle_says_where_its_model_comes_from(forest_model: Any, tmp_path: Path) -> None:
    names = ["amount", "hour", "terminal", "kind", "age", "n"]
    notes = {"run": "42"}
    path = tmp_path / "m.bundle"
    import_model(forest_model, path, feature_names=names, trained_at="2026-01-02T03:04:05+00:00", notes=notes)
    meta = open_bundle(path).meta
    assert (meta.library, meta.model_class) == ("scikit-learn", "RandomForestClassifier")
    assert meta.library_version.startswith("1.")
    assert meta.trained_at == "2026-01-02T03:04:05+00:00"
    assert meta.feature_names == tuple(names)
    assert meta.outputs == ("0", "1")
    assert meta.input_dtype == "float32"
    assert meta.notes == notes
    assert meta.n_nodes == sum(tree.tree_.node_count for tree in forest_model.estimators_)


def test_a_bundle_is_named_by_the_sha256_of_its_bytes_and_opens_with_safetensors(bundle: Bundle) -> None:
    assert bundle.digest == hashlib.sha256(bundle.path.read_bytes()).hexdigest()
    assert open_bundle(bundle.path, bundle.digest).size == bundle.path.stat().st_size
    arrays = load_file(bundle.path)
    assert np.array_equal(arrays["roots"], bundle.forest.roots)


def test_a_bundle_is_mapped_read_only_with_its_lines_on_cache_lines(bundle: Bundle) -> None:
    assert bundle.forest.lines.ctypes.data % 64 == 0
    for array in (bundle.forest.lines, bundle.forest.table, bundle.golden.x):
        assert not array.flags.writeable


def test_another_digest_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(bundle.path, "0" * 64)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.3, 0.9, -1])
def test_a_truncated_bundle_is_refused(bundle: Bundle, keep: float) -> None:
    data = bundle.path.read_bytes()
    count = int(len(data) * keep) if 0 < keep < 1 else int(keep)
    bundle.path.write_bytes(data[:count])
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


def rewritten(bundle: Bundle, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Write the bundle again with some arrays or facts changed, well-formed in all else."""
    arrays = {name: array.copy() for name, array in load_file(bundle.path).items()}
    meta = json.loads(bundle.meta.model_dump_json())
    change(arrays, meta)
    metadata = {"scorewire": json.dumps(meta), "pad": ""}
    header = 8 + int.from_bytes(save(arrays, metadata)[:8], "little")
    metadata["pad"] = " " * (-header % 64)
    path = bundle.path.with_name("changed.bundle")
    path.write_bytes(save(arrays, metadata))
    return path


def lines_of(arrays: dict[str, Any]) -> Any:
    return arrays["lines"].reshape(-1).view(LINE)


def set_top(field: str, value: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Change the first line: it is the top of a large tree, with lines below it."""

    def change(arrays: dict[str, Any], _: dict[str, Any]) -> None:
        lines_of(arrays)[field][0] = value

    return change


def set_into_next_tree(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    lines_of(arrays)["child"][0] = arrays["roots"][1]


def set_too_many_subtrees(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    lines_of(arrays)["leaf_mask"][0], lines_of(arrays)["starts"][0] = 0, 1


def set_lines_below_several_subtrees(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    lines = lines_of(arrays)
    below = int(lines["child"][0])
    lines["leaf_mask"][0], lines["starts"][0] = 0, 0b101010101  # two exits lead into each line below
    lines["leaf_mask"][below] = 0


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = {
    "a child outside": (set_top("child", 2**32 - 1), "line below"),
    "a child that is its parent": (set_top("child", 0), "line below"),
    "a child in another tree": (set_into_next_tree, "line below"),
    "a leaf outside": (lambda a, _: lines_of(a)["leaf"].fill(2**32 - 1), "leaf"),
    "a feature outside": (lambda a, _: lines_of(a)["feature"].__setitem__((5, 2), 6), "feature"),
    "a shape outside": (set_top("shape", 2**16 - 1), "shape"),
    "a line below that does not begin": (set_top("starts", 0), "mask"),
    "lines below more exits than there are": (set_top("starts", 0xFFFF), "mask"),
    "more subtrees in a line than there can be": (set_too_many_subtrees, "mask"),
    "lines below several subtrees": (set_lines_below_several_subtrees, "mask|line below"),
    "levels that fall": (lambda a, _: a.update(levels=a["level_starts"][:3] * -1.0), "level"),
    "levels outside": (lambda a, _: a["level_starts"].fill(7), "levels"),
    "a type to add in that is not known": (lambda _, m: m.update(sum_dtype="float16"), "valid"),
    "a group outside": (
        lambda a, m: a.update(
            groups=np.full(m["n_trees"], 9, np.uint32), table=np.ascontiguousarray(a["table"][:, :1])
        ),
        "group",
    ),
    "a NaN threshold": (lambda a, _: lines_of(a)["threshold"].__setitem__((0, 0), np.nan), "threshold"),
    "exits that no line has": (lambda a, _: a["shapes"].fill(0xFFFF), "too many"),
    "a shape without a way out": (lambda a, _: a["shapes"].__setitem__((0, 2), 0), "no exit"),
    "no codes for many leaves": (lambda a, _: a.update(codes=a["codes"][:0]), "codes"),
    "a leaf mask too wide": (set_top("leaf_mask", 0xFFFF), "mask"),
    "a category mask without categories": (lambda a, _: lines_of(a)["category"].fill(1), "mask|categories"),
    "a code outside the table": (lambda a, _: a["codes"].fill(np.iinfo(a["codes"].dtype).max), "table"),
    "trees out of order": (
        lambda a, _: a["roots"].__setitem__(slice(None), a["roots"][::-1].copy()),
        "trees",
    ),
    "a first tree elsewhere": (lambda a, _: a["roots"].__setitem__(0, 1), "trees"),
    "a tree too many": (lambda _, m: m.update(n_trees=m["n_trees"] + 1), "roots"),
    "a huge number of trees": (lambda _, m: m.update(n_trees=2**62), "valid"),
    "a missing array": (lambda a, _: a.pop("shapes"), "arrays"),
    "an array too many": (lambda a, _: a.update(more=np.zeros(1)), "arrays"),
    "another type": (lambda a, _: a.update(table=a["table"].astype(np.float32)), "table"),
    "signed codes": (lambda a, _: a.update(codes=a["codes"].astype(np.int8)), "described|codes"),
    "an unknown rule": (lambda a, _: a["rules"].fill(77), "rule"),
    "fewer features": (lambda _, m: m.update(feature_names=m["feature_names"][:5]), "rules|golden|level"),
    "another format": (lambda _, m: m.update(format=99), "format"),
    "an unknown key": (lambda _, m: m.update(surprise=1), "surprise"),
    "a string for a number": (lambda _, m: m.update(n_raw="2"), "valid"),
    "an infinite link": (lambda _, m: m.update(link_scale=1e999), "link|valid"),
    "outputs that do not fit": (lambda _, m: m.update(outputs=["a"]), "golden|outputs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_with_its_reason(bundle: Bundle, name: str) -> None:
    change, reason = HOSTILE[name]
    path = rewritten(bundle, change)
    with pytest.raises(BundleError, match=reason):
        open_bundle(path)


def test_a_leaf_that_its_line_names_outside_the_table_is_refused(tmp_path: Path) -> None:
    bundle = import_model(FAMILIES["RandomForestClassifier, pure"](), tmp_path / "m.bundle")
    assert bundle.forest.codes.size == 0
    path = rewritten(bundle, lambda a, _: lines_of(a)["leaf"].fill(0b10))
    with pytest.raises(BundleError, match="leaf"):
        open_bundle(path)


def test_a_set_of_categories_outside_is_refused(tmp_path: Path) -> None:
    booster = train_booster(BOOSTERS["binary"], missing=False, categorical=True)
    bundle = import_model(booster, tmp_path / "m.bundle")
    assert bundle.categories.size
    path = rewritten(bundle, lambda a, _: a["categories"].fill(2**32 - 1))
    with pytest.raises(BundleError, match="categories"):
        open_bundle(path)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (2**63).to_bytes(8, "little"),
        (10).to_bytes(8, "little") + b"not json!!",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "m.bundle"
    path.write_bytes(header + bytes(64))
    with pytest.raises(BundleError):
        open_bundle(path)


def test_overlapping_arrays_are_refused(bundle: Bundle) -> None:
    data = bundle.path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["roots"]["data_offsets"] = [
        0,
        header["roots"]["data_offsets"][1] - header["roots"]["data_offsets"][0],
    ]
    text = json.dumps(header).encode().ljust(length)[:length]
    bundle.path.write_bytes(data[:8] + text + data[8 + length :])
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


def test_a_changed_threshold_is_found_by_the_golden_vectors(bundle: Bundle) -> None:
    def change(arrays: dict[str, Any], _: dict[str, Any]) -> None:
        lines_of(arrays)["threshold"][arrays["roots"], 0] += 0.5

    forest = Forest(open_bundle(rewritten(bundle, change)))
    with pytest.raises(GoldenMismatchError, match="golden vector"):
        forest.check_golden()


FLIP = """
import sys, random
from models.bundle import open_bundle
from models.errors import BundleError, GoldenMismatchError
from models.forest import Forest
path, original = sys.argv[1], open(sys.argv[1], "rb").read()
dice, outcomes = random.Random(0), {"refused": 0, "golden": 0, "harmless": 0}
for _ in range(1000):
    data = bytearray(original)
    for _ in range(dice.choice((1, 1, 4))):
        data[dice.randrange(len(data) if dice.random() < .7 else 3000)] ^= 1 << dice.randrange(8)
    # In place would change what is mapped; each has a file of its own.
    name = path + ".flipped"
    open(name, "wb").write(data)
    try:
        Forest(open_bundle(name)).check_golden()
        outcomes["harmless"] += 1
    except BundleError:
        outcomes["refused"] += 1
    except GoldenMismatchError:
        outcomes["golden"] += 1
    import os; os.unlink(name)
print(outcomes["refused"], outcomes["golden"])
"""


def run_apart(script: str, *arguments: object) -> list[int]:
    """Run a script in a process of its own: a wild read would end it with a signal."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


FLIPPED = (
    "RandomForestClassifier, pure",
    "RandomForestClassifier, missing",
    "LightGBM multiclass, categorical",
    "HistGradientBoostingClassifier, odd categories",
    "XGBClassifier, another missing value",
)


@pytest.mark.parametrize("name", FLIPPED)
def test_flipped_bits_never_crash_a_process(name: str, tmp_path: Path) -> None:
    bundle = import_model(FAMILIES[name](), tmp_path / "m.bundle")
    refused, golden = run_apart(FLIP, bundle.path)
    assert refused > 50
    assert golden > 0


RANDOM = """
import sys, json, random
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save
from models.bundle import open_bundle
from models.errors import BundleError
from models.forest import Forest
path = Path(sys.argv[1])
original = load_file(path)
meta = json.loads(open_bundle(path).meta.model_dump_json())
dice, accepted = np.random.default_rng(0), 0
for _ in range(800):
    arrays = dict(original)
    for name in dice.choice(sorted(original), dice.integers(1, 4)):
        array = arrays[name]
        junk = np.frombuffer(dice.bytes(array.nbytes), array.dtype).reshape(array.shape)
        # Some arrays whole, some in a few places, some with small numbers, which are likelier to pass.
        small = (junk.astype(np.float64) % 7).astype(array.dtype) if array.dtype.kind != "f" else junk
        mask = dice.random(array.shape) < dice.choice((0.001, 0.05, 1))
        other = small if dice.random() < .5 else junk
        arrays[name] = np.where(mask, other, array).astype(array.dtype)
    metadata = {"scorewire": json.dumps(meta), "pad": ""}
    header = 8 + int.from_bytes(save(arrays, metadata)[:8], "little")
    metadata["pad"] = " " * (-header % 64)
    file = path.with_name("random.bundle")
    file.unlink(missing_ok=True)
    file.write_bytes(save(arrays, metadata))
    try:
        forest = Forest(open_bundle(file))
    except BundleError:
        continue
    accepted += 1
    with np.errstate(all="ignore"):
        x = dice.standard_normal((200, len(meta["feature_names"])))
        x[dice.random(x.shape) < .1] = np.nan if meta["allows_missing"] else 0
        forest.predict(x)
        forest.raw(x.astype(np.float32))
print(accepted)
"""


@pytest.mark.parametrize("name", FLIPPED)
@pytest.mark.filterwarnings("ignore")
def test_bundles_of_random_arrays_never_crash_a_process(name: str, tmp_path: Path) -> None:
    bundle = import_model(FAMILIES[name](), tmp_path / "m.bundle")
    (accepted,) = run_apart(RANDOM, bundle.path)
    assert 0 < accepted < 800  # some pass the checks, and score whatever they say, without a wild read


def test_the_same_model_gives_the_same_arrays(forest_model: Any, bundle: Bundle, tmp_path: Path) -> None:
    again = import_model(forest_model, tmp_path / "again.bundle")
    first, second = load_file(bundle.path), load_file(again.path)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
