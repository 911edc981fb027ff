"""What HAProxy has to be: there, new enough, and content with its configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from actors.balancer import setup_of
from actors.config import Settings
from actors.doctor.finding import Finding, failure, ok, warning
from haproxy.binary import check, find_binary, version
from haproxy.errors import BinaryError, HaproxyError, RefusedError
from haproxy.plan import ROLES, Options
from haproxy.render import render
from haproxy.runtime import Runtime


def check_haproxy(settings: Settings) -> Iterator[Finding]:
    """See whether the HAProxies of this host can run, and whether they do."""
    if settings.haproxy is None:
        yield ok("haproxy", "not asked for: callers reach the preprocessors themselves")
        return
    setup = setup_of(settings)
    try:
        binary = find_binary(setup.binary)
    except BinaryError as error:
        yield failure("haproxy", str(error), "install it, or name it as haproxy.binary")
        return
    yield ok("haproxy", f"{binary} is HAProxy {'.'.join(map(str, version(binary)))}")
    for index, options in enumerate(setup.instances):
        try:
            _judge(binary, options)
        except (RefusedError, OSError) as error:
            yield failure("haproxy", str(error), "mend what it names in [haproxy]")
            continue
        try:
            slots = [slot for slot in Runtime(options.socket).slots() if not slot.idle]
        except HaproxyError:
            yield ok("haproxy", f"number {index} does not run; it would take its configuration")
            continue
        serving = sum(slot.serves for slot in slots)
        told = f"number {index} runs at {options.tcp} and holds {serving} of {len(slots)} servers for ready"
        if slots and not serving:
            yield warning("haproxy", told, "no caller is served through it: see `run.py haproxy status`")
        else:
            yield ok("haproxy", told)


def _judge(binary: Path, options: Options) -> None:
    """Have HAProxy judge its configuration, as it is without nodes.

    Raises:
        RefusedError: it refuses it.
        OSError: a file that it names cannot be read.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "haproxy.cfg"
        text = render(options, dict.fromkeys(ROLES, ()), dict.fromkeys(ROLES, 1))
        file.write_text(text, encoding="utf-8")
        check(binary, file)
