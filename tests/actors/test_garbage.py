"""The collector of cycles in a node: what lives as long as the process is left alone."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import gc, json, weakref
from actors.garbage import settle

class Ring:
    def __init__(self): self.own = self

settle()
frozen, limits = gc.get_freeze_count(), gc.get_threshold()
settle()
again = gc.get_freeze_count()
ring = weakref.ref(Ring())
gc.collect()
print(json.dumps([frozen, again, limits[0], ring() is None]))
"""


def test_what_a_node_begins_with_is_looked_at_no_more_and_what_comes_later_is() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    frozen, again, limit, freed = json.loads(done.stdout)
    assert frozen > 1_000
    # What was frozen may end like anything else; a second call freezes nothing more.
    assert again <= frozen
    assert limit > 700
    assert freed
