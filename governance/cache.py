"""The cache of artifacts on a host: content-addressed, shared by its nodes, verified whenever it is read."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from governance.artifacts import chunks
from governance.database import Connection
from governance.errors import CacheError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactCache:
    """Files named by their sha256. Any number of processes may use one directory at once.

    Args:
        directory: made when it is first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def fetch(self, connection: Connection, digest: str) -> Path:
        """Return the verified file of an artifact, from the database if it is not here.

        A file that fails its check is taken away and fetched again.

        Raises:
            CacheError: the disk is full or not ours to write, or the database's copy is damaged too.
            UnknownArtifactError: it is not registered.
            psycopg.OperationalError: the database is away and the file is not here.
        """
        if not _DIGEST.fullmatch(digest):
            raise CacheError(f"{digest!r} is no sha256 in hex")
        path = self._directory / digest[:2] / digest
        try:
            if path.exists():
                if _sha256(path) == digest:
                    return path
                path.unlink(missing_ok=True)
            self._download(connection, digest, path)
        except OSError as error:
            raise CacheError(f"{path} cannot be kept: {error}: free space, or name another cache") from error
        return path

    def _download(self, connection: Connection, digest: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = hashlib.sha256()
        # A file of its own for each process; the last to finish replaces one that is the same.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            try:
                for chunk in chunks(connection, digest):
                    seen.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                _check(seen.hexdigest(), digest)
                temporary.chmod(0o444)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def _check(found: str, digest: str) -> None:
    if found != digest:
        raise CacheError(f"the database's copy of {digest} is damaged: its sha256 is {found}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
