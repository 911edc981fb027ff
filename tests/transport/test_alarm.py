"""What wakes a thread: by an eventfd, or by sockets where a system has none."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from transport.client.alarm import Alarm, _EventAlarm, _SocketAlarm, make_alarm

KINDS = [make_alarm, _SocketAlarm, *([_EventAlarm] if hasattr(os, "eventfd") else [])]
Make = Callable[[], Alarm]


def rings(alarm: Alarm, timeout_ms: int = 0) -> bool:
    poller = select.poll()
    poller.register(alarm.descriptor, select.POLLIN)
    return bool(poller.poll(timeout_ms))


@pytest.mark.parametrize("make", KINDS)
def test_an_alarm_rings_until_it_is_settled(make: Make) -> None:
    alarm = make()
    assert not rings(alarm)
    for _ in range(3):
        alarm.ring()
    assert rings(alarm)
    alarm.settle()
    assert not rings(alarm)
    alarm.settle()
    threading.Timer(0.05, alarm.ring).start()
    assert rings(alarm, 20_000)
    alarm.close()


@pytest.mark.parametrize("make", KINDS)
def test_a_closed_alarm_writes_to_no_file_that_was_given_its_number(make: Make, tmp_path: Path) -> None:
    alarm = make()
    number = alarm.descriptor
    alarm.close()
    alarm.close()
    # The system gives the lowest number that is free.
    with (tmp_path / "file").open("wb", buffering=0) as file:
        if file.fileno() != number:
            pytest.skip("another thread was given that number")
        alarm.ring()
        assert os.fstat(number).st_size == 0
