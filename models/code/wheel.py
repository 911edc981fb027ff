"""Reads a wheel as data: every file checked against RECORD, every name harmless, and nothing of it run.

The format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from models.errors import CodePackageError

#: What a wheel may have: bytes as a file, bytes unpacked, files.
MAX_WHEEL_BYTES: Final = 64 << 20
MAX_UNPACKED_BYTES: Final = 256 << 20
MAX_FILES: Final = 10_000

_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 0x1
_CHUNK: Final = 1 << 16
_HASHES: Final = ("sha256", "sha384", "sha512")
#: What needs a machine of its kind, or is run by whoever only starts Python, or cannot be read by a reviewer.
_REFUSED_ENDINGS: Final = {
    **dict.fromkeys((".so", ".pyd", ".dylib", ".dll", ".a", ".o"), "native"),
    ".pth": "pth",
    **dict.fromkeys((".pyc", ".pyo"), "compiled"),
}
#: What zipfile raises about archives that are none, or damaged.
_BROKEN: Final = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError)
_SIGNATURES: Final = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Wheel:
    """A wheel whose every file was read once and is what its RECORD says.

    Attributes:
        path: the file.
        dist_info: its one `*.dist-info` folder.
        hashes: each file to the hash that RECORD has for it (`sha256=...`); RECORD itself has none.
        sizes: each file to its bytes.
        record: RECORD itself.
    """

    path: Path
    dist_info: str
    hashes: Mapping[str, str]
    sizes: Mapping[str, int]
    record: bytes

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            CodePackageError: rule `missing`: it is not there; as open_wheel otherwise.
        """
        if name not in self.sizes:
            raise CodePackageError("missing", f"it has no {name}")
        with _opened(self.path) as archive:
            return b"".join(_chunks(archive, archive.getinfo(name), MAX_UNPACKED_BYTES))

    def unpack(self, directory: Path) -> None:
        """Write every file below a directory, which exists and is empty.

        Raises:
            CodePackageError: as open_wheel.
            OSError: the disk is full, or not ours to write.
        """
        with _opened(self.path) as archive:
            for name in self.sizes:
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    for chunk in _chunks(archive, archive.getinfo(name), MAX_UNPACKED_BYTES):
                        file.write(chunk)
                target.chmod(0o444)


def open_wheel(path: Path) -> Wheel:
    """Read a wheel whole, and check it.

    Raises:
        CodePackageError: names the rule: `size`, `zip`, `path`, `native`, `pth`, `compiled`, `data`,
            `dist_info`, `record`.
    """
    _check_size(path)
    with _opened(path) as archive:
        infos = archive.infolist()
        _check_names(infos)
        files = [info for info in infos if not info.is_dir()]
        dist_info = _dist_info(files)
        record = f"{dist_info}/RECORD"
        found: dict[str, tuple[dict[str, str], int]] = {}
        left = MAX_UNPACKED_BYTES
        for info in files:
            digests, size = _digests(archive, info, left)
            left -= size
            found[info.filename] = (digests, size)
        if record not in found:
            raise CodePackageError("record", f"it has no {record}")
        text = b"".join(_chunks(archive, archive.getinfo(record), MAX_UNPACKED_BYTES))
    hashes = _check_record(text, found, dist_info)
    return Wheel(path, dist_info, hashes, {name: size for name, (_, size) in found.items()}, text)


def digest_of(algorithm: str, digest: bytes) -> str:
    """Write a hash as RECORD does."""
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CodePackageError("zip", f"it cannot be read: {error}") from error
    if size > MAX_WHEEL_BYTES:
        raise CodePackageError("size", f"it has {size} bytes, a wheel may have {MAX_WHEEL_BYTES}")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        raise CodePackageError("zip", f"it is no wheel: {error}") from error


def _check_names(infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_FILES:
        raise CodePackageError("size", f"it has {len(infos)} files, a wheel may have {MAX_FILES}")
    total = sum(info.file_size for info in infos)
    if total > MAX_UNPACKED_BYTES:
        raise CodePackageError(
            "size", f"unpacked it has {total} bytes, a wheel may have {MAX_UNPACKED_BYTES}"
        )
    # Case is folded: on some disks A and a are one file.
    seen: set[str] = set()
    folders: set[str] = set()
    for info in infos:
        _check_name(info)
        name = info.filename.rstrip("/").casefold()
        if name in seen and not info.is_dir():
            raise CodePackageError("path", f"{info.filename!r} is there twice")
        if not info.is_dir():
            seen.add(name)
        folders.update(map(str, PurePosixPath(name).parents))
    if seen & folders:
        raise CodePackageError("path", f"{min(seen & folders)!r} is a file and a folder")


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = name.rstrip("/").split("/")
    # zipfile cuts a name at a NUL; what it was called before is in orig_filename.
    if info.orig_filename != name or not name.isprintable() or "\\" in name or ":" in name:
        raise CodePackageError("path", f"{info.orig_filename!r} is no name of a file in a wheel")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise CodePackageError("path", f"{name!r} leads out of the wheel, or is no plain path")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CodePackageError("path", f"{name!r} is a link or a device, not a file")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise CodePackageError("zip", f"{name!r} is encrypted, or packed in a way that wheels are not")
    rule = _REFUSED_ENDINGS.get(PurePosixPath(name).suffix.lower())
    if rule:
        raise CodePackageError(rule, f"{name!r} does not belong into a pure-Python wheel of sources")
    if parts[0].endswith(".data"):
        raise CodePackageError(
            "data", f"{name!r} would be installed elsewhere, and a code package stays in one place"
        )


def _dist_info(files: list[zipfile.ZipInfo]) -> str:
    found = {info.filename.split("/")[0] for info in files if "/" in info.filename}
    named = sorted(name for name in found if name.endswith(".dist-info"))
    if len(named) != 1:
        raise CodePackageError("dist_info", f"a wheel has one .dist-info folder, this has {len(named)}")
    return named[0]


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """Yield a file's bytes; whatever the archive says of its size, no more than `limit`."""
    left = limit
    try:
        with archive.open(info) as file:
            while left >= 0 and (chunk := file.read(min(_CHUNK, left + 1))):
                left -= len(chunk)
                if left >= 0:
                    yield chunk
    except (*_BROKEN, zlib.error, EOFError) as error:
        raise CodePackageError("zip", f"{info.filename!r} is damaged: {error}") from error
    if left < 0:
        raise CodePackageError("size", f"unpacked it has more than {MAX_UNPACKED_BYTES} bytes")


def _digests(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> tuple[dict[str, str], int]:
    hashes = {name: hashlib.new(name) for name in _HASHES}
    size = 0
    for chunk in _chunks(archive, info, limit):
        size += len(chunk)
        for one in hashes.values():
            one.update(chunk)
    return {name: digest_of(name, one.digest()) for name, one in hashes.items()}, size


def _check_record(
    text: bytes, found: Mapping[str, tuple[Mapping[str, str], int]], dist_info: str
) -> dict[str, str]:
    """Compare every file with RECORD; return each file's hash as it stands there."""
    unlisted = {f"{dist_info}/{name}" for name in ("RECORD", *_SIGNATURES)}
    told: dict[str, str] = {}
    try:
        rows = list(csv.reader(io.StringIO(text.decode("utf-8"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CodePackageError("record", f"RECORD cannot be read: {error}") from error
    for row in rows:
        if len(row) != 3:  # noqa: PLR2004 - path, hash, size
            raise CodePackageError(
                "record", f"a line of RECORD has a path, a hash and a size, not {row!r}"[:300]
            )
        name, wanted, size = row
        if name in told or name not in found:
            raise CodePackageError("record", f"RECORD lists {name!r}, which is not there once")
        told[name] = wanted
        if name in unlisted:
            continue
        digests, bytes_ = found[name]
        if wanted not in digests.values() or size not in ("", str(bytes_)):
            raise CodePackageError(
                "record", f"{name!r} is not what RECORD says: it is {digests['sha256']}, {bytes_} bytes"
            )
    missing = sorted(set(found) - set(told) - unlisted)
    if missing:
        raise CodePackageError("record", f"RECORD does not list {missing[0]!r}")
    return {name: wanted for name, wanted in told.items() if wanted and name not in unlisted}
