"""What the actors of one node share: which releases it holds, and where its peers are.

Each attribute is replaced whole and never changed in place, so a reader takes one reference and sees one
consistent state; that swap is what activation comes down to. Only the governance actor writes here, an actor
its own endpoint, and whoever follows the scorers while the database is away what is current.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from actors.blackbox import BlackBox
from actors.code.limits import CodeCrew
from actors.evaluation import Evaluator
from actors.reading import Express, express_of
from actors.tally import Watch
from actors.traces import Traces
from models.features.drift import DriftCounter
from transport.metrics import Timings
from transport.tee_ring import TeeRing


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Evaluator):
    """A release made ready for use on this node: what evaluates by it, as far as this node does.

    Attributes:
        release: its number.
        environment: the environment that it belongs to.
        pipeline: stage to the sha256 of its artifact (the champion's).
        drift: features stage to what counts its transactions, where a preprocessor has a training profile.
        express: reads messages straight into its features, where that can be done.
    """

    release: int
    environment: str
    pipeline: Mapping[str, str]
    drift: Mapping[str, DriftCounter] = field(default_factory=dict, compare=False)
    express: Express | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is the same for all transactions."""
        Evaluator.__post_init__(self)
        object.__setattr__(self, "express", express_of(self.specs, self.release))


@dataclass(frozen=True, slots=True)
class Canary:
    """A release that some keys are given beside the current one.

    Attributes:
        release: its number.
        percent: how many of a hundred keys.
        key: the field of the transaction whose value is the key; "" is its id.
        watch: where a preprocessor counts what becomes of it in this step.
    """

    release: int
    percent: float
    key: str
    watch: Watch | None = None

    def takes(self, value: object) -> bool:
        """Say whether a key is given the canary: always the same for a key, and still so when it grows."""
        text = f"{self.release}:{value}".encode("utf-8", "surrogatepass")
        point = int.from_bytes(blake2b(text, digest_size=8).digest())
        return point < self.percent / 100 * 2**64


@dataclass(frozen=True, slots=True)
class Holdings:
    """The releases that a node holds, by number, and those that it stamps on new transactions.

    `activation` counts up with each release that becomes current, also with one that is led back to, and with
    each step of a canary: whoever has a larger one knows more. Callers hear it with each reply, and go back
    to nobody who knows less.
    """

    releases: Mapping[int, Loaded] = field(default_factory=lambda: MappingProxyType({}))
    current: int | None = None
    canary: Canary | None = None
    activation: int = 0

    def find(self, number: int | None) -> Loaded | None:
        """Return the release of that number, or the current one for None; None if it is not held."""
        wanted = self.current if number is None else number
        return None if wanted is None else self.releases.get(wanted)


@dataclass(slots=True)
class NodeState:
    """The shared state of one node.

    Attributes:
        node_id: unique name of this node, for one life of its process.
        environment: the environment that it serves.
        role: `preprocessor`, `scorer` or `gateway`.
        holdings: the releases that it holds.
        scorers: endpoints of all scorer actors that are ready, for whoever asks them.
        preprocessors: endpoints of all preprocessors that are ready, for gateways.
        endpoints: id of each serving actor of this node to the endpoint where it listens.
        looked_at: when the governance actor last saw what Postgres says (time.monotonic seconds).
        stale_after_s: seconds after that from which on answers say so, and the node follows its scorers.
        refuse_after_s: seconds after that from which on no release is stamped any more.
        code_crew: the workers of each package of code in each actor.
        code_counters: id of each serving actor to what it has counted of code, by package.
        tee: takes what was answered, for the tee of the host; None where no copy is kept.
        health: where its health is asked, as host:port; "" until somebody answers there.
        leaving: it takes its leave: whoever asks is told so, and callers move on.
        sign_at: when a serving actor that no beat over ZeroMQ reaches last gave a sign (time.monotonic
            seconds); None where beats tell.
        box: takes notes of what the actors do, for whoever asks later why this node ended.
        counters: id of each serving actor to what tells its counts.
        timings: id of each serving actor to its histograms, which outlive it.
        traces: makes spans of what is traced; None where no collector is named.
        starts: id of each actor to how often it was started.
    """

    node_id: str
    environment: str
    role: str
    holdings: Holdings = field(default_factory=Holdings)
    scorers: tuple[str, ...] = ()
    preprocessors: tuple[str, ...] = ()
    endpoints: dict[str, str] = field(default_factory=dict)
    looked_at: float = math.inf
    stale_after_s: float = math.inf
    refuse_after_s: float = math.inf
    code_crew: CodeCrew = field(default_factory=CodeCrew)
    code_counters: dict[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)
    tee: TeeRing | None = None
    health: str = ""
    leaving: bool = False
    sign_at: float | None = None
    box: BlackBox | None = None
    counters: dict[str, Callable[[], Mapping[str, int]]] = field(default_factory=dict)
    timings: dict[str, Timings] = field(default_factory=dict)
    traces: Traces | None = None
    starts: Counter[str] = field(default_factory=Counter)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def change(self, how: Callable[[Holdings], Holdings]) -> tuple[Holdings, Holdings]:
        """Replace what is held by what `how` makes of it; return both. Two at once do not undo each other."""
        with self._changing:
            before = self.holdings
            self.holdings = how(before)
            return before, self.holdings

    def code_used(self) -> set[str]:
        """Return the digests of the code that the releases held here run."""
        held = self.holdings.releases.values()
        return {stage.digest for loaded in held for stage in loaded.code.values()}

    def stale_s(self, now: float) -> float | None:
        """Return how long ago the last look at the database was; None while that is short enough."""
        since = now - self.looked_at
        return round(since, 1) if since > self.stale_after_s else None

    def is_ready(self) -> bool:
        """Say whether this node can serve: it holds the release that is current, as far as it knows."""
        return self.holdings.find(None) is not None
