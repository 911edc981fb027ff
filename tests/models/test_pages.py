"""How files are mapped: one copy for all processes of a host, in huge pages where the system grants them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.pages import Pages, huge_bytes, map_file

ROOT = Path(__file__).parents[2]
SIZE = 24 << 20
MEMORY = Path("/dev/shm")
POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how memory is mapped")


@pytest.fixture(params=["disk", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file of some huge pages and a bit more, on a disk or in a memory file system."""
    with tempfile.TemporaryDirectory(dir=MEMORY if request.param == "memory" else tmp_path) as directory:
        path = Path(directory) / "file"
        path.write_bytes(np.random.default_rng(0).bytes(SIZE + 12_345))
        yield path


def mapped(path: Path, pages: Pages) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    with path.open("rb") as opened:
        return map_file(opened.fileno(), path.stat().st_size, pages)


@pytest.mark.parametrize("pages", ["shared", "huge"])
def test_a_mapping_is_the_file_and_cannot_be_written(file: Path, pages: Pages) -> None:
    found = mapped(file, pages)
    assert found.tobytes() == file.read_bytes()
    assert found.ctypes.data % 64 == 0
    assert not found.flags.writeable
    file.unlink()
    assert found[-1] == found[-1:].tobytes()[0]


def test_huge_pages_come_where_they_are_asked_for(file: Path) -> None:
    found = mapped(file, "huge")
    granted = POLICY.is_file() and "[never]" not in POLICY.read_text()
    if not granted:
        pytest.skip("this system grants no huge pages")
    # Not all of it where memory is in pieces; with none, nobody asked.
    assert huge_bytes(found) >= SIZE // 2


SHARE = """
import sys
from pathlib import Path
from models.pages import map_file
path, pages = Path(sys.argv[1]), sys.argv[2]
with path.open("rb") as file:
    mapped = map_file(file.fileno(), path.stat().st_size, pages)
total = int(mapped[::64].sum())  # read it all
print("mapped", flush=True)
sys.stdin.readline()  # until the other one has read it too
inside, found = False, {}
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, *rest = line.split()
    if not name.endswith(":"):
        low, _, high = name.partition("-")
        inside = int(low, 16) <= mapped.ctypes.data < int(high, 16)
    elif inside:
        found[name] = rest[0]
print(found["Rss:"], found["Pss:"], flush=True)
sys.stdin.readline()  # until the other one has measured
"""


@pytest.mark.parametrize("pages", ["shared", "huge"])
def test_processes_of_a_host_share_one_copy(file: Path, pages: Pages) -> None:
    if pages == "huge" and not file.is_relative_to(MEMORY):
        pytest.skip("on a disk, huge pages may need a copy for each process")
    command = [sys.executable, "-c", SHARE, str(file), pages]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        try:
            for process in processes:
                assert process.stdout
                assert process.stdout.readline() == "mapped\n"
            for process in processes:
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                resident, proportional = map(int, process.stdout.readline().split())
                assert resident >= SIZE >> 10
                assert proportional <= 0.3 * resident
        finally:
            for process in processes:
                process.kill()
