"""Artifacts and their cache on a host."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from governance.artifacts import CHUNK_BYTES, chunks, find, kind_of, register
from governance.cache import ArtifactCache
from governance.database import Connection, connect
from governance.errors import CacheError, InvalidArtifactError, UnknownArtifactError
from governance.releases import write_release
from tests.governance.conftest import SPEC
from tests.models.code.wheels import build

ROOT = Path(__file__).parents[2]


def large_spec(path: Path) -> Path:
    """A valid spec of several chunks."""
    path.write_text(SPEC.format(name="large") + "# " + "x" * (2 * CHUNK_BYTES + 17))
    return path


def test_registering_twice_keeps_the_first_and_changes_nothing(
    connection: Connection, bundle_file: Path
) -> None:
    first = register(connection, bundle_file, kind="bundle", name="m", by="ann", notes={"run": "7"})
    again = register(connection, bundle_file, kind="bundle", name="other", by="bob")
    assert again == first
    assert first.digest == hashlib.sha256(bundle_file.read_bytes()).hexdigest()
    assert first.provenance["library"] == "scikit-learn"
    assert first.provenance["notes"] == {"run": "7"}


def test_an_artifact_comes_back_byte_for_byte(connection: Connection, tmp_path: Path) -> None:
    path = large_spec(tmp_path / "s.toml")
    digest = register(connection, path, kind="feature_spec", name="s", by="ann").digest
    parts = list(chunks(connection, digest))
    assert [len(part) for part in parts[:-1]] == [CHUNK_BYTES] * (len(parts) - 1)
    assert b"".join(parts) == path.read_bytes()


def test_a_file_that_is_not_what_it_is_registered_as_is_refused(
    connection: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(b"junk" * 100)
    for kind in ("bundle", "feature_spec"):
        with pytest.raises(InvalidArtifactError, match=r"x\.bundle"):
            register(connection, path, kind=kind, name="x", by="ann")
    row = connection.execute("SELECT count(*) AS n FROM artifact").fetchone()
    assert row == {"n": 0}


def test_an_artifact_is_found_by_digest_its_beginning_or_its_newest_name(
    connection: Connection, tmp_path: Path
) -> None:
    digests = []
    for version in range(2):
        path = tmp_path / f"{version}.toml"
        path.write_text(SPEC.format(name=f"v{version}"))
        digests.append(register(connection, path, kind="feature_spec", name="spec", by="ann").digest)
    assert find(connection, digests[0], "feature_spec").digest == digests[0]
    assert find(connection, digests[0][:10], "feature_spec").digest == digests[0]
    assert find(connection, "spec", "feature_spec").digest == digests[1]
    for wanted in (digests[0][:5], "nobody", "' OR true --", "%"):
        with pytest.raises(UnknownArtifactError):
            find(connection, wanted, "feature_spec")
    with pytest.raises(UnknownArtifactError):
        find(connection, digests[0], "bundle")


def test_the_cache_fetches_once_and_verifies_each_read(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    digest = register(
        connection, large_spec(tmp_path / "s.toml"), kind="feature_spec", name="s", by="ann"
    ).digest
    cache = ArtifactCache(tmp_path / "cache")
    path = cache.fetch(connection, digest)
    assert path.read_bytes() == (tmp_path / "s.toml").read_bytes()
    # Without the database it is still there
    closed = connect(dsn)
    closed.close()
    assert cache.fetch(closed, digest) == path
    # And a flipped bit is noticed, and mended from the database
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(psycopg.OperationalError):
        cache.fetch(closed, digest)
    assert cache.fetch(connection, digest).read_bytes() == (tmp_path / "s.toml").read_bytes()


def test_damage_in_the_database_is_noticed_and_nothing_is_kept(
    connection: Connection, tmp_path: Path
) -> None:
    digest = register(
        connection, large_spec(tmp_path / "s.toml"), kind="feature_spec", name="s", by="ann"
    ).digest
    connection.execute("ALTER TABLE artifact_chunk DISABLE TRIGGER artifact_chunk_is_immutable")
    connection.execute("UPDATE artifact_chunk SET bytes = set_byte(bytes, 5, 0) WHERE number = 1")
    with pytest.raises(CacheError, match="damaged"):
        ArtifactCache(tmp_path / "cache").fetch(connection, digest)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_names_that_are_no_digests_reach_neither_disk_nor_database(
    connection: Connection, tmp_path: Path
) -> None:
    for name in ("../../etc/passwd", "", "A" * 64, "0" * 63):
        with pytest.raises(CacheError):
            ArtifactCache(tmp_path).fetch(connection, name)


FETCH = """
import resource, sys
from pathlib import Path
from governance.cache import ArtifactCache
from governance.database import connect
from governance.errors import CacheError
dsn, digest, directory, limit = sys.argv[1:]
if int(limit):
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(ArtifactCache(Path(directory)).fetch(connect(dsn), digest))
except CacheError as error:
    sys.exit(f"CacheError: {error}")
"""


def fetch_elsewhere(dsn: str, digest: str, directory: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, dsn, digest, str(directory), str(limit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_may_fetch_the_same_artifact_at_once(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    digest = register(
        connection, large_spec(tmp_path / "s.toml"), kind="feature_spec", name="s", by="ann"
    ).digest
    processes = [fetch_elsewhere(dsn, digest, tmp_path / "cache") for _ in range(3)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == (tmp_path / "s.toml").read_bytes()
    assert len([file for file in (tmp_path / "cache").rglob("*") if file.is_file()]) == 1


def test_a_disk_without_room_is_named_and_nothing_half_is_left(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    digest = register(
        connection, large_spec(tmp_path / "s.toml"), kind="feature_spec", name="s", by="ann"
    ).digest
    process = fetch_elsewhere(dsn, digest, tmp_path / "cache", limit=CHUNK_BYTES)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "CacheError" in said
    assert os.strerror(27) in said  # EFBIG, as a full disk would say ENOSPC
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_code_package_is_registered_unread_by_python_with_what_it_declares(
    connection: Connection, tmp_path: Path
) -> None:
    marker = tmp_path / "was-run"
    source = f"open({str(marker)!r}, 'w')\n"
    wheel = build(tmp_path, source)
    assert kind_of(wheel) == "code_package"
    found = register(connection, wheel, kind="code_package", name="code", by="ann")
    assert not marker.exists()
    assert found.provenance["stage"] == "features"
    assert found.provenance["feature_names"] == ["double", "one"]
    assert (found.provenance["package"], found.provenance["version"]) == ("pack", "1.0")
    wheel.write_bytes(b"no zip")
    with pytest.raises(InvalidArtifactError, match="no wheel"):
        register(connection, wheel, kind="code_package", name="code", by="ann")


def test_the_database_lets_no_stage_hold_what_cannot_stand_for_it(
    connection: Connection, tmp_path: Path
) -> None:
    digest = register(connection, build(tmp_path), kind="code_package", name="code", by="ann").digest
    connection.execute("INSERT INTO environment (name) VALUES ('qa')")
    write_release(connection, "qa", {"champion": {"features": digest}}, "ann", "")
    for stage in ("model", "decision"):
        with pytest.raises(psycopg.errors.RaiseException, match=f"stage {stage} cannot be a code_package"):
            write_release(connection, "qa", {"champion": {stage: digest}}, "ann", "")
