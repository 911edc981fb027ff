"""Renders HAProxy's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from haproxy.plan import HTTP_ROLE, Options, Servers

if TYPE_CHECKING:
    import jinja2

_TEMPLATE = Path(__file__).with_name("haproxy.cfg.j2")
#: The least that lies between two checks of a server whose state is changing.
_QUICK_MS = 100


def render(options: Options, servers: Servers, slots: Mapping[str, int]) -> str:
    """Return the configuration.

    Its description is its structure: all but the servers, which come and go without a reload.

    Args:
        options: how HAProxy is set up.
        servers: role to its servers.
        slots: role to the places of its backend; servers beyond them are left out.
    """
    known = {role: servers.get(role, ())[:places] for role, places in slots.items()}
    return _write(options, known, slots, structure(options, slots))


def structure(options: Options, slots: Mapping[str, int]) -> str:
    """Name the structure of a configuration: another name is another structure, and needs a reload."""
    certificate = options.certificate.read_bytes() if options.certificate else b""
    text = _write(options, {}, slots, "")
    return "scorewire-" + sha256(text.encode() + certificate).hexdigest()[:16]


def _write(options: Options, servers: Servers, slots: Mapping[str, int], name: str) -> str:
    return _template().render(
        options=options,
        servers=servers,
        slots=slots,
        structure=name,
        http_role=HTTP_ROLE,
        quick_ms=min(_QUICK_MS, options.check_ms),
        quoted=_quoted,
    )


@cache
def _template() -> jinja2.Template:
    import jinja2  # noqa: PLC0415 - no other command needs it

    # What is filled in are numbers, addresses and quoted paths: nothing that HTML's escapes would help.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _quoted(path: Path) -> str:
    """Quote a path for HAProxy: in single quotes it reads every character as itself.

    Raises:
        ValueError: it has a line break or a zero byte, which nothing can quote.
    """
    text = str(path)
    if any(character in text for character in "\n\r\0"):
        raise ValueError(f"a path for HAProxy has no line breaks: {text!r}")
    return "'" + text.replace("'", "'\"'\"'") + "'"
