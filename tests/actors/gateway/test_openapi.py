"""The OpenAPI document: what it says holds, by schemathesis' judgement."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.actors.gateway.conftest import House

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_schemathesis_finds_nothing_that_the_document_does_not_say(house: House, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={CONFIG}",
        "run",
        f"http://{house.url}/openapi.json",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=5",
        "--seed=1",
        "--no-color",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    (count,) = re.findall(r"([0-9]+) generated, [0-9]+ passed", done.stdout)
    assert int(count) > 200
    assert "errors.internal" not in house.state.counters["gateway"]()


def test_the_document_has_the_transactions_of_the_release_and_every_path(house: House) -> None:
    document: dict[str, Any] = house.ask("GET", "/openapi.json").json
    (schema,) = document["components"]["schemas"]["Transaction"]["allOf"]
    assert schema["required"] == ["a", "kind"]
    for path, item in document["paths"].items():
        filled = path.replace("{model_name}", "champion").replace("{model_version}", "3")
        for method in ("get", "post"):
            status = house.ask(method.upper(), filled, b"{}" if method == "post" else None).status
            assert (status == 405) == (method not in item), (method, path)


def test_the_document_of_a_gateway_without_a_release_takes_any_transaction(build: Any) -> None:
    from dataclasses import replace

    house = build()
    house.state.holdings = replace(house.state.holdings, releases={}, current=None)
    document = house.ask("GET", "/openapi.json").json
    assert "allOf" not in document["components"]["schemas"]["Transaction"]
