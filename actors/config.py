"""The configuration of a host: scorewire.toml, environment variables over it, read once and typed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from actors.code.limits import CodeLimits
from actors.errors import ConfigError
from governance.errors import SignatureError
from governance.signing import read_public
from haproxy.settings import HaproxySettings
from models.pages import Pages
from models.problems import problems

#: The configuration file that is read when none is named.
DEFAULT_FILE = Path("scorewire.toml")

#: What the operating system takes as the path of a Unix socket.
_LONGEST_SOCKET_PATH = 100

Port = Annotated[int, Field(ge=0, le=65535)]


class PreprocessorSettings(BaseModel):
    """Preprocessor nodes of this host: one actor each, since preprocessing holds the GIL."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    nodes: Annotated[int, Field(ge=0, le=256)] = 2
    host: str = "127.0.0.1"
    #: The first node listens here, each further one at the next port; 0 picks free ones.
    port: Port = 7301
    #: The first node answers health checks here, each further one at the next port; 0 picks free ones.
    health_port: Port = 0


class ScorerSettings(BaseModel):
    """Scorer nodes of this host: each holds one actor a core, since scoring needs no GIL."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    nodes: Annotated[int, Field(ge=0, le=256)] = 2
    host: str = "127.0.0.1"
    actors: Annotated[int, Field(ge=1, le=256)] = max(1, (os.cpu_count() or 2) // 2)
    health_port: Port = 0
    #: How models are mapped: one copy a host, or in huge pages (a copy a node, if the file system has none).
    pages: Pages = "shared"
    #: Megabytes that all models of a node may have: the current, the coming and the earlier ones.
    models_mb: Annotated[float, Field(gt=0)] | None = None

    @property
    def models_bytes(self) -> int | None:
        """The budget in bytes."""
        return None if self.models_mb is None else int(self.models_mb * 1e6)


class CodeSettings(BaseModel):
    """Workers of code packages: processes of each node, for each package."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Processes that take requests, and those that are ready to follow one that dies.
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    spares: Annotated[int, Field(ge=0, le=8)] = 1
    #: Milliseconds that one request may take; a worker that takes longer is killed, and that request fails.
    budget_ms: Annotated[float, Field(gt=0, le=60_000)] = 100
    #: Megabytes of address space that a worker may have, Python and libraries included.
    memory_mb: Annotated[float, Field(ge=64)] = 1024
    #: Seconds that a package may take to load.
    start_s: Annotated[float, Field(gt=0, le=600)] = 30

    @property
    def limits(self) -> CodeLimits:
        """What one worker may take."""
        return CodeLimits(self.budget_ms / 1e3, int(self.memory_mb * 1e6), self.start_s)


class KafkaSettings(BaseModel):
    """The Kafka that copies of live transactions go to, and are read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bootstrap_servers: Annotated[str, Field(min_length=1)]
    #: Topics are `<prefix>.<environment>.live`, `.dead` and `.shadow`.
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")] = "scorewire"
    #: Partitions and replicas of topics that are made; a topic that exists stays as it is.
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 12
    replication: Annotated[int, Field(ge=1, le=32)] = 3
    #: Make topics that are missing; without, they must exist.
    create_topics: bool = True
    #: Passed on to librdkafka as they are: SASL, TLS, tuning.
    options: dict[str, str] = Field(default_factory=dict)


class TeeSettings(BaseModel):
    """The tee of this host: what it keeps while it, or Kafka, is away, and what it leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Where records wait while Kafka is away; by default `spool` beside `cache`.
    spool: Path | None = None
    #: Megabytes that may wait there; beyond them the oldest go.
    spool_mb: Annotated[float, Field(gt=0)] = 1024
    #: Megabytes that a preprocessor keeps while its tee is away; beyond them the oldest go.
    memory_mb: Annotated[float, Field(gt=0)] = 64
    #: The share of transactions that are copied, chosen by a hash of their ids.
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    #: A CEL expression over tx, scores and score; where it is true, a transaction is copied in any case.
    always: str = ""
    #: The key of the hashes that stand for fields with `store = "hash"`; without it they are dropped.
    hash_key: SecretStr = SecretStr("")


class SinkSettings(BaseModel):
    """Sinks of this host: they bring what the tee sent from Kafka to PostgreSQL."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    nodes: Annotated[int, Field(ge=0, le=64)] = 1
    #: Records that are stored at once at most.
    batch: Annotated[int, Field(ge=1, le=100_000)] = 5_000


class ShadowSettings(BaseModel):
    """Shadow nodes of this host: each is one of the group that reads the live topic."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    nodes: Annotated[int, Field(ge=0, le=256)] = 0
    #: Records that are evaluated, stored and committed together, at most.
    batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    #: Megabytes of address space that a candidate's process may take beyond those of an empty one.
    memory_mb: Annotated[float, Field(ge=100)] = 4000
    #: How far candidates stand back behind live nodes of the same host.
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    #: Seconds of CPU time that any batch may take, and milliseconds more for each of its records.
    cpu_s: Annotated[float, Field(ge=1)] = 5.0
    cpu_ms_record: Annotated[float, Field(ge=0)] = 20.0
    #: Seconds by the clock until a batch must be answered, on top of four times its CPU time.
    hang_s: Annotated[float, Field(ge=1)] = 30.0
    #: Send results to the topic `<prefix>.<environment>.shadow` as well.
    results_topic: bool = False
    #: Write results to Parquet files in this directory as well.
    parquet: Path | None = None
    #: A file is finished when it has so many megabytes, or is so many seconds old.
    parquet_mb: Annotated[float, Field(gt=0)] = 128
    parquet_s: Annotated[float, Field(gt=0)] = 300


class Settings(BaseSettings):
    """All of it. Variables such as SCOREWIRE_DSN or SCOREWIRE_SCORER__NODES come before the file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="SCOREWIRE_",
        env_nested_delimiter="__",
    )

    environment: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "production"
    #: PostgreSQL, as a URI or as libpq's keywords.
    dsn: str
    #: PostgreSQL itself, where `dsn` names a pool that hands out connections by the transaction (PgBouncer):
    #: nodes listen there, and migrations hold a lock.
    listen_dsn: str = ""
    #: Seconds since its last look at the database after which a node says so, in its answers and its log.
    stale_after_s: Annotated[float, Field(gt=0)] = 5.0
    #: Artifacts of this host, shared by its nodes.
    cache: Path = Path("~/.cache/scorewire/artifacts")
    #: Releases that were current before and stay loaded for a return, as far as `scorer.models_mb` allows.
    keep_releases: Annotated[int, Field(ge=1, le=32)] = 5
    #: Logs of the nodes that `up` starts.
    logs: Path = Path("~/.cache/scorewire/logs")
    #: Listen beyond loopback although nothing is encrypted there.
    allow_wide_bind: bool = False
    #: Run code packages although no key is trusted that could have signed them.
    allow_unsigned_code: bool = False
    #: Name to public key (base64, as `keys new` prints it); with any, nodes refuse what none has signed.
    trusted_keys: dict[str, str] = Field(default_factory=dict)
    #: Seconds that an actor may be at one message before its node is replaced.
    hung_s: Annotated[float, Field(ge=1.0)] = 10.0
    preprocessor: PreprocessorSettings = PreprocessorSettings()
    scorer: ScorerSettings = ScorerSettings()
    code: CodeSettings = CodeSettings()
    #: Absent: no copy of live transactions is kept.
    kafka: KafkaSettings | None = None
    tee: TeeSettings = TeeSettings()
    sink: SinkSettings = SinkSettings()
    shadow: ShadowSettings = ShadowSettings()
    #: Absent: callers reach the preprocessors themselves.
    haproxy: HaproxySettings | None = None

    @field_validator("trusted_keys")
    @classmethod
    def _keys(cls, keys: dict[str, str]) -> dict[str, str]:
        for name, text in keys.items():
            try:
                read_public(text)
            except SignatureError as error:
                raise ValueError(f"{name}: {error}") from error
        return keys

    @property
    def direct_dsn(self) -> str:
        """The database without a pool in between."""
        return self.listen_dsn or self.dsn

    @property
    def trusted(self) -> Mapping[str, bytes]:
        """Name to public key, as bytes."""
        return {name: read_public(text) for name, text in self.trusted_keys.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let variables win over the file; read no .env and no secrets directory."""
        del init_settings, dotenv_settings, file_secret_settings
        return env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(file: Path | None) -> Settings:
    """Read and check the configuration.

    Args:
        file: the TOML file; None reads ./scorewire.toml if it is there.

    Raises:
        ConfigError: the file is missing or no TOML, or values are wrong; names every key at once.
    """
    if file is not None and not file.is_file():
        raise ConfigError(f"there is no configuration at {file}: see deploy/scorewire.toml for one")
    chosen = file or DEFAULT_FILE

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=chosen)

    try:
        settings: Settings = FromFile()  # type: ignore[call-arg]  # its sources fill it
    except ValidationError as error:
        raise ConfigError(f"{chosen}: {problems(error)}") from error
    except ValueError as error:  # not TOML
        raise ConfigError(f"{chosen}: {error}") from error
    return settings


def settings_of(document: str) -> Settings:
    """Return the configuration that another process of this host has read, from its JSON.

    Raises:
        ValidationError: it is none.
    """

    class FromParent(Settings):
        @classmethod
        def settings_customise_sources(  # type: ignore[override]  # the others are of no use here
            cls, _: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return FromParent(**json.loads(document))


def spool_directory(settings: Settings) -> Path:
    """Return where the tee of this host keeps what waits for Kafka: a directory for each environment."""
    spool = settings.tee.spool or settings.cache.parent / "spool"
    return spool.expanduser().absolute() / settings.environment


def tee_address(settings: Settings) -> str:
    """Return where the tee of this host listens: a Unix socket that its user alone can reach."""
    path = spool_directory(settings) / "tee.sock"
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"scorewire-{os.getuid()}-{digest}" / "tee.sock"
    return f"ipc://{path}"


def node_name(role: str, index: int) -> str:
    """Name a node: its role, its host, its place there, and its process, so that each life has its own."""
    return f"{role}-{index}@{socket.gethostname()}/{os.getpid()}"
