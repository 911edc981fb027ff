"""Builds wheels by hand for the tests, sound ones and others."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from models.code.wheel import digest_of

FEATURES = """
def features(transaction):
    return [transaction["a"] * 2, 1.0]
"""
DECLARED = """
id = "id"
features = ["double", "one"]
[[golden]]
transaction = { id = "g", a = 2 }
vector = [4, 1]
"""


def files_of(
    source: str = FEATURES,
    declared: str = DECLARED,
    *,
    name: str = "pack",
    version: str = "1.0",
    group: str = "scorewire.features",
    target: str = "features",
    requires: tuple[str, ...] = (),
) -> dict[str, bytes]:
    """Return the files of a sound wheel, RECORD left out."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    texts = {
        f"{name}/__init__.py": dedent(source),
        f"{name}/scorewire.toml": declared,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{group}]\n{name} = {name}:{target}\n",
    }
    return {file: text.encode() for file, text in texts.items()}


def record_of(files: Mapping[str, bytes], record: str) -> bytes:
    lines = [
        f"{name},{digest_of('sha256', hashlib.sha256(data).digest())},{len(data)}"
        for name, data in files.items()
    ]
    return "\n".join([*lines, f"{record},,", ""]).encode()


def write(path: Path, files: Mapping[str, bytes], record: bytes | None = None) -> Path:
    """Write a wheel; its RECORD is made unless it is given."""
    (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    whole = {**files, f"{info}/RECORD": record or record_of(files, f"{info}/RECORD")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in whole.items():
            # A date of its own, so that the same files are the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


def build(directory: Path, source: str = FEATURES, declared: str = DECLARED, **more: Any) -> Path:
    """Build a sound wheel under its proper name."""
    name, version = more.get("name", "pack"), more.get("version", "1.0")
    directory.mkdir(parents=True, exist_ok=True)
    return write(directory / f"{name}-{version}-py3-none-any.whl", files_of(source, declared, **more))


def features_declared(transaction: Mapping[str, Any], vector: list[float], names: list[str]) -> str:
    """Return the declaration of a package of features with one golden transaction."""
    golden = ", ".join(f"{key} = {json.dumps(value)}" for key, value in transaction.items())
    return (
        f'id = "id"\nfeatures = {json.dumps(names)}\n[[golden]]\n'
        f"transaction = {{ {golden} }}\nvector = {json.dumps(vector)}\n"
    )
