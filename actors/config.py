"""The configuration of a host: scorewire.toml, variables over it, --set over both; read once and typed."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from actors.code.limits import CodeLimits
from actors.config_sources import Layer, explained, from_file, from_options, from_variables, merged, nested
from actors.errors import ConfigError
from governance.database import checked_dsn
from governance.errors import SignatureError
from governance.signing import read_public
from haproxy.settings import HaproxySettings
from models.pages import Pages

#: The configuration file that is read when none is named.
DEFAULT_FILE = Path("scorewire.toml")

#: Where Linux has a memory file system.
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there is its user's alone


def _public_key(text: str) -> str:
    try:
        read_public(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


Port = Annotated[int, Field(ge=0, le=65535)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
#: Never shown, and may stand in a file of its own: as NAME_file, or for each name of a table.
SECRET = Field(repr=False, json_schema_extra={"writeOnly": True})
Dsn = Annotated[str, AfterValidator(checked_dsn)]


class Section(BaseModel):
    """One table of the file. The text below a key is its meaning in docs/configuration.md."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class LogSettings(Section):
    """The logs of all processes of this host."""

    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line: with transaction and release where there is one."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""


class TracesSettings(Section):
    """Traces of OpenTelemetry, sent to a collector over OTLP; they need `pip install 'scorewire[otel]'`."""

    endpoint: str = ""
    """Where the collector listens, such as `http://127.0.0.1:4318/v1/traces`; empty makes no traces."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of transactions that get a trace although they come with none of their caller's."""


class UpSettings(Section):
    """`run.py up`, and what processes without callers share: tee, sinks, shadow nodes, HAProxy's agents."""

    host: str = "127.0.0.1"
    """Where these answer health checks and show their figures."""
    health_port: Port = 0
    """Where `up` itself does; 0 picks a free port."""


class PreprocessorSettings(Section):
    """Preprocessor nodes of this host: one actor each, since preprocessing holds the GIL."""

    nodes: Annotated[int, Field(ge=0, le=256)] = 2
    """Processes."""
    host: str = "127.0.0.1"
    """The address that they listen at; beyond loopback only with `allow_wide_bind`."""
    port: Port = 7301
    """The first node listens here, each further one at the next port; 0 picks free ones."""
    health_port: Port = 0
    """The first node answers health checks here, each further one at the next port; 0 picks free ones."""


class ScorerSettings(Section):
    """Scorer nodes of this host: each holds one actor a core, since scoring needs no GIL."""

    nodes: Annotated[int, Field(ge=0, le=256)] = 2
    """Processes."""
    host: str = "127.0.0.1"
    """The address that they listen at; beyond loopback only with `allow_wide_bind`."""
    actors: Annotated[int, Field(ge=1, le=256, json_schema_extra={"shown": "half of the processors"})] = max(
        1, (os.cpu_count() or 2) // 2
    )
    """Scorer actors in each node; together about one a core."""
    health_port: Port = 0
    """The first node answers health checks here, each further one at the next port; 0 picks free ones."""
    pages: Pages = "shared"
    """How models are mapped: one copy a host, or in huge pages (a copy a node where a file has none)."""
    models_mb: Annotated[float, Field(gt=0)] | None = None
    """Megabytes that all models of a node may have: the current, the coming and the earlier ones."""

    @property
    def models_bytes(self) -> int | None:
        """The budget in bytes."""
        return None if self.models_mb is None else int(self.models_mb * 1e6)


class GatewaySettings(Section):
    """Gateways of this host: HTTP in front of preprocessors and scorers; see docs/http.md."""

    nodes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes."""
    host: str = "127.0.0.1"
    """The address that they listen at; beyond loopback only with `allow_wide_bind`."""
    port: Port = 7501
    """The first node listens here, each further one at the next port; 0 picks free ones."""
    health_port: Port = 0
    """The first node answers health checks here, each further one at the next port; 0 picks free ones."""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")] = "champion"
    """The champion's name in the Open Inference Protocol; with `-transactions`, that of its transactions."""
    deadline_ms: Annotated[float, Field(ge=1)] = 1_000
    """Milliseconds that a request may take where it says nothing."""
    longest_deadline_ms: Annotated[float, Field(ge=1, le=600_000)] = 25_000
    """Milliseconds that a request may ask for at most; HAProxy waits 30 s for an answer."""
    body_mb: Annotated[float, Field(gt=0, le=1024)] = 8
    """Megabytes that the body of a request may have, compressed or not."""
    compress: bool = True
    """Compress answers of 1,400 bytes or more, for callers who say that they take gzip or deflate."""
    receive_s: Annotated[float, Field(gt=0, le=600)] = 10
    """Seconds that the head of a request, and then its body, may take to arrive."""
    rows: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Transactions, or rows of a tensor, that one request may bring."""
    in_flight: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Requests under way at a time; beyond them the answer is 503."""
    connections: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Connections at a time; beyond them the answer is 503."""
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = 75
    """Seconds after which an idle connection is closed."""
    leave_s: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Seconds that a leaving gateway still takes requests, until load balancers have seen that it leaves."""
    drain_s: Annotated[float, Field(ge=0, le=10)] = 5.0
    """Seconds that a leaving gateway then has for what is under way."""


class CodeSettings(Section):
    """Workers of code packages: processes of each node, for each package."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that take requests."""
    spares: Annotated[int, Field(ge=0, le=8)] = 1
    """Further ones that are ready to follow one that dies."""
    budget_ms: Annotated[float, Field(gt=0, le=60_000)] = 100
    """Milliseconds that one request may take; a worker that takes longer is killed, and the request fails."""
    memory_mb: Annotated[float, Field(ge=64)] = 1024
    """Megabytes of address space that a worker may have, Python and libraries included."""
    start_s: Annotated[float, Field(gt=0, le=600)] = 30
    """Seconds that a package may take to load."""

    @property
    def limits(self) -> CodeLimits:
        """What one worker may take."""
        return CodeLimits(self.budget_ms / 1e3, int(self.memory_mb * 1e6), self.start_s)


class KafkaSettings(Section):
    """The Kafka that copies of live transactions go to; without this section none are kept."""

    bootstrap_servers: Annotated[str, Field(min_length=1)]
    """Brokers to begin with, `host:port`, separated by commas."""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")] = "scorewire"
    """Topics are `<prefix>.<environment>.live`, `.dead` and `.shadow`."""
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 12
    """Partitions of topics that are made; a topic that exists stays as it is."""
    replication: Annotated[int, Field(ge=1, le=32)] = 3
    """Replicas of topics that are made."""
    create_topics: bool = True
    """Make topics that are missing; without, they must exist."""
    options: Annotated[dict[str, str], SECRET] = {}
    """Passed on to librdkafka as they are: SASL, TLS, tuning; `"sasl.password_file"` names a file."""


class TeeSettings(Section):
    """The tee of this host: what it keeps while it, or Kafka, is away, and what it leaves out."""

    health_port: Port = 0
    """Where it shows its health and figures; 0 picks a free port."""
    spool: Path | None = None
    """Where records wait while Kafka is away; by default `spool` beside `cache`."""
    spool_mb: Annotated[float, Field(gt=0)] = 1024
    """Megabytes that may wait there; beyond them the oldest go."""
    memory_mb: Annotated[float, Field(gt=0)] = 64
    """Megabytes in which a preprocessor keeps what its tee has not yet seen to; the oldest go beyond them."""
    rings: Path | None = None
    """Where that memory is shared: in a memory file system; by default a directory of its own in /dev/shm."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of transactions that are copied, chosen by a hash of their ids."""
    always: str = ""
    """A CEL expression over tx, scores and score; where it is true, a transaction is copied in any case."""
    hash_key: Annotated[str, SECRET] = ""
    """The key of the hashes that stand for fields with `store = "hash"`; without it they are dropped."""


class SinkSettings(Section):
    """Sinks of this host: they bring what the tee sent from Kafka to PostgreSQL."""

    health_port: Port = 0
    """The first shows its health and figures here, each further one at the next port; 0 picks free ones."""
    nodes: Annotated[int, Field(ge=0, le=64)] = 1
    """Processes."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    """Records that are stored at once at most."""


class ShadowSettings(Section):
    """Shadow nodes of this host: each is one of the group that reads the live topic."""

    health_port: Port = 0
    """The first shows its health and figures here, each further one at the next port; 0 picks free ones."""
    nodes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes; each runs one more, niced and limited, for each shadow."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Records that are evaluated, stored and committed together, at most."""
    memory_mb: Annotated[float, Field(ge=100)] = 4000
    """Megabytes of address space that a candidate's process may take beyond those of an empty one."""
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    """How far candidates stand back behind live nodes of the same host."""
    cpu_s: Annotated[float, Field(ge=1)] = 5.0
    """Seconds of CPU time that any batch may take."""
    cpu_ms_record: Annotated[float, Field(ge=0)] = 20.0
    """Milliseconds of CPU time more for each of its records."""
    hang_s: Annotated[float, Field(ge=1)] = 30.0
    """Seconds by the clock until a batch must be answered, on top of four times its CPU time."""
    results_topic: bool = False
    """Send results to the topic `<prefix>.<environment>.shadow` as well."""
    parquet: Path | None = None
    """Write results to Parquet files in this directory as well."""
    parquet_mb: Annotated[float, Field(gt=0)] = 128
    """Megabytes at which a file is finished."""
    parquet_s: Annotated[float, Field(gt=0)] = 300
    """Seconds after which a file is finished."""


class Settings(Section):
    """Of the host as a whole; in the file they stand before all tables."""

    environment: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "production"
    """Which environment's releases the nodes of this host serve."""
    dsn: Annotated[Dsn, SECRET]
    """PostgreSQL, as a URI or as libpq's keywords."""
    listen_dsn: Annotated[Dsn, SECRET] = ""
    """PostgreSQL itself, where `dsn` names a pool that hands out connections by the transaction (PgBouncer):
    nodes listen there, and migrations hold a lock.
    """
    stale_after_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds since its last look at the database after which a node says so, in its answers and its log, and
    acts on the release that its scorers tell of.
    """
    refuse_after_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds since its last look at the database after which a node refuses transactions rather than serve a
    release that may have ended; without it, a node that is cut off as a whole serves on what it holds.
    """
    cache: Path = Path("~/.cache/scorewire/artifacts")
    """Artifacts of this host, shared by its nodes."""
    keep_releases: Annotated[int, Field(ge=1, le=32)] = 5
    """Releases that were current before and stay loaded for a return, as far as `scorer.models_mb` allows."""
    logs: Path = Path("~/.cache/scorewire/logs")
    """Logs of the nodes that `up` starts."""
    allow_wide_bind: bool = False
    """Listen beyond loopback although nothing is encrypted there."""
    allow_unsigned_code: bool = False
    """Run code packages although no key is trusted that could have signed them."""
    trusted_keys: dict[str, PublicKey] = {}
    """Name to public key (base64, as `keys new` prints it); with any, nodes refuse what none has signed."""
    hung_s: Annotated[float, Field(ge=1.0)] = 10.0
    """Seconds that an actor may be at one message before its node is replaced."""
    log: LogSettings = LogSettings()
    traces: TracesSettings = TracesSettings()
    up: UpSettings = UpSettings()
    preprocessor: PreprocessorSettings = PreprocessorSettings()
    scorer: ScorerSettings = ScorerSettings()
    gateway: GatewaySettings = GatewaySettings()
    code: CodeSettings = CodeSettings()
    kafka: KafkaSettings | None = None
    tee: TeeSettings = TeeSettings()
    sink: SinkSettings = SinkSettings()
    shadow: ShadowSettings = ShadowSettings()
    haproxy: HaproxySettings | None = None

    @property
    def direct_dsn(self) -> str:
        """The database without a pool in between."""
        return self.listen_dsn or self.dsn

    @property
    def trusted(self) -> Mapping[str, bytes]:
        """Name to public key, as bytes."""
        return {name: read_public(text) for name, text in self.trusted_keys.items()}


@dataclass(frozen=True)
class Configuration:
    """A configuration that was read.

    Attributes:
        settings: its values.
        found: what was set, and where.
        file: the file that was read; None where there was none.
        options: what --set said, for the processes that are started with it.
    """

    settings: Settings
    found: Layer
    file: Path | None
    options: tuple[str, ...]


def read_configuration(
    file: Path | None, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Configuration:
    """Read and check the configuration.

    Args:
        file: the TOML file; None reads ./scorewire.toml if it is there.
        options: `key=value` each, over all else.
        environment: where variables are looked up; by default this process's.

    Raises:
        ConfigError: the file is missing or no TOML, or values are wrong; names every key and its source.
    """
    if file is not None and not file.is_file():
        raise ConfigError(f"there is no configuration at {file}: see deploy/scorewire.toml for one")
    chosen = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    layers = (
        from_file(chosen) if chosen else {},
        from_variables(Settings, os.environ if environment is None else environment),
        from_options(options),
    )
    found = merged(Settings, layers)
    try:
        settings = Settings.model_validate(nested(found))
    except ValidationError as error:
        raise ConfigError(explained(Settings, found, error)) from None
    return Configuration(settings, found, chosen, tuple(options))


def load_settings(file: Path | None) -> Settings:
    """Read and check the configuration, and return its values; as read_configuration."""
    return read_configuration(file).settings


def spool_directory(settings: Settings) -> Path:
    """Return where the tee of this host keeps what waits for Kafka: a directory for each environment."""
    spool = settings.tee.spool or settings.cache.parent / "spool"
    return spool.expanduser().absolute() / settings.environment


def ring_directory(settings: Settings) -> Path:
    """Return where preprocessors make the rings that the tee of this host reads, one directory a spool."""
    rings, spool = settings.tee.rings, spool_directory(settings)
    if rings is not None:
        return rings.expanduser().absolute() / settings.environment
    memory = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    return memory / f"scorewire-{os.getuid()}-{hashlib.sha256(os.fsencode(spool)).hexdigest()[:16]}"


def node_name(role: str, index: int) -> str:
    """Name a node: its role, its host, its place there, and its process, so that each life has its own."""
    return f"{role}-{index}@{socket.gethostname()}/{os.getpid()}"
