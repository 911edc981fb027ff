"""The Open Inference Protocol as its specification has it, with the extension for binary data."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tests.actors.gateway.conftest import GOOD, House
from tests.actors.test_serving import wait_until

INFER = "/v2/models/champion/infer"
ROW = [0.25, -1.5, 1.0]


def request(*inputs: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **more}


def tensor(
    name: str = "features", shape: Any = (1, 3), datatype: str = "FP32", **more: Any
) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


def outputs(reply: Any) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    return {one["name"]: one for one in reply.json["outputs"]}


def test_the_server_and_its_models_say_what_they_are(house: House) -> None:
    server = house.ask("GET", "/v2").json
    assert server["name"] == "scorewire"
    assert "binary_tensor_data" in server["extensions"]
    model = house.ask("GET", "/v2/models/champion").json
    assert (model["name"], model["versions"]) == ("champion", ["3"])
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}]
    assert {one["name"]: one["datatype"] for one in model["outputs"]} == {"0": "FP64", "1": "FP64"}
    assert house.ask("GET", "/v2/models/champion/versions/3").json == model
    fields = house.ask("GET", "/v2/models/champion-transactions").json["inputs"]
    assert {one["name"]: one["datatype"] for one in fields} == {
        "id": "BYTES",
        "a": "FP64",
        "b": "FP64",
        "kind": "BYTES",
    }


def test_health_is_told_of_the_server_and_of_each_model(house: House) -> None:
    assert house.ask("GET", "/v2/health/live").json == {"live": True}
    assert house.ask("GET", "/v2/health/ready").json["ready"] is True
    for version in ("", "/versions/3"):
        ready = house.ask("GET", f"/v2/models/champion{version}/ready")
        assert (ready.status, ready.json) == (200, {"name": "champion", "ready": True})
    for path in ("/v2/models/fraud", "/v2/models/champion/versions/4", "/v2/models/champion/versions/v1"):
        for ending in ("", "/ready"):
            reply = house.ask("GET", path + ending)
            assert reply.status == 404
            assert isinstance(reply.json["error"], str)


def test_a_gateway_without_the_database_acts_on_what_its_scorers_act_on(build: Any) -> None:
    house = build()
    scorer = next(node for node in house.nodes if node.role == "scorer")
    scorer.holdings = replace(scorer.holdings, activation=7)
    house.state.stale_after_s, house.state.looked_at = 5.0, time.monotonic() - 60.0
    wait_until(lambda: house.state.holdings.activation == 7)
    assert outputs(house.ask("POST", INFER, request(tensor(data=ROW))))
    # One that it does not hold is served by others.
    (held,) = scorer.holdings.releases.values()
    more = MappingProxyType({3: held, 4: replace(held, release=4)})
    scorer.holdings = replace(scorer.holdings, releases=more, current=4, activation=8)
    wait_until(lambda: not house.state.is_ready())
    assert house.ask("POST", INFER, request(tensor(data=ROW))).status == 503


def test_before_the_first_release_it_is_alive_and_not_ready(build: Any) -> None:
    house = build()
    house.state.holdings = replace(house.state.holdings, releases={}, current=None)
    assert house.ask("GET", "/v2/health/live").status == 200
    for path in ("/v2/health/ready", "/v2/models/champion/ready", "/v2/models/champion"):
        reply = house.ask("GET", path)
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "not_ready", "1")


@pytest.mark.parametrize(
    ("shape", "data"), [((2, 3), ROW + ROW), ((2, 3), [ROW, ROW]), ((3,), ROW), ((1, 3), [ROW])]
)
def test_rows_are_scored_flat_or_nested(house: House, shape: Any, data: Any) -> None:
    reply = house.ask("POST", INFER, request(tensor(shape=shape, data=data), id="42"))
    found = outputs(reply)
    rows = 2 if shape == (2, 3) else 1
    assert (reply.json["id"], reply.json["model_name"], reply.json["model_version"]) == (
        "42",
        "champion",
        "3",
    )
    assert (found["1"]["shape"], found["1"]["datatype"]) == ([rows], "FP64")
    assert found["1"]["data"] == [house.score_of(ROW)] * rows


def test_every_datatype_of_numbers_is_taken_in_json_and_in_bytes(house: House) -> None:
    from actors.gateway.tensors import DTYPES

    values = [1, 0, 1]
    for datatype, dtype in DTYPES.items():
        data = [bool(v) for v in values] if datatype == "BOOL" else values
        named = outputs(house.ask("POST", INFER, request(tensor(datatype=datatype, data=data))))
        raw = np.array(values, dtype).tobytes()
        head = tensor(datatype=datatype, parameters={"binary_data_size": len(raw)})
        text = json.dumps(request(head)).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        packed = outputs(house.ask("POST", INFER, text + raw, headers))
        assert named["1"]["data"] == packed["1"]["data"] == [house.score_of(values)], datatype


def test_missing_numbers_arrive_as_null_nan_or_bytes(house: House) -> None:
    expected = house.score_of([0.25, float("nan"), 1.0])
    null = request(tensor(data=[0.25, None, 1.0]))
    assert outputs(house.ask("POST", INFER, null))["1"]["data"] == [expected]
    nan = json.dumps(request(tensor(data=[0.25, float("nan"), 1.0]))).encode()
    assert b"NaN" in nan
    assert outputs(house.ask("POST", INFER, nan))["1"]["data"] == [expected]


def test_columns_by_the_names_of_the_features_are_a_matrix(house: House) -> None:
    columns = [
        tensor("kind", (2, 1), "INT64", data=[1, 0]),
        tensor("a", (2,), "FP64", data=[0.25, 0.5]),
        tensor("b", (2, 1), "FP32", data=[None, 2.0]),
    ]
    found = outputs(house.ask("POST", INFER, request(*columns)))
    assert found["1"]["data"] == [
        house.score_of([0.25, float("nan"), 1.0]),
        house.score_of([0.5, 2.0, 0.0]),
    ]


def test_outputs_are_those_that_were_named_and_in_bytes_if_so_wanted(house: House) -> None:
    wanted = [{"name": "1", "parameters": {"binary_data": True}}, {"name": "predict"}]
    reply = house.ask("POST", INFER, request(tensor(shape=(2, 3), data=ROW * 2), outputs=wanted))
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers["inference-header-content-length"])
    head, tail = json.loads(reply.body[:length]), reply.body[length:]
    score, label = head["outputs"]
    assert score["parameters"] == {"binary_data_size": 16}
    assert "data" not in score
    assert struct.unpack("<2d", tail) == (house.score_of(ROW),) * 2
    assert (label["datatype"], label["data"]) == ("INT64", [int(house.forest.predict([ROW])[0])] * 2)
    everything = house.ask("POST", INFER, request(tensor(data=ROW), parameters={"binary_data_output": True}))
    assert len(everything.body) - int(everything.headers["inference-header-content-length"]) == 16


def test_versions_are_releases(house: House) -> None:
    body = request(tensor(data=ROW))
    assert house.ask("POST", "/v2/models/champion/versions/3/infer", body).json["model_version"] == "3"
    for version in ("4", "latest"):
        reply = house.ask("POST", f"/v2/models/champion/versions/{version}/infer", body)
        assert (reply.status, reply.json["field"]) == (404, "version")


def test_transactions_are_inputs_by_field(house: House) -> None:
    path = "/v2/models/champion-transactions/infer"
    fields = [
        tensor("id", (2,), "BYTES", data=["x", "y"]),
        tensor("a", (2, 1), "INT64", data=[1, 2]),
        tensor("kind", (2,), "BYTES", data=["shop", "online"]),
    ]
    found = outputs(house.ask("POST", path, request(*fields)))
    nan = float("nan")
    assert found["1"]["data"] == [house.score_of([1.0, nan, 0.0]), house.score_of([2.0, nan, 1.0])]
    assert found["release"]["data"] == [3, 3]
    assert (found["decision"]["data"], found["fallback"]["data"]) == (["", ""], [False, False])
    assert json.loads(found["trace"]["data"][0])["release"] == 3
    whole = request(tensor("transaction", (1,), "BYTES", data=[json.dumps(GOOD)]))
    assert outputs(house.ask("POST", path, whole))["1"]["data"] == [house.score_of([0.25, nan, 1.0])]
    # The same in bytes: each text behind its length.
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"shop", b"online"))
    head = request(
        tensor("a", (2,), "FP64", parameters={"binary_data_size": 16}),
        tensor("kind", (2,), "BYTES", parameters={"binary_data_size": len(raw)}),
        outputs=[{"name": "decision", "parameters": {"binary_data": True}}, {"name": "1"}],
    )
    text = json.dumps(head).encode()
    body = text + np.array([1.0, 2.0]).tobytes() + raw
    reply = house.ask("POST", path, body, {"Inference-Header-Content-Length": str(len(text))})
    length = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:length])["outputs"][1]["data"] == found["1"]["data"]
    assert reply.body[length:] == struct.pack("<II", 0, 0)


def test_deadline_priority_and_timeout_are_parameters(house: House) -> None:
    for parameters in (
        {"deadline_ms": 5000},
        {"timeout": 5_000_000},
        {"priority": 2},
        {"priority": "replay"},
    ):
        reply = house.ask("POST", INFER, request(tensor(data=ROW), parameters=parameters))
        assert reply.status == 200, reply.body
    for parameters in ({"deadline_ms": "soon"}, {"timeout": 0}, {"priority": "vip"}):
        reply = house.ask("POST", INFER, request(tensor(data=ROW), parameters=parameters))
        assert (reply.status, reply.json["code"]) == (400, "protocol")


BAD: dict[str, tuple[Any, str, str]] = {
    "no inputs": ({}, "inputs", "missing"),
    "none of them": (request(), "inputs", "range"),
    "an unknown datatype": (request(tensor(datatype="INT322", data=ROW)), "inputs[0].datatype", "value"),
    "no data": (request(tensor()), "features", "missing"),
    "too few elements": (request(tensor(data=[1, 2])), "features", "shape"),
    "too many": (request(tensor(shape=(1, 2), data=ROW)), "features", "shape"),
    "another width": (request(tensor(shape=(1, 2), data=[1, 2])), "features", "shape"),
    "another rank": (request(tensor(shape=(1, 3, 1), data=ROW)), "features", "shape"),
    "no rows": (request(tensor(shape=(0, 3), data=[])), "inputs", "shape"),
    "nested here and not there": (request(tensor(data=[[1, 2], 3])), "features", "nesting"),
    "text among numbers": (request(tensor(data=[1, "2", 3])), "features", "type"),
    "truth among numbers": (request(tensor(data=[1, True, 3])), "features", "type"),
    "a number that the datatype cannot hold": (
        request(tensor(datatype="UINT8", data=[1, 2, 300])),
        "features",
        "range",
    ),
    "a number beyond float32": (request(tensor(datatype="FP64", data=[1, 2, 1e39])), "features", "range"),
    "one of float32 beyond it": (request(tensor(data=[1, 2, 1e39])), "features", "range"),
    "texts where numbers belong": (
        request(tensor(datatype="BYTES", data=["1", "2", "3"])),
        "features",
        "type",
    ),
    "twice the same": (request(tensor(data=ROW), tensor(data=ROW)), "features", "twice"),
    "an input too many": (
        request(tensor(data=ROW), tensor("other", data=ROW)),
        "other",
        "name",
    ),
    "bytes that do not come": (
        request(tensor(parameters={"binary_data_size": 12})),
        "features",
        "binary_data_size",
    ),
    "shared memory": (
        request(tensor(parameters={"shared_memory_region": "x"}, data=ROW)),
        "features",
        "shared_memory",
    ),
    "an output that nobody has": (
        request(tensor(data=ROW), outputs=[{"name": "x"}]),
        "outputs",
        "name",
    ),
    "classes": (
        request(tensor(data=ROW), outputs=[{"name": "1", "parameters": {"classification": 2}}]),
        "1",
        "classification",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_request_is_said_in_the_form_of_the_protocol(house: House, name: str) -> None:
    body, field, rule = BAD[name]
    reply = house.ask("POST", INFER, body)
    assert reply.status == 400, reply.body
    said = reply.json
    assert isinstance(said["error"], str)
    assert (said["code"], said["field"], said["rule"]) == ("protocol", field, rule), said
    assert outputs(house.ask("POST", INFER, request(tensor(data=ROW))))


def test_binary_data_that_is_not_what_it_says_is_refused(house: House) -> None:
    path = "/v2/models/champion-transactions/infer"
    for size, raw in ((3, b"abc"), (8, struct.pack("<I", 9) + b"shop"), (4, struct.pack("<I", 1))):
        text = json.dumps(
            request(tensor("kind", (1,), "BYTES", parameters={"binary_data_size": size}))
        ).encode()
        reply = house.ask("POST", path, text + raw, {"Inference-Header-Content-Length": str(len(text))})
        assert (reply.status, reply.json["rule"]) == (400, "binary_data_size")
    text = json.dumps(request(tensor(data=ROW))).encode()
    extra = house.ask("POST", INFER, text + b"x", {"Inference-Header-Content-Length": str(len(text))})
    assert (extra.status, extra.json["rule"]) == (400, "binary_data_size")
    for length in ("0", "-1", "x", str(len(text) + 1)):
        reply = house.ask("POST", INFER, text, {"Inference-Header-Content-Length": length})
        assert (reply.status, reply.json["field"]) == (400, "inference-header-content-length")


def test_a_bad_transaction_refuses_its_request_with_row_field_and_rule(house: House) -> None:
    path = "/v2/models/champion-transactions/infer"
    fields = (tensor("a", (2,), "FP64", data=[1, 2]), tensor("kind", (2,), "BYTES", data=["shop", "post"]))
    reply = house.ask("POST", path, request(*fields))
    assert (reply.status, reply.json["code"], reply.json["field"]) == (422, "bad_transaction", "kind")
    assert reply.json["error"].startswith("row 1: ")
    junk = request(tensor("transaction", (1,), "BYTES", data=["[]"]))
    assert house.ask("POST", path, junk).json["rule"] == "json"
    uneven = request(tensor("a", (2,), "FP64", data=[1, 2]), tensor("kind", (1,), "BYTES", data=["shop"]))
    assert house.ask("POST", path, uneven).json["rule"] == "shape"


def test_more_rows_than_may_be_are_too_large(build: Any) -> None:
    house = build(rows=2)
    reply = house.ask("POST", INFER, request(tensor(shape=(3, 3), data=ROW * 3)))
    assert (reply.status, reply.json["code"], reply.json["rule"]) == (413, "too_large", "rows")
    batch = house.ask("POST", "/v1/score/batch", {"transactions": [GOOD] * 3})
    assert (batch.status, batch.json["error"], batch.json["rule"]) == (413, "too_large", "rows")
