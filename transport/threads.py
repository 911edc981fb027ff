"""The threads that move bytes for ZeroMQ, and how the system's scheduler treats them."""

from __future__ import annotations

import os

import zmq


def serving_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context whose threads do not take the processor from whoever just gave them a message.

    Each message that an actor sends wakes the context's thread. Where there is no idle core the scheduler
    would put that thread in the actor's place at once, message by message; as a batch thread it has its turn
    when the actor waits, and then finds all that was sent. With an idle core nothing changes.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    if _may_batch():
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
    return context


def _may_batch() -> bool:
    """Try it on this thread, since ZeroMQ ends the process where the system does not allow it."""
    if not hasattr(os, "SCHED_BATCH"):
        return False
    try:
        # Whoever runs a node under another policy, real time say, means its threads as well.
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True
