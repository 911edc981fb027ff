"""Installs code packages on a host: a directory each, named by the package's sha256, shared by its nodes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

from models.code.package import CodePackage
from models.code.wheel import digest_of
from models.errors import InstallError, LibraryError

_LOCK: Final = ".lock"


def install(package: CodePackage, digest: str, directory: Path) -> Path:
    """Install a code package, unless it is there and whole; return its directory, to be put on sys.path.

    Any number of processes may do so at once: a lock of the package lets one in at a time, and a directory
    appears under its name only when all of it is on the disk. A damaged one is found and made anew; a worker
    that has loaded from it is not disturbed. Other versions are never touched.

    Args:
        package: checked.
        digest: the sha256 of its file, in hex.
        directory: of all installations of this host; made when it is first needed.

    Raises:
        InstallError: the disk is full, or not ours to write; or it damages what is written.
        CodePackageError: the wheel has been changed since it was checked.
    """
    parent = directory / digest[:2]
    target = parent / digest
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / f"{digest}{_LOCK}"):
            _sweep(parent, digest)
            if not is_whole(package, target):
                _put(package, target)
    except OSError as error:
        raise InstallError(
            f"{package.name} {package.version} cannot be installed at {target}: {error}: free space, or name "
            "another cache"
        ) from error
    return target


def is_whole(package: CodePackage, target: Path) -> bool:
    """Say whether a directory holds just the files of a package, each as its RECORD has it."""
    if not target.is_dir() or target.is_symlink():
        return False
    found = {}
    for path in target.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return False
        if path.is_file():
            found[path.relative_to(target).as_posix()] = path
    if set(found) != set(package.wheel.sizes):
        return False
    record = f"{package.wheel.dist_info}/RECORD"
    if found[record].read_bytes() != package.wheel.record:
        return False
    return all(_hash_of(found[name], wanted) == wanted for name, wanted in package.wheel.hashes.items())


def check_libraries(package: CodePackage) -> None:
    """See that what a package needs is installed with this Python. Nodes install no libraries themselves.

    Raises:
        LibraryError: names everything that is missing or of another version.
    """
    wrong = [told for one in package.requires if (told := _missing(one))]
    python = Version(".".join(map(str, sys.version_info[:3])))
    if not package.requires_python.contains(python, prereleases=True):
        wrong.append(f"Python {package.requires_python} (here is {python})")
    if wrong:
        raise LibraryError(
            f"{package.name} {package.version} needs {', '.join(wrong)}: install it on this host, or promote "
            "a package that fits"
        )


def _missing(wanted: Requirement) -> str:
    """Say what is asked and not here; "" if it is here, or asked for by other machines or extras alone."""
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return ""
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted} (here is none)"
    return "" if wanted.specifier.contains(found, prereleases=True) else f"{wanted} (here is {found})"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # The kernel lets go of it when its holder dies, however it dies.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(parent: Path, digest: str) -> None:
    """Take away what a process left that died while it installed: whoever holds the lock is alone."""
    for left in parent.glob(f".{digest}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _put(package: CodePackage, target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = work / "new"
        fresh.mkdir()
        package.wheel.unpack(fresh)
        _sync(fresh)
        if target.is_symlink() or target.exists():
            target.rename(work / "damaged")
        fresh.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not is_whole(package, target):
        raise OSError("what was written is not what RECORD says")


def _sync(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hash_of(path: Path, wanted: str) -> str:
    algorithm = wanted.partition("=")[0]
    with path.open("rb") as file:
        return digest_of(algorithm, hashlib.file_digest(file, algorithm).digest())
