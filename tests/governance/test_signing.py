"""Signatures: a node believes the keys that it was told, and nothing that the database says."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from governance.artifacts import find_any
from governance.database import Connection
from governance.errors import SignatureError
from governance.signing import check_signed, new_key, public_half, read_key, read_public, sign


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    new_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def test_a_key_is_written_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    public = new_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert public_half(read_key(file)) == public
    with pytest.raises(SignatureError, match="exists"):
        new_key(file)
    assert public_half(read_key(file)) == public


def test_an_artifact_that_was_signed_by_a_trusted_key_is_believed(
    connection: Connection, stages: dict[str, str], key_file: Path
) -> None:
    key = read_key(key_file)
    trusted = {"release": read_public(public_half(key))}
    for digest in stages.values():
        with pytest.raises(SignatureError, match=r"trusts release, it was signed by nobody"):
            check_signed(connection, digest, trusted)
        for _ in range(2):
            sign(connection, find_any(connection, digest), key, name="release", by="ann")
        assert check_signed(connection, digest, trusted) == "release"


def test_a_signature_of_another_key_under_the_same_name_is_not_believed(
    connection: Connection, stages: dict[str, str], key_file: Path, tmp_path: Path
) -> None:
    trusted = {"release": read_public(public_half(read_key(key_file)))}
    new_key(tmp_path / "other.pem")
    other = read_key(tmp_path / "other.pem")
    sign(connection, find_any(connection, stages["model"]), other, name="release", by="mallory")
    with pytest.raises(SignatureError, match="signed by release"):
        check_signed(connection, stages["model"], trusted)
    # The right key beside it is found.
    sign(connection, find_any(connection, stages["model"]), read_key(key_file), name="release", by="ann")
    assert check_signed(connection, stages["model"], trusted) == "release"


def test_a_signature_of_another_artifact_does_not_fit(
    connection: Connection, stages: dict[str, str], key_file: Path
) -> None:
    key = read_key(key_file)
    sign(connection, find_any(connection, stages["features"]), key, name="release", by="ann")
    connection.execute(
        "INSERT INTO signature (digest, key, public_key, signature, signed_by)"
        " SELECT %s, key, public_key, signature, 'mallory' FROM signature",
        (stages["model"],),
    )
    with pytest.raises(SignatureError, match="bears no signature"):
        check_signed(connection, stages["model"], {"release": read_public(public_half(key))})


def test_what_is_no_key_is_refused(tmp_path: Path, connection: Connection, stages: dict[str, str]) -> None:
    with pytest.raises(SignatureError, match="keys new"):
        read_key(tmp_path / "none.pem")
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(SignatureError, match="no private key"):
        read_key(tmp_path / "junk.pem")
    curve = generate_private_key(SECP256R1())
    text = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "curve.pem").write_bytes(text)
    with pytest.raises(SignatureError, match="not an Ed25519 key"):
        read_key(tmp_path / "curve.pem")
    for wrong, why in (("not base64!", "base64"), ("AAAA", "3 bytes")):
        with pytest.raises(SignatureError, match=why):
            read_public(wrong)
    new_key(tmp_path / "key.pem")
    artifact = find_any(connection, stages["model"])
    with pytest.raises(SignatureError, match="no name for a key"):
        sign(connection, artifact, read_key(tmp_path / "key.pem"), name="a b", by="ann")
