"""What the host has to have: directories with room, descriptors, huge pages, free ports, processes."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from actors.config import Settings, ring_directory, spool_directory
from actors.doctor.finding import Finding, failure, ok, warning
from actors.host_commands import here
from transport.errors import BindRefusedError
from transport.listener import check_address

#: Descriptors that a node should have: a socket a caller and a few for itself.
_FILES: Final = 4096
#: Bytes that should be free beside a cache and logs, and the share of the disk below which it is nearly full.
_FREE: Final = 1 << 30
_FULL: Final = 0.05
_TMPFS: Final = ("tmpfs", "ramfs", "hugetlbfs")
_THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
#: Linux' first version with MADV_COLLAPSE.
_COLLAPSE: Final = (6, 1)


def check_directories(settings: Settings) -> Iterator[Finding]:
    """See whether files can be written where the configuration says, and how much room is left."""
    preprocessors = settings.preprocessor.nodes
    wanted = {"cache": (settings.cache, _FREE), "logs": (settings.logs, _FREE)}
    if settings.kafka is not None:
        spool = spool_directory(settings)
        wanted["tee.spool"] = (spool, max(0, int(settings.tee.spool_mb * 1e6) - _held(spool)))
        rings = ring_directory(settings)
        wanted["tee.rings"] = (
            rings,
            max(0, int(settings.tee.memory_mb * 1e6) * preprocessors - _held(rings)),
        )
    if settings.haproxy is not None:
        wanted["haproxy.directory"] = (settings.haproxy.directory, 1 << 20)
    if settings.shadow.parquet is not None:
        wanted["shadow.parquet"] = (settings.shadow.parquet, _FREE)
    for key, (path, needed) in wanted.items():
        yield _directory(key, path.expanduser().absolute(), needed)


def _held(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*") if file.is_file())


def _directory(key: str, path: Path, needed: int) -> Finding:
    there = path
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return failure(
            "directories",
            f"{key}: {there} cannot be written to by {_user()}",
            f"give it to this user (`chown`), or name another directory as `{key}`",
        )
    disk = shutil.disk_usage(there)
    found = f"{key}: {path} has {disk.free / 1e9:.1f} GB free"
    if disk.free < needed or disk.free < _FULL * disk.total:
        what = f"{needed / 1e9:.1f} GB may be needed there"
        return warning("directories", found, f"{what}: free some, or name another disk as `{key}`")
    return ok("directories", found)


def check_limits(settings: Settings) -> Iterator[Finding]:
    """See how many files and processes this user may have."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < _FILES:
        how = "`ulimit -n`" if most >= _FILES else "LimitNOFILE= of the unit, or limits.conf"
        yield warning("limits", f"{files} open files", f"raise it to {_FILES} or more by {how}")
    else:
        yield ok("limits", f"{files} open files")
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    nodes = settings.preprocessor.nodes + settings.scorer.nodes * (8 + settings.scorer.actors)
    if 0 <= processes < 64 * nodes:
        yield warning(
            "limits", f"{processes} threads and processes", "raise `ulimit -u`, or TasksMax= of the unit"
        )


def check_pages(settings: Settings) -> Iterator[Finding]:
    """See whether models get the huge pages that are asked for."""
    if settings.scorer.pages != "huge":
        yield ok("huge pages", "not asked for (scorer.pages)")
        return
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdecimal())
    cache = settings.cache.expanduser().absolute()
    kind = _file_system(cache)
    if kind in _TMPFS and release >= _COLLAPSE:
        yield ok("huge pages", f"{cache} is in memory ({kind}): one copy a host in huge pages")
        return
    if _chosen(_THP / "enabled") not in ("always", "madvise"):
        yield warning(
            "huge pages",
            "the system gives no huge pages (transparent_hugepage/enabled is never)",
            f"`echo madvise > {_THP / 'enabled'}`, or scorer.pages = 'shared'",
        )
        return
    why = (
        f"Linux {os.uname().release} cannot collapse them"
        if kind in _TMPFS
        else f"{cache} is on a disk ({kind})"
    )
    yield warning(
        "huge pages",
        f"{why}: each scorer node reads a copy of its own",
        "name a directory of a memory file system as `cache`, such as /dev/shm/scorewire: one copy a host",
    )


def check_processes(settings: Settings) -> Iterator[Finding]:
    """See how the processes of this host are, where `up` runs."""
    states = here(settings)
    if not states:
        yield ok("processes", "`run.py up` does not run here")
        return
    for one in states:
        log = settings.logs.expanduser() / f"{one['id']}.log"
        if one["pid"] is None:
            yield failure(
                "processes",
                f"{one['id']} is not there: it ended with {one['last_exit']}, starts in {one['pause_s']} s",
                f"read {log} and {log.with_suffix('.crash')}",
            )
        elif one["restarts"]:
            yield warning(
                "processes",
                f"{one['id']} was restarted {one['restarts']} times, the last end was {one['last_exit']}",
                f"read {log} and {log.with_suffix('.crash')}",
            )
    living = sum(one["pid"] is not None for one in states)
    yield ok("processes", f"{living} of {len(states)} processes of `run.py up` are there")


def check_ports(settings: Settings) -> Iterator[Finding]:
    """See whether the ports that are named can be had, each by one process."""
    running = bool(here(settings))
    taken: dict[tuple[str, int], str] = {}
    good = 0
    for key, host, port in _ports(settings):
        try:
            check_address(f"tcp://{host}:{port}", wide=settings.allow_wide_bind)
        except BindRefusedError as error:
            yield failure("ports", f"{key}: {error}", f"set allow_wide_bind, or another host for {key}")
            continue
        other = taken.setdefault((host, port), key)
        if other != key:
            yield failure(
                "ports", f"{key} and {other} are both {host}:{port}", "name another port for one of them"
            )
        elif not running and (why := _refused(host, port)):
            yield failure(
                "ports",
                f"{key}: {host}:{port} cannot be had: {why}",
                f"see who has it (`ss -ltnp 'sport = :{port}'`), end that, or name another port",
            )
        else:
            good += 1
    yield ok("ports", f"{good} ports are {'in use by `run.py up`' if running else 'free'}")


def _ports(settings: Settings) -> Iterator[tuple[str, str, int]]:
    """Yield key, host and port of all that is named; free ports are chosen where none is."""
    up, found = settings.up, settings.haproxy
    named = [
        ("up.health_port", up.host, up.health_port, 1),
        (
            "preprocessor.port",
            settings.preprocessor.host,
            settings.preprocessor.port,
            settings.preprocessor.nodes,
        ),
        ("gateway.port", settings.gateway.host, settings.gateway.port, settings.gateway.nodes),
        *(
            (f"{role}.health_port", one.host, one.health_port, one.nodes)
            for role, one in (
                ("preprocessor", settings.preprocessor),
                ("scorer", settings.scorer),
                ("gateway", settings.gateway),
            )
        ),
    ]
    if settings.kafka is not None:
        named += [
            ("tee.health_port", up.host, settings.tee.health_port, 1),
            ("sink.health_port", up.host, settings.sink.health_port, settings.sink.nodes),
            ("shadow.health_port", up.host, settings.shadow.health_port, settings.shadow.nodes),
        ]
    if found is not None:
        named += [
            ("haproxy.port", found.host, found.port, found.instances),
            ("haproxy.http_port", found.host, found.http_port, found.instances),
            ("haproxy.stats_port", found.stats_host, found.stats_port, found.instances),
            ("haproxy.health_port", up.host, found.health_port, found.instances),
        ]
    for key, host, first, count in named:
        for index in range(count if first else 0):
            yield f"{key}{f' + {index}' if index else ''}", host, first + index


def _refused(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""


def _file_system(path: Path) -> str:
    """Return the kind of the file system that a path is, or would be, on; "" if nobody says."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    above = [(len(at), kind) for at, kind in mounts if path.is_relative_to(at)]
    return max(above, default=(0, ""))[1]


def _chosen(file: Path) -> str:
    """Return the word in brackets, which is the one that holds."""
    try:
        return file.read_text(encoding="ascii").partition("[")[2].partition("]")[0]
    except OSError:
        return ""


def _user() -> str:
    return f"user {os.getuid()}"
