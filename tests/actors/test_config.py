"""The configuration: file, variables over it, --set over both; what is wrong is named with its source."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from actors.config import Settings, load_settings, read_configuration
from actors.config_keys import keys, sections
from actors.errors import ConfigError, Problem

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    path = Path("scorewire.toml")
    path.write_text(text)
    return path


def read(text: str, *options: str, **variables: str) -> Settings:
    return read_configuration(written(text), options, variables).settings


def wrong(text: str, *options: str, **variables: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        read(text, *options, **variables)
    return list(caught.value.problems)


def test_what_is_not_named_has_its_default() -> None:
    settings = read('dsn = "host=db"\n[scorer]\nnodes = 3\n')
    assert (settings.environment, settings.scorer.nodes, settings.preprocessor.nodes) == ("production", 3, 2)
    assert settings.scorer.host == "127.0.0.1"
    assert not settings.allow_wide_bind


def test_the_file_of_the_working_directory_is_read_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written('dsn = "host=db"\n')
    assert load_settings(None).dsn == "host=db"
    Path("scorewire.toml").unlink()
    monkeypatch.setenv("SCOREWIRE_DSN", "host=variable")
    assert load_settings(None).dsn == "host=variable"


def test_variables_come_before_the_file_and_set_before_both() -> None:
    text = 'dsn = "host=db"\n[scorer]\nnodes = 3\nactors = 2\n[preprocessor]\nnodes = 1\n'
    variables = {"SCOREWIRE_DSN": "host=other", "SCOREWIRE_SCORER__NODES": "5"}
    settings = read(text, "scorer.nodes=6", "environment=qa", **variables)
    assert (settings.dsn, settings.environment) == ("host=other", "qa")
    assert (settings.scorer.nodes, settings.scorer.actors, settings.preprocessor.nodes) == (6, 2, 1)


def test_values_of_set_are_those_of_toml_and_else_text() -> None:
    options = (
        "tee.sample=0.5",
        "shadow.results_topic = true",
        'kafka = {bootstrap_servers = "a:1", options = {"linger.ms" = "5"}}',
        'kafka.options."session.timeout.ms"="6000"',
        "dsn=host=db user=me",
    )
    settings = read("", *options)
    assert (settings.tee.sample, settings.shadow.results_topic, settings.dsn) == (
        0.5,
        True,
        "host=db user=me",
    )
    assert settings.kafka is not None
    assert settings.kafka.options == {"linger.ms": "5", "session.timeout.ms": "6000"}
    for nothing in ("scorer.nodes", "=4", "two words=3"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            read('dsn = "host=db"', nothing)


def test_tables_of_several_sources_are_put_together() -> None:
    key = base64.b64encode(bytes(range(32))).decode()
    text = f'dsn = "host=db"\n[trusted_keys]\nold = "{key}"\n[kafka]\nbootstrap_servers = "a:1"\n'
    variables = {"SCOREWIRE_TRUSTED_KEYS": f'{{"new": "{key}"}}', "SCOREWIRE_KAFKA__PARTITIONS": "3"}
    settings = read(text, f'trusted_keys.third="{key}"', **variables)
    assert set(settings.trusted_keys) == {"old", "new", "third"}
    assert settings.kafka is not None
    assert (settings.kafka.bootstrap_servers, settings.kafka.partitions) == ("a:1", 3)
    (problem,) = wrong(text, SCOREWIRE_KAFKA="a:1")
    assert (problem.key, problem.source) == ("kafka", "SCOREWIRE_KAFKA")
    assert "JSON" in problem.said


def test_all_that_is_wrong_is_named_at_once_with_key_and_source() -> None:
    text = """environment = "Production!"   # no capitals
surprise = 1

[preprocessor]
port = 70000
[trusted_keys]
one = [
    1,
]
"""
    found = wrong(text, "scorer.nodes=-1", SCOREWIRE_SINK__BATCH="many")
    assert {(problem.key, problem.source) for problem in found} == {
        ("environment", "scorewire.toml:1"),
        ("surprise", "scorewire.toml:2"),
        ("preprocessor.port", "scorewire.toml:5"),
        ("trusted_keys.one", "scorewire.toml:7"),
        ("sink.batch", "SCOREWIRE_SINK__BATCH"),
        ("scorer.nodes", "--set scorer.nodes"),
        ("dsn", ""),
    }
    said = {problem.key: problem.said for problem in found}
    assert "70000" in said["preprocessor.port"]
    assert "many" in said["sink.batch"]
    assert "SCOREWIRE_DSN" in said["dsn"]
    assert "dsn_file" in said["dsn"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("enviroment", "environment"),
        ("scorer.node", "scorer.nodes"),
        ("nodes", "scorer.nodes"),
        ("score.nodes", "scorer"),
        ("dns_file", "dsn_file"),
        ("tees", "tee"),
    ],
)
def test_what_may_have_been_meant_by_an_unknown_key_is_said(key: str, meant: str) -> None:
    (problem,) = wrong('dsn = "host=db"', f"{key}=1")
    assert problem.source == f"--set {key}"
    assert meant in problem.said.partition("did you mean ")[2].rstrip("?").split(" or ")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SCOREWIRE_SCORER_NODES", "SCOREWIRE_SCORER__NODES"),
        ("SCOREWIRE_ENVIRONEMENT", "SCOREWIRE_ENVIRONMENT"),
        ("SCOREWIRE_SINK__BATCHES", "SCOREWIRE_SINK__BATCH"),
    ],
)
def test_unknown_variables_are_found(variable: str, meant: str) -> None:
    (problem,) = wrong('dsn = "host=db"', **{variable: "4"})
    assert problem.source == variable
    assert f"there is no such variable: did you mean {meant}" in problem.said


def test_variables_that_are_no_configuration_are_left_alone() -> None:
    links = {
        "SCOREWIRE_TEST_DSN": "host=test",
        "SCOREWIRE_SERVICE_HOST": "10.0.0.1",
        "SCOREWIRE_SERVICE_PORT_ZMQ": "7201",
        "SCOREWIRE_PORT": "tcp://10.0.0.1:7201",
        "SCOREWIRE_PREPROCESSOR_PORT_7301_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert read('dsn = "host=db"', **links) == read('dsn = "host=db"')
    (problem,) = wrong('dsn = "host=db"', SCOREWIRE_SCORER__PORT="7301")
    assert problem.source == "SCOREWIRE_SCORER__PORT"


def test_a_file_that_is_missing_or_no_toml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_settings(Path("none.toml"))
    with pytest.raises(ConfigError, match=r"scorewire\.toml.*line 1"):
        load_settings(written("dsn = \n"))


def test_secrets_are_read_from_files() -> None:
    for name in ("dsn", "kafka", "key"):
        Path(name).write_text(f"host={name} password={SECRET}\n")
    text = """dsn_file = "dsn"
[kafka]
bootstrap_servers = "a:1"
options = {"sasl.password_file" = "kafka"}
"""
    settings = read(text, SCOREWIRE_TEE__HASH_KEY_FILE="key")
    assert settings.dsn == f"host=dsn password={SECRET}"
    assert settings.tee.hash_key == f"host=key password={SECRET}"
    assert settings.kafka is not None
    assert settings.kafka.options == {"sasl.password": f"host=kafka password={SECRET}"}
    # A later source wins over the file, which then need not be there.
    assert read('dsn_file = "nowhere"', SCOREWIRE_DSN="host=variable").dsn == "host=variable"
    assert read('dsn = "host=a"', "dsn_file=dsn").dsn == f"host=dsn password={SECRET}"


def test_a_secrets_file_that_is_of_no_use_is_named() -> None:
    Path("empty").write_text("\n")
    Path("junk").write_bytes(b"\xff\xfe")
    for text, said in (
        ('dsn_file = "nowhere"', "cannot read nowhere"),
        ('dsn_file = "empty"', "empty is empty"),
        ('dsn_file = "junk"', "cannot read junk"),
        ('dsn_file = "a"\ndsn = "host=b"', "keep one"),
    ):
        (problem,) = wrong(text)
        assert (problem.key, problem.source) == ("dsn_file", "scorewire.toml:1")
        assert said in problem.said
    # Only secrets come from files.
    (problem,) = wrong('dsn = "host=db"\nenvironment_file = "empty"')
    assert problem.key == "environment_file"


def test_no_error_shows_a_secret() -> None:
    Path("file").write_text(f"{SECRET} and no dsn")
    text = f"""listen_dsn = "{SECRET} {SECRET}"
dns = "postgresql://user:{SECRET}@db/x"
dsn_file = "file"
[kafka]
options = {{ "sasl.password" = {{ a = "{SECRET}" }} }}
[tee]
hash_key = ["{SECRET}"]
hash_keys = "{SECRET}"
"""
    with pytest.raises(ConfigError) as caught:
        read(text, f"scorer.password={SECRET}", SCOREWIRE_PASSWORD=SECRET)
    assert len(caught.value.problems) == 9
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert SECRET not in repr(read(f'dsn = "password={SECRET}"', f"tee.hash_key={SECRET}"))


def test_every_key_and_section_says_what_it_means() -> None:
    assert len(keys(Settings)) > 50
    for key in keys(Settings).values():
        assert len(key.meaning) > 8, key.name
    for section in sections(Settings):
        assert len(section.meaning) > 8, section.path
