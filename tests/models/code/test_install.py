"""Installations: keyed by digest, whole or not there, made anew when damaged, and many at once."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from models.code.install import check_libraries, install, is_whole
from models.code.package import CodePackage, open_package
from models.errors import InstallError, LibraryError
from tests.models.code.wheels import build

DIGEST = "ab" * 32


@pytest.fixture
def package(tmp_path: Path) -> CodePackage:
    return open_package(build(tmp_path))


def test_it_is_installed_once_and_left_as_it_is(tmp_path: Path, package: CodePackage) -> None:
    place = install(package, DIGEST, tmp_path / "code")
    assert place == tmp_path / "code" / "ab" / DIGEST
    assert (place / "pack" / "__init__.py").stat().st_mode & 0o222 == 0
    before = place.stat().st_ino
    assert install(package, DIGEST, tmp_path / "code").stat().st_ino == before


def corrupt(file: Path) -> None:
    file.chmod(0o644)
    file.write_text("raise SystemExit")


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: corrupt(place / "pack" / "__init__.py"),
        lambda place: corrupt(place / "pack-1.0.dist-info" / "RECORD"),
        lambda place: (place / "pack" / "scorewire.toml").unlink(),
        lambda place: (place / "pack" / "more.py").write_text(""),
        lambda place: (place / "pack" / "link").symlink_to("/etc/passwd"),
        lambda place: place.rename(place.with_name("gone")),
    ],
)
def test_a_damaged_one_is_found_and_made_anew(
    tmp_path: Path, package: CodePackage, damage: Callable[[Path], object]
) -> None:
    place = install(package, DIGEST, tmp_path / "code")
    damage(place)
    assert not is_whole(package, place)
    assert is_whole(package, install(package, DIGEST, tmp_path / "code"))
    assert not list(place.parent.glob(f".{DIGEST}*"))


def test_many_processes_may_install_at_once(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_install_once, args=(wheel, tmp_path / "code")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert is_whole(open_package(wheel), tmp_path / "code" / "ab" / DIGEST)


def _install_once(wheel: Path, directory: Path) -> None:
    package = open_package(wheel)
    for _ in range(20):
        if not is_whole(package, install(package, DIGEST, directory)):
            os._exit(1)


def test_what_a_killed_installer_left_is_swept_away(tmp_path: Path, package: CodePackage) -> None:
    pid = os.fork()
    if pid == 0:
        # The third file that it writes is its last.
        written = 0
        plain = Path.open

        def open_(self: Path, mode: str = "r", **more: object) -> object:
            nonlocal written
            if mode == "xb":
                written += 1
                if written == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, mode, **more)  # type: ignore[call-overload]

        Path.open = open_  # type: ignore[assignment,method-assign]
        install(package, DIGEST, tmp_path / "code")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    parent = tmp_path / "code" / "ab"
    assert list(parent.glob(f".{DIGEST}-*"))
    assert not (parent / DIGEST).exists()
    assert is_whole(package, install(package, DIGEST, tmp_path / "code"))
    assert not list(parent.glob(f".{DIGEST}-*"))


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path, package: CodePackage) -> None:
    pid = os.fork()
    if pid == 0:
        # No file may grow beyond 16 bytes: the kernel's own word that there is no room.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        try:
            install(package, DIGEST, tmp_path / "code")
        except InstallError as error:
            os._exit(0 if "free space" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not (tmp_path / "code" / "ab" / DIGEST).exists()
    assert is_whole(package, install(package, DIGEST, tmp_path / "code"))


def test_what_it_needs_must_be_here(tmp_path: Path) -> None:
    needs = ("numpy>=2", "no-such-library>1", "numpy<1", 'other; sys_platform == "win32"')
    with pytest.raises(LibraryError, match=r"no-such-library>1 \(here is none\), numpy<1 \(here is 2"):
        check_libraries(open_package(build(tmp_path, requires=needs)))
    check_libraries(open_package(build(tmp_path, requires=("numpy>=2", "msgpack"))))
