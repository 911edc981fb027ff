"""Clients of others, as they are: Triton's, KServe's, and the requests of MLServer's own tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.actors.gateway.conftest import House

triton: Any = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")

ROW = [0.25, -1.5, 1.0]
#: Names a Python with kserve and one with mlserver, with a colon between them.
PYTHONS = "SCOREWIRE_TEST_CLIENTS"


@pytest.fixture
def client(house: House) -> Iterator[Any]:
    with triton.InferenceServerClient(house.url) as client:
        yield client


def given(name: str, array: np.ndarray[Any, Any], datatype: str, *, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_tritons_client_asks_for_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("champion")
    assert client.is_model_ready("champion", "3")
    assert not client.is_model_ready("champion", "4")
    assert client.get_server_metadata()["name"] == "scorewire"
    assert client.get_model_metadata("champion", "3")["inputs"][0]["shape"] == [-1, 3]


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_has_vectors_scored(house: House, client: Any, *, binary: bool) -> None:
    rows = np.array([ROW, [0.5, 2.0, 0.0]], np.float32)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("1", "predict_proba")]
    features = given("features", rows, "FP32", binary=binary)
    for outputs in (wanted, None):
        answer = client.infer("champion", [features], outputs=outputs, request_id="r1", model_version="3")
        assert answer.as_numpy("1").tolist() == house.forest.predict_proba(rows)[:, 1].tolist()
        assert answer.get_response()["id"] == "r1"
        assert answer.get_response()["model_version"] == "3"
    table = client.infer("champion", [features], outputs=wanted).as_numpy("predict_proba")
    assert np.array_equal(table, house.forest.predict_proba(rows))
    later = client.async_infer("champion", [features], priority=2, timeout=5_000_000)
    assert later.get_result().as_numpy("1").shape == (2,)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritons_client_packs_and_unpacks(house: House, client: Any, algorithm: str) -> None:
    rows = np.random.default_rng(1).standard_normal((500, 3)).astype(np.float32)
    for binary in (True, False):
        answer = client.infer(
            "champion",
            [given("features", rows, "FP32", binary=binary)],
            outputs=[triton.InferRequestedOutput("1", binary_data=binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert answer.as_numpy("1").tolist() == house.forest.predict_proba(rows)[:, 1].tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_has_transactions_scored(house: House, client: Any, *, binary: bool) -> None:
    fields = [
        given("id", np.array([b"x", "ü".encode()], object), "BYTES", binary=binary),
        given("a", np.array([0.25, 1.0]), "FP64", binary=binary),
        given("b", np.array([3, 4]), "INT64", binary=binary),
        given("kind", np.array([b"online", b"shop"], object), "BYTES", binary=binary),
    ]
    answer = client.infer("champion-transactions", fields)
    assert answer.as_numpy("1").tolist() == [
        house.score_of([0.25, 3.0, 1.0]),
        house.score_of([1.0, 4.0, 0.0]),
    ]
    assert answer.as_numpy("release").tolist() == [3, 3]
    assert json.loads(answer.as_numpy("trace")[1])["release"] == 3


def test_tritons_client_tells_what_was_wrong(client: Any) -> None:
    features = given("features", np.zeros((1, 2), np.float32), "FP32")
    with pytest.raises(triton.InferenceServerException, match="has the shape") as caught:
        client.infer("champion", [features])
    assert caught.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="there is no model 'nobody'"):
        client.infer("nobody", [features])


def test_kserves_client_and_mlservers_types_read_what_is_answered(house: House) -> None:
    pythons = os.environ.get(PYTHONS, "")
    if not pythons:
        pytest.skip(f"name in {PYTHONS} a Python with kserve and one with mlserver, a colon between them")
    script = Path(__file__).with_name("foreign_clients.py")
    found: dict[str, Any] = {}
    for python in pythons.split(os.pathsep):
        command = [python, str(script), f"http://{house.url}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout.splitlines()[-1])
    score, said = [house.score_of(ROW)], found["kserve"]
    assert (said["live"], said["ready"], said["model"], said["nobody"]) == (True, True, True, False)
    assert said["json"]["1"] == said["binary"]["1"] == found["mlserver"]["1"] == score
    assert (said["json_id"], said["binary_id"]) == ("json", "binary")
    assert said["transactions"]["1"] == [house.score_of([0.25, float("nan"), 1.0])]
    assert "at `$.inputs`" in said["error"]


def mlserver_request(shape: list[int], data: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "input-0", "shape": shape, "datatype": "INT32", "data": data}], **more}


BOTH = [{"name": "predict"}, {"name": "predict_proba"}]
#: As they stand in MLServer's repository (SeldonIO/MLServer, Apache-2.0), `inference-request.json` of each.
MLSERVER = {
    "tests/testdata": mlserver_request([1, 3], [1, 2, 3]),
    "runtimes/sklearn/tests/testdata": mlserver_request([3], [1, 2, 3], outputs=BOTH),
    "runtimes/lightgbm/tests/testdata": mlserver_request([1, 3], [[1, 2, 3]], outputs=BOTH),
    "runtimes/xgboost/tests/testdata": mlserver_request([1, 3], [[1, 2, 3]]),
    "runtimes/alibi-detect/tests_alibi_detect/testdata": mlserver_request([1, 3], [[1, 2, 3]]),
    "runtimes/mlflow/tests/testdata": {
        "inputs": [{"name": "foo", "shape": [3], "datatype": "FP64", "data": [1, 2, 3]}],
        "parameters": {"content_type": "dict"},
        "outputs": BOTH,
    },
}


@pytest.mark.parametrize("name", MLSERVER)
def test_requests_of_mlservers_tests_are_answered(house: House, name: str) -> None:
    reply = house.ask("POST", "/v2/models/champion/infer", MLSERVER[name])
    assert reply.status == 200, reply.body
    found = {one["name"]: one["data"] for one in reply.json["outputs"]}
    row = np.array([[1, 2, 3]], np.float32)
    if "outputs" in MLSERVER[name]:
        assert found == {
            "predict": house.forest.predict(row).tolist(),
            "predict_proba": house.forest.predict_proba(row).ravel().tolist(),
        }
    else:
        assert found["1"] == [house.score_of([1, 2, 3])]
    # MLServer's own types send null where nothing was said.
    spelt = {"id": None, "parameters": None, "outputs": None, **MLSERVER[name]}
    spelt["inputs"] = [{"parameters": None, **one} for one in spelt["inputs"]]
    assert house.ask("POST", "/v2/models/champion/infer", spelt).status == 200


def test_an_unknown_datatype_of_mlservers_tests_is_refused(house: House) -> None:
    body = mlserver_request([1, 3], [1, 2, 3])
    body["inputs"][0]["datatype"] = "INT322"
    assert house.ask("POST", "/v2/models/champion/infer", body).status == 400
