"""What is no code package is refused by the rule that it breaks, and nothing of it is run."""

from __future__ import annotations

import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.code import wheel as wheel_module
from models.code.package import open_package
from models.errors import CodePackageError
from tests.models.code.wheels import DECLARED, FEATURES, build, files_of, record_of, write

NAME = "pack-1.0-py3-none-any.whl"
INFO = "pack-1.0.dist-info"


def test_a_sound_wheel_says_what_it_is(tmp_path: Path) -> None:
    found = open_package(build(tmp_path, requires=("numpy>=2", 'x; extra == "more"')))
    assert (found.name, found.version, found.stage) == ("pack", "1.0", "features")
    assert (found.module, found.object) == ("pack", "features")
    assert found.interface.features == ("double", "one")  # type: ignore[union-attr]
    assert [one.name for one in found.requires] == ["numpy", "x"]


def test_a_wheel_in_the_cache_has_no_name_and_is_read_all_the_same(tmp_path: Path) -> None:
    assert open_package(build(tmp_path).rename(tmp_path / ("0" * 64))).name == "pack"


def refused(path: Path) -> CodePackageError:
    with pytest.raises(CodePackageError) as caught:
        open_package(path)
    return caught.value


def test_a_refusal_keeps_its_rule_across_processes() -> None:
    error = pickle.loads(pickle.dumps(CodePackageError("path", "is bad")))
    assert (error.rule, str(error)) == ("path", "is bad (path)")


def changed(**files: bytes | None) -> dict[str, bytes]:
    """Return a sound wheel's files with some replaced, added or (None) taken away."""
    return {name: data for name, data in {**files_of(), **files}.items() if data is not None}


@pytest.mark.parametrize(
    ("files", "rule", "says"),
    [
        ({"../evil.py": b""}, "path", "leads out"),
        ({"/etc/evil": b""}, "path", "leads out"),
        ({"pack/../../evil.py": b""}, "path", "leads out"),
        ({"pack//x.py": b""}, "path", "leads out"),
        ({"pack\\x.py": b""}, "path", "no name of a file"),
        ({"c:x.py": b""}, "path", "no name of a file"),
        ({"pack/\x07.py": b""}, "path", "no name of a file"),
        ({"pack/A.py": b"", "pack/a.py": b""}, "path", "twice"),
        ({"pack/a": b"", "pack/a/b.py": b""}, "path", "a file and a folder"),
        ({"pack/fast.so": b""}, "native", "fast.so"),
        ({"pack/fast.cpython-311.PYD": b""}, "native", "PYD"),
        ({"evil.pth": b"import os"}, "pth", "evil.pth"),
        ({"pack/__init__.pyc": b""}, "compiled", "__init__.pyc"),
        ({"pack-1.0.data/scripts/x": b""}, "data", "elsewhere"),
        ({"other-1.0.dist-info/METADATA": b""}, "dist_info", "has 2"),
        ({f"{INFO}/WHEEL": None}, "missing", "WHEEL"),
        ({f"{INFO}/METADATA": None}, "missing", "METADATA"),
        ({f"{INFO}/WHEEL": b"Wheel-Version: 2.0\n"}, "tags", "2.0"),
        ({f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n"}, "tags", "Purelib"),
        (
            {f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp311-cp311-linux_x86_64\n"},
            "tags",
            "linux",
        ),
        ({f"{INFO}/METADATA": b"Name: other\nVersion: 1.0\n"}, "metadata", "other"),
        ({f"{INFO}/METADATA": b"Name: pack\nVersion: one\n"}, "metadata", "names no package"),
        (
            {f"{INFO}/METADATA": b"Name: pack\nVersion: 1.0\nRequires-Dist: !\n"},
            "requires",
            "nobody can read",
        ),
        (
            {f"{INFO}/METADATA": b"Name: pack\nVersion: 1.0\nRequires-Dist: x @ http://h/x.whl\n"},
            "requires",
            "is an address",
        ),
        ({f"{INFO}/entry_points.txt": None}, "entry_point", "no entry point"),
        ({f"{INFO}/entry_points.txt": b"[console_scripts]\nx = pack:x\n"}, "entry_point", "has none"),
        ({f"{INFO}/entry_points.txt": b"not ini"}, "entry_point", "cannot be read"),
        ({f"{INFO}/entry_points.txt": b"[scorewire.features]\nx = pack\n"}, "entry_point", "module:object"),
        (
            {f"{INFO}/entry_points.txt": b"[scorewire.features]\nx = pock:x\n"},
            "entry_point",
            "no module pock",
        ),
        (
            {f"{INFO}/entry_points.txt": b"[scorewire.features]\nx = a:b\n[scorewire.model]\ny = pack:y\n"},
            "entry_point",
            "scorewire.model: pack:y",
        ),
        ({"json/__init__.py": b""}, "shadows", "json"),
        ({"numpy.py": b""}, "shadows", "numpy"),
        ({"pack/scorewire.toml": None}, "declaration", "has no pack/scorewire.toml"),
        ({"pack/scorewire.toml": b"= nothing"}, "declaration", "scorewire.toml"),
        ({"pack/scorewire.toml": b"features = []\n"}, "declaration", "golden"),
        ({"pack/scorewire.toml": (DECLARED + "colour = 1").encode()}, "declaration", "colour"),
        ({"pack/scorewire.toml": DECLARED.replace("[4, 1]", "[4]").encode()}, "declaration", "has 1 values"),
        (
            {"pack/scorewire.toml": DECLARED.replace("a = 2", "a = 1979-05-27").encode()},
            "declaration",
            "date",
        ),
    ],
)
def test_a_wheel_at_fault_is_refused_by_its_rule(
    tmp_path: Path, files: dict[str, bytes | None], rule: str, says: str
) -> None:
    if rule == "dist_info":
        path = tmp_path / NAME
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in changed(**files).items():
                archive.writestr(name, data)
    else:
        path = write(tmp_path / NAME, changed(**files))
    error = refused(path)
    assert error.rule == rule, error
    assert says in str(error)


def test_a_wheel_under_another_name_is_refused(tmp_path: Path) -> None:
    for name in ("pack-2.0-py3-none-any.whl", "pock-1.0-py3-none-any.whl", "pack.whl"):
        assert refused(write(tmp_path / name, files_of())).rule == "filename"


def lines_of_record(change: Callable[[list[str]], list[str]]) -> bytes:
    files = files_of()
    return "\n".join(change(record_of(files, f"{INFO}/RECORD").decode().splitlines())).encode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[1:], "does not list"),
        (lambda lines: [*lines, "pack/more.py,sha256=x,1"], "not there once"),
        (lambda lines: [*lines, lines[0]], "not there once"),
        (lambda lines: [lines[0][:-1] + "9", *lines[1:]], "not what RECORD says"),
        (lambda lines: ["pack/__init__.py,sha256=AAAA,", *lines[1:]], "not what RECORD says"),
        (lambda lines: ["pack/__init__.py,,", *lines[1:]], "not what RECORD says"),
        (lambda lines: ["pack/__init__.py,md5=AAAA,", *lines[1:]], "not what RECORD says"),
        (lambda lines: ["one,two", *lines], "a path, a hash and a size"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[..., list[str]], says: str
) -> None:
    error = refused(write(tmp_path / NAME, files_of(), lines_of_record(change)))
    assert error.rule == "record"
    assert says in str(error)


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, files_of())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("pack/link.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert refused(path).rule == "path"


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**files_of(), "pack/zeros.bin": bytes(3 << 20)}
    path = write(tmp_path / NAME, files)
    assert path.stat().st_size < 10_000
    open_package(path)
    monkeypatch.setattr(wheel_module, "MAX_UNPACKED_BYTES", 1 << 20)
    assert refused(path).rule == "size"
    # It says that it is small: the archive's word is not believed.
    data = path.read_bytes().replace((3 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    assert refused(path).rule in ("size", "zip")
    monkeypatch.setattr(wheel_module, "MAX_WHEEL_BYTES", 100)
    assert refused(path).rule == "size"


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no zip")
    assert refused(tmp_path / NAME).rule == "zip"
    assert refused(tmp_path / "none.whl").rule == "zip"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_wheel_is_a_refusal_or_says_the_same(tmp_path: Path, data: st.DataObject) -> None:
    whole = build(tmp_path).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = data.draw(st.sampled_from([whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]]))
    path = tmp_path / "damaged"
    path.write_bytes(broken)
    try:
        found = open_package(path)
    except CodePackageError:
        return
    # What was hit is a date, or what a reader of zips does not look at.
    assert found.wheel.read("pack/__init__.py").decode() == FEATURES
