"""Ports that the kernel gives nobody else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from transport.ports import free_ports_in_a_row, is_free


def test_ports_in_a_row_are_free_and_none_of_the_kernels_choice() -> None:
    first = free_ports_in_a_row(5)
    chosen_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert first + 5 <= chosen_from or chosen_from < 11_000
    for port in range(first, first + 5):
        with socket.create_server(("127.0.0.1", port)):
            assert not is_free(port)


def test_a_port_that_is_taken_is_in_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports_in_a_row(3)
    choices = iter([first, first, first + 2])
    monkeypatch.setattr("transport.ports.random.randrange", lambda *_: next(choices))
    with socket.create_server(("127.0.0.1", first + 1)):
        assert free_ports_in_a_row(1) == first
        assert free_ports_in_a_row(2) == first + 2


def test_a_host_that_is_not_here_is_an_error_at_once() -> None:
    with pytest.raises(OSError, match="assign"):
        free_ports_in_a_row(1, "192.0.2.1")
