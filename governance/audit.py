"""The audit log: who changed what, when and why, in a chain of hashes that the database itself writes.

Every row says sha256 of the hash before it and of its own text. A change of any row, or one that is taken
out or put in, breaks the chain there; rows that are cut off its end are found by an anchor: a number and hash
that were kept elsewhere. (Haber and Stornetta, "How to Time-Stamp a Digital Document", 1991.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from governance.database import Connection
from governance.errors import AuditBrokenError

_FIRST = bytes(32)
_BATCH = 1000


@dataclass(frozen=True)
class Entry:
    """A change.

    Attributes:
        seq: its number; they count up without a gap.
        text: the JSON text that is chained: seq, at, actor, login, reason, what, change, environment,
            before, after.
        hash: sha256 of the hash before it and of the text in UTF-8.
    """

    seq: int
    text: str
    hash: bytes

    @property
    def facts(self) -> dict[str, Any]:
        """The text, read."""
        facts: dict[str, Any] = json.loads(self.text)
        return facts


@contextmanager
def acting(connection: Connection, by: str, reason: str = "") -> Iterator[None]:
    """Open a transaction whose changes are this person's, for this reason."""
    with connection.transaction():
        connection.execute(
            "SELECT set_config('scorewire.actor', %s, true), set_config('scorewire.reason', %s, true)",
            (by, reason),
        )
        yield


def entries(connection: Connection, *, after: int = 0, environment: str | None = None) -> Iterator[Entry]:
    """Yield the entries after a number, the oldest first; all of them, or those of one environment."""
    while True:
        rows = connection.execute(
            "SELECT seq, entry, hash FROM audit WHERE seq > %(after)s"
            " AND (%(environment)s::text IS NULL OR entry::jsonb ->> 'environment' = %(environment)s)"
            " ORDER BY seq LIMIT %(batch)s",
            {"after": after, "environment": environment, "batch": _BATCH},
        ).fetchall()
        for row in rows:
            yield Entry(row["seq"], row["entry"], bytes(row["hash"]))
        if len(rows) < _BATCH:
            return
        after = rows[-1]["seq"]


def verify(connection: Connection, anchor: tuple[int, str] | None = None) -> Entry | None:
    """Check the whole chain.

    Args:
        connection: to the database.
        anchor: a number and hash (in hex) that were kept elsewhere, and must be in the chain.

    Returns:
        The last entry, for an anchor of the next time; None if there is none.

    Raises:
        AuditBrokenError: names the first entry that does not fit.
    """
    last, found, expected = None, _FIRST, 1
    anchored = anchor is None
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for last in entries(connection):
            if last.seq != expected:
                raise AuditBrokenError(f"entry {expected} is missing: {last.seq} comes after {expected - 1}")
            found = hashlib.sha256(found + last.text.encode()).digest()
            if found != last.hash or last.facts.get("seq") != last.seq:
                raise AuditBrokenError(
                    f"entry {last.seq} does not fit its hash: it, or its order, was changed"
                )
            if anchor is not None and last.seq == anchor[0]:
                anchored = True
                if found.hex() != anchor[1].lower():
                    raise AuditBrokenError(f"entry {last.seq} has the hash {found.hex()}, not the anchor's")
            expected += 1
        head = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
    if head is None or head["seq"] != expected - 1 or bytes(head["hash"]) != found:
        raise AuditBrokenError(
            f"the chain should end elsewhere than at entry {expected - 1}: some are missing"
        )
    if not anchored:
        raise AuditBrokenError(f"entry {anchor[0] if anchor else 0} of the anchor is not there any more")
    return last
