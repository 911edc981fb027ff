"""What the figures of nodes that serve are called, and how they are gathered for `/metrics`.

Nothing is gathered before: the hot path counts as it always did, and adds to a few histograms.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from actors.metrics import counter, gauge, labels_of, page_of
from actors.state import NodeState
from actors.tally import Tally
from transport.metrics import CONTENT_TYPE, Metric, Page

RESTARTS: Final = counter(
    "actor_restarts", "Restarts of an actor by its supervisor, in this life of the process."
)
RELEASE: Final = gauge("release", "Number of the release that is current here; 0 before the first.")
ACTIVATION: Final = gauge(
    "activation", "Number of the latest change of the release, or of its canary, that is known here."
)
HELD: Final = gauge("releases_held", "Releases that are loaded.")
CANARY: Final = gauge("canary_percent", "Keys of a hundred that are given the canary, by its release.")
STALE: Final = gauge("stale_seconds", "Seconds since the last look at the database.")
STAGE: Final = Metric(
    "scorewire_stage_seconds",
    "histogram",
    "Time of each stage of each request: queue, features, scorer, decision, total; kernel: of a batch.",
)
BATCH: Final = Metric("scorewire_batch_requests", "histogram", "Requests that were taken together.")
ERRORS: Final = counter(
    "errors", "Requests that ended with an error, by its code; `late` ones are not answered."
)
CANARY_REQUESTS: Final = counter(
    "canary_requests", "Transactions of the canary's step that are over, by arm."
)
CANARY_ERRORS: Final = counter("canary_errors", "Those of them without a score, by arm and error.")
MEMBERS: Final = gauge("scorers", "Scorers that this preprocessor knows, by what it thinks of them.")
#: Name of a count of an actor to its figure.
ACTOR: Final[Mapping[str, Metric]] = {
    "requests": counter("requests", "Requests that were taken."),
    "answers": counter("answers", "Requests that were answered."),
    "waiting": gauge("queue_requests", "Requests that wait to be taken."),
    "in_flight": gauge("in_flight_requests", "Requests that are taken and not yet answered."),
    "fallbacks": counter("fallbacks", "Answers by the release's fallback, since no score came in time."),
    "rule_errors": counter("rule_errors", "Decision rules that could not be evaluated."),
}
#: The same of a preprocessor's pool of scorers.
SCORERS: Final[Mapping[str, Metric]] = {
    "sent": counter("scorers_sent", "Requests to scorers, repetitions included."),
    "answered": counter("scorers_answered", "Requests that a scorer answered."),
    "refused": counter("scorers_refused", "Requests that ended with a scorer's error."),
    "retried": counter("scorers_retried", "Repetitions elsewhere after a scorer failed or said no."),
    "throttled": counter(
        "scorers_throttled", "Requests refused here, since scorers refuse more than they take."
    ),
    "unaffordable": counter("scorers_unaffordable", "Repetitions that the budget for them did not allow."),
    "hedged": counter("scorers_hedged", "Second askings of slow requests."),
    "hedges_won": counter("scorers_hedges_won", "Second askings that were answered first."),
    "duplicates": counter("scorers_duplicates", "Answers after another had been taken."),
    "expired": counter("scorers_expired", "Requests whose deadline passed at the scorers."),
    "late": counter("scorers_late", "Answers that nobody waits for any more."),
    "ejected": counter(
        "scorers_ejected", "Times that a scorer was left out for its silence or lost connection."
    ),
    "failing": counter("scorers_failing", "Times that a scorer was left out for its errors."),
    "unreadable": counter("scorers_unreadable", "Frames of scorers that could not be read."),
    "in_flight": gauge("scorers_in_flight_requests", "Requests that are with scorers."),
    "newest": gauge("scorers_activation", "The largest activation that a scorer has told of."),
}
#: The same of a gateway's pool of preprocessors.
PREPROCESSORS: Final[Mapping[str, Metric]] = {
    name: Metric(
        one.name.replace("scorers", "preprocessors"), one.kind, one.help.replace("scorer", "preprocessor")
    )
    for name, one in SCORERS.items()
}
HTTP: Final = counter("http_answers", "Answers over HTTP, by status.")
#: The same of what it keeps for its tee.
TEE: Final[Mapping[str, Metric]] = {
    "offered": counter("tee_ring_offered", "Answers that were given to the tee's ring."),
    "acknowledged": counter("tee_ring_acknowledged", "Answers that are safe, by the tee's word."),
    "dropped": counter("tee_ring_dropped", "Answers that were lost, since the tee was away for too long."),
    "held": gauge("tee_ring_held", "Answers that are held and not safe yet."),
    "held_bytes": gauge("tee_ring_held_bytes", "Bytes of the ring that hold them."),
}
#: The same of each package of code that a release runs.
CODE: Final[Mapping[str, Metric]] = {
    name: counter(f"code_{name}", help_)
    for name, help_ in {
        "answered": "Calls with a result.",
        "refused": "Transactions that the package itself refused.",
        "failed": "Calls that failed, for whatever reason.",
        "crashes": "Workers that died of a call, and idle ones.",
        "overruns": "Workers that were killed for their budget.",
        "resent": "Calls that went to another worker after one had ended.",
        "expired": "Calls whose deadline passed while they waited.",
        "overloaded": "Calls that were refused since too many waited.",
        "started": "Workers that were started.",
        "start_failures": "Workers that did not load the package.",
    }.items()
}


def node_page(state: NodeState, health: str) -> tuple[str, bytes]:
    """Gather the figures of a preprocessor, scorer or gateway. Safe from any thread."""
    page = page_of(labels_of(state.environment, state.role, state.node_id), state.node_id, health)
    _add_releases(page, state)
    for actor, starts in list(state.starts.items()):
        page.add(RESTARTS, starts - 1, actor=actor)
    for actor, counted in list(state.counters.items()):
        _add_actor(page, actor, counted())
    for actor, timings in list(state.timings.items()):
        for stage, timing in timings.stages.items():
            page.add_timing(STAGE, timing, actor=actor, stage=stage)
        page.add_sizes(BATCH, timings.batches, actor=actor)
    for actor, of_code in list(state.code_counters.items()):
        for package, counts in of_code().items():
            page.add_all(CODE, counts, actor=actor, package=package)
    return CONTENT_TYPE, page.text()


def _add_releases(page: Page, state: NodeState) -> None:
    held = state.holdings
    page.add(RELEASE, held.current or 0)
    page.add(ACTIVATION, held.activation)
    page.add(HELD, len(held.releases))
    looked_at = state.looked_at
    if looked_at < time.monotonic():  # it has looked
        page.add(STALE, round(time.monotonic() - looked_at, 3))
    canary = held.canary
    if canary is not None:
        page.add(CANARY, canary.percent, release=str(canary.release))
        if canary.watch is not None:
            _add_arm(page, canary.watch.canary, "canary")
            _add_arm(page, canary.watch.champion, "champion")


def _add_arm(page: Page, tally: Tally, arm: str) -> None:
    page.add(CANARY_REQUESTS, tally.requests, arm=arm)
    for code, count in list(tally.errors.items()):
        page.add(CANARY_ERRORS, count, arm=arm, code=code)


def _add_actor(page: Page, actor: str, counts: Mapping[str, int]) -> None:
    page.add_all(ACTOR, counts, actor=actor)
    page.add_all(SCORERS, counts, "scorers.", actor=actor)
    page.add_all(PREPROCESSORS, counts, "preprocessors.", actor=actor)
    page.add_all(TEE, counts, "tee.", actor=actor)
    for name, count in counts.items():
        kind, _, what = name.partition(".")
        if kind == "errors":
            page.add(ERRORS, count, actor=actor, code=what)
        elif kind == "status":
            page.add(HTTP, count, actor=actor, status=what)
        elif kind == "members":
            page.add(MEMBERS, count, actor=actor, state=what)
