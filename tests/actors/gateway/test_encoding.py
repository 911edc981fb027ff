"""Compressed bodies, both ways, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actors.gateway.encoding import LEAST_BYTES
from tests.actors.gateway.conftest import GOOD, House, Reply

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
ONE = json.dumps({"transaction": GOOD}).encode()
MANY = json.dumps({"transactions": [GOOD] * 20}).encode()


def post(house: House, body: bytes, path: str = "/v1/score", **headers: str) -> Reply:
    return house.ask("POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})


def scores(results: Any) -> list[Any]:
    return [one["scores"] for one in results["results"]]


@pytest.mark.parametrize("encoding", PACK)
def test_bodies_are_packed_both_ways(house: House, encoding: str) -> None:
    plain = post(house, MANY, "/v1/score/batch")
    packed = post(
        house,
        PACK[encoding](MANY),
        "/v1/score/batch",
        Content_Encoding=encoding.upper(),
        Accept_Encoding=f"br;q=1.0, {encoding};q=0.5",
    )
    assert (packed.status, packed.headers["content-encoding"]) == (200, encoding)
    assert packed.headers["vary"] == "accept-encoding"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body) / 2
    assert scores(json.loads(UNPACK[encoding](packed.body))) == scores(plain.json)


@pytest.mark.parametrize(
    ("accepted", "found"),
    [
        ("gzip, deflate", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0.1, gzip; q=0.000", "deflate"),
        ("br, zstd", None),
        ("identity", None),
        ("", None),
        ("gzip;q=0,*;q=0", None),
    ],
)
def test_an_answer_is_packed_as_its_caller_takes_it(house: House, accepted: str, found: str | None) -> None:
    reply = post(house, MANY, "/v1/score/batch", Accept_Encoding=accepted)
    assert reply.headers.get("content-encoding") == found


def test_a_short_answer_goes_as_it_is_and_any_where_packing_is_off(house: House, build: Any) -> None:
    short = post(house, ONE, Accept_Encoding="gzip")
    assert len(short.body) < LEAST_BYTES
    assert "content-encoding" not in short.headers
    off = build(compress=False)
    assert "content-encoding" not in post(off, MANY, "/v1/score/batch", Accept_Encoding="gzip").headers
    assert post(off, gzip.compress(ONE), Content_Encoding="gzip").status == 200


@pytest.mark.parametrize("encoding", PACK)
def test_a_bomb_is_refused_before_it_is_unpacked(build: Any, encoding: str) -> None:
    house = build(body_mb=1)
    bomb = PACK[encoding](b" " * 50_000_000)
    assert len(bomb) < 1_000_000
    reply = post(house, bomb, Content_Encoding=encoding)
    assert (reply.status, reply.json["error"]) == (413, "too_large")
    assert (reply.json["field"], reply.json["rule"]) == ("body", "unpacked_size")
    fits = ONE + b" " * (1_000_000 - len(ONE))
    assert post(house, PACK[encoding](fits), Content_Encoding=encoding).status == 200
    assert post(house, PACK[encoding](fits + b" "), Content_Encoding=encoding).status == 413
    assert house.state.counters["gateway"]()["errors.too_large"] == 2


@pytest.mark.parametrize(
    "body",
    [
        ONE,
        b"",
        gzip.compress(ONE)[:-1],
        gzip.compress(ONE) + b"x",
        gzip.compress(ONE) * 2,
        zlib.compress(ONE),
    ],
    ids=["plain", "empty", "cut", "more", "twice", "deflate"],
)
def test_what_is_not_what_its_encoding_says_is_refused(house: House, body: bytes) -> None:
    reply = post(house, body, Content_Encoding="gzip")
    assert (reply.status, reply.json["field"], reply.json["rule"]) == (400, "body", "encoding")


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x"])
def test_an_encoding_that_is_not_taken_is_refused_with_those_that_are(house: House, encoding: str) -> None:
    reply = post(house, ONE, Content_Encoding=encoding)
    assert (reply.status, reply.json["error"], reply.json["field"]) == (415, "media_type", "content-encoding")
    assert reply.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", PACK)
def test_tensors_behind_the_json_are_packed_with_it(house: House, encoding: str) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    head: dict[str, Any] = {"name": "features", "shape": [300, 3], "datatype": "FP32"}
    head["parameters"] = {"binary_data_size": rows.nbytes}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    reply = post(
        house,
        PACK[encoding](text + rows.tobytes()),
        "/v2/models/champion/infer",
        Inference_Header_Content_Length=str(len(text)),
        Content_Encoding=encoding,
        Accept_Encoding=encoding,
    )
    assert reply.status == 200
    plain = UNPACK[encoding](reply.body)
    length = int(reply.headers["inference-header-content-length"])
    outputs = {one["name"]: one for one in json.loads(plain[:length])["outputs"]}
    assert list(outputs) == ["0", "1"]
    found = np.frombuffer(plain[length:], "<f8").reshape(2, 300)
    assert np.array_equal(found.T, house.forest.predict_proba(rows))
