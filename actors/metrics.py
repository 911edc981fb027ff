"""What the figures of every process are called, and those of `run.py up`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from actors.config import node_name
from actors.launcher import ProcessState
from transport.metrics import CONTENT_TYPE, Metric, Page, add_process


def counter(name: str, help_: str) -> Metric:
    """Name a figure that only grows."""
    return Metric(f"scorewire_{name}_total", "counter", help_)


def gauge(name: str, help_: str) -> Metric:
    """Name a figure that comes and goes."""
    return Metric(f"scorewire_{name}", "gauge", help_)


INFO: Final = gauge("node_info", "1; `life` is unique to this life of its process.")
READY: Final = gauge("node_ready", "Whether it serves, as its health check says.")
STATE: Final = gauge("node_state", "1 for the state that its health check tells, 0 for the others.")
LIVES: Final = gauge("process_up", "Whether a process of this host is there.")
SERVES: Final = gauge("process_ready", "Whether a process has said that it can do its work.")
LIVES_AGAIN: Final = counter("process_restarts", "Restarts of a process by `up`.")
UP_S: Final = gauge("process_up_seconds", "Seconds since a process was started.")
LAST_EXIT: Final = gauge("process_last_exit", "How a process ended last: exit code, or signal as a negative.")

_STATES: Final = ("ready", "starting", "draining", "hung")


def page_of(labels: Mapping[str, str], life: str, health: str) -> Page:
    """Begin the page of a process: who it is, how it is, and what the operating system counts of it.

    Args:
        labels: what all its figures are labelled with: `environment`, `role` and `node`.
        life: unique to this life of the process.
        health: as its health check says.
    """
    page = Page(labels)
    page.add(INFO, 1, life=life)
    page.add(READY, int(health == "ready"))
    for state in _STATES:
        page.add(STATE, int(state == health), state=state)
    add_process(page)
    return page


def labels_of(environment: str, role: str, node_id: str) -> dict[str, str]:
    """Return the labels of a node's figures; a node keeps them when its process is another."""
    return {"environment": environment, "role": role, "node": node_id.partition("/")[0]}


def launcher_page(environment: str, states: Sequence[ProcessState], health: str) -> tuple[str, bytes]:
    """Return the page of `run.py up`: what it knows of the processes of its host."""
    node_id = node_name("up", 0)
    page = page_of(labels_of(environment, "up", node_id), node_id, health)
    for one in states:
        page.add(LIVES, int(one.pid is not None), process=one.id)
        page.add(SERVES, int(one.ready), process=one.id)
        page.add(LIVES_AGAIN, one.restarts, process=one.id)
        page.add(UP_S, one.up_s, process=one.id)
        if one.last_exit is not None:
            page.add(LAST_EXIT, one.last_exit, process=one.id)
    return CONTENT_TYPE, page.text()
