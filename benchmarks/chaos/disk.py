"""Small disks that can be filled: a tmpfs each, where this user may mount one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Megabytes of a disk: enough for the artifacts of the bench.
SIZE_MB = 64


class SmallDisk:
    """A directory with a limit of its own, if it could be had.

    Args:
        directory: where it is mounted; made if it is missing.

    Attributes:
        why_not: why it is a plain directory, which must not be filled; "" where it is a disk.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "scorewire-chaos", directory],
            capture_output=True,
            text=True,
            check=False,
        )
        self.why_not = "" if done.returncode == 0 else f"no tmpfs may be mounted: {done.stderr.strip()}"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Fill it meanwhile."""
        ballast = self.directory / "ballast"
        try:
            # Without a buffer, or what is left in it fails once more when the file is closed.
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(65536))
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if not self.why_not:
            subprocess.run(["umount", "-l", self.directory], check=False)
            self.why_not = "closed"
