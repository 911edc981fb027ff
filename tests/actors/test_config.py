"""The configuration: one file, variables over it, all that is wrong named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.config import load_settings
from actors.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scorewire.toml"
    path.write_text(text)
    return path


def test_what_is_not_named_has_its_default(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, 'dsn = "host=db"\n[scorer]\nnodes = 3\n'))
    assert (settings.environment, settings.scorer.nodes, settings.preprocessor.nodes) == ("production", 3, 2)
    assert settings.scorer.host == "127.0.0.1"
    assert not settings.allow_wide_bind


def test_variables_come_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOREWIRE_DSN", "host=other")
    monkeypatch.setenv("SCOREWIRE_SCORER__NODES", "5")
    settings = load_settings(written(tmp_path, 'dsn = "host=db"\n[scorer]\nnodes = 3\n'))
    assert (settings.dsn, settings.scorer.nodes) == ("host=other", 5)


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    text = 'environment = "Production!"\nsurprise = 1\n[scorer]\nnodes = -1\n[preprocessor]\nport = 70000\n'
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, text))
    for key in ("environment", "surprise", "scorer.nodes", "preprocessor.port", "dsn"):
        assert key in str(caught.value)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"scorewire\.toml"):
        load_settings(written(tmp_path, "dsn = "))
