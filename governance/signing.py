"""Signatures: whoever holds a key answers for an artifact; each node is told which keys it trusts.

Ed25519 (RFC 8032) over a short text that names the artifact's kind and sha256. The database only keeps the
signatures: whoever may write to it can add one, and none that a node would believe.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from governance.artifacts import Artifact
from governance.audit import acting
from governance.database import Connection
from governance.errors import SignatureError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._@-]{0,62}")
_KEY_BYTES = 32


def new_key(file: Path) -> str:
    """Make a key and write its private half, readable by its owner alone.

    Returns:
        the public half, in base64: what nodes are told to trust.

    Raises:
        SignatureError: the file is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(text)
    except OSError as error:
        raise SignatureError(f"the key cannot be written: {error}") from error
    return public_half(key)


def read_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        SignatureError: it cannot be read, or is no Ed25519 key in PEM without a password.
    """
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SignatureError(f"{file} is no private key: {error}: `run.py keys new` makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{file} is a {type(key).__name__}, not an Ed25519 key")
    return key


def public_half(key: Ed25519PrivateKey) -> str:
    """Return a key's public half in base64."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def read_public(text: str) -> bytes:
    """Read a public key from base64.

    Raises:
        SignatureError: it is none.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"{text!r} is no public key in base64") from error
    if len(found) != _KEY_BYTES:
        raise SignatureError(f"{text!r} has {len(found)} bytes, an Ed25519 key has {_KEY_BYTES}")
    return found


def sign(connection: Connection, artifact: Artifact, key: Ed25519PrivateKey, *, name: str, by: str) -> None:
    """Sign an artifact by a named key; once is enough.

    Raises:
        SignatureError: the name is none.
    """
    if not _NAME.fullmatch(name):
        raise SignatureError(f"{name!r} is no name for a key: letters, digits, and any of . _ @ -")
    signature = key.sign(_text(artifact.kind, artifact.digest))
    with acting(connection, by):
        connection.execute(
            "INSERT INTO signature (digest, key, public_key, signature, signed_by)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (artifact.digest, name, read_public(public_half(key)), signature, by),
        )


def check_signed(connection: Connection, digest: str, trusted: Mapping[str, bytes]) -> str:
    """See that an artifact is signed by one of these keys; return the name of the key.

    Args:
        connection: to the database, which is not believed.
        digest: the artifact, whose bytes were found to have this sha256.
        trusted: name to public key.

    Raises:
        SignatureError: no signature of a trusted key fits; names the artifact and the keys.
    """
    rows = connection.execute(
        "SELECT s.key, s.signature, a.kind FROM signature s JOIN artifact a USING (digest)"
        " WHERE s.digest = %s ORDER BY s.signed_at",
        (digest,),
    ).fetchall()
    for row in rows:
        public = trusted.get(row["key"])
        if public is not None and _fits(public, bytes(row["signature"]), _text(row["kind"], digest)):
            return str(row["key"])
    signed = ", ".join(sorted({row["key"] for row in rows})) or "nobody"
    raise SignatureError(
        f"artifact {digest[:12]} bears no signature that this node trusts: it trusts "
        f"{', '.join(sorted(trusted))}, it was signed by {signed}"
    )


def _text(kind: str, digest: str) -> bytes:
    return f"scorewire artifact 1\n{kind}\n{digest}\n".encode()


def _fits(public: bytes, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
