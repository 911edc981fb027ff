"""The process of a candidate that obeys its transactions: `do` says how it goes wrong. Run as a program."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from shadow import candidate_process
from shadow.candidate import Candidate, Evaluated, Refused
from shadow.record import LiveRecord

#: Run like shadow.process.PROGRAM.
PROGRAM = (sys.executable, __file__)

_leaked: list[Any] = []


def obey(what: str) -> None:
    """Go wrong in a way."""
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(3)
    elif what == "raise":
        raise RuntimeError("a bug")
    elif what == "loop":
        while True:
            pass
    elif what == "hang":
        time.sleep(1000)
    elif what == "leak":
        _leaked.append(bytearray(400_000_000))
    elif what == "lie":
        os.write(int(sys.argv[1]), b"\xff\xff\xff\xff what is this")
        time.sleep(1000)


class Hostile(Candidate):
    """Does what a transaction says before it evaluates."""

    def evaluate(self, records: Sequence[LiveRecord]) -> list[Evaluated | Refused]:
        for place, record in enumerate(records):
            self.mark(place)
            obey(os.environ.get("HOSTILE") or record.transaction.get("do", ""))
        return super().evaluate(records)


if __name__ == "__main__":
    candidate_process.Candidate = Hostile  # type: ignore[attr-defined]
    candidate_process.main()
