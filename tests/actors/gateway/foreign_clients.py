"""Calls a gateway with KServe's client, and reads answers with MLServer's types; run by their own Python.

    PYTHON tests/actors/gateway/foreign_clients.py http://127.0.0.1:7501

What they require contradicts what we require, and each other, so each stands in an environment of its own
(`pip install kserve`, `pip install mlserver`). Does what its Python can; prints what was answered as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np

ROW = [0.25, -1.5, 1.0]


async def call_with_kserve(url: str) -> dict[str, Any]:
    """Ask everything that KServe's client can ask."""
    from kserve import InferInput, InferRequest
    from kserve.inference_client import InferenceRESTClient, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "champion"),
        "nobody": await client.is_model_ready(url, "nobody"),
    }
    for name, binary in (("json", False), ("binary", True)):
        given = InferInput("features", [1, 3], "FP32")
        given.set_data_from_numpy(np.array([ROW], np.float32), binary_data=binary)
        request = InferRequest("champion", [given], request_id=name)
        answer = await client.infer(url, request, model_name="champion")
        found[name] = {out.name: np.ravel(out.as_numpy()).tolist() for out in answer.outputs}
        found[f"{name}_id"] = answer.id
    kind = InferInput("kind", [1], "BYTES")
    kind.set_data_from_numpy(np.array([b"online"], object), binary_data=False)
    amount = InferInput("a", [1], "FP64")
    amount.set_data_from_numpy(np.array([0.25]), binary_data=True)
    request = InferRequest("champion-transactions", [amount, kind])
    answer = await client.infer(url, request, model_name="champion-transactions")
    found["transactions"] = {out.name: np.ravel(out.as_numpy()).tolist() for out in answer.outputs}
    try:
        await client.infer(url, {"inputs": []}, model_name="champion")
    except Exception as error:  # noqa: BLE001 - whatever it is
        found["error"] = str(error)
    await client.close()
    return found


def read_with_mlserver(url: str) -> dict[str, Any]:
    """Have MLServer's types judge what is answered."""
    import urllib.request

    from mlserver.codecs import NumpyCodec
    from mlserver.types import (
        InferenceRequest,
        InferenceResponse,
        MetadataModelResponse,
        MetadataServerResponse,
    )

    def get(path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(urllib.request.Request(url + path, body)) as answer:
            return json.loads(answer.read())

    MetadataServerResponse.model_validate(get("/v2"))
    MetadataModelResponse.model_validate(get("/v2/models/champion"))
    encoded = NumpyCodec.encode_input("features", np.array([ROW], np.float32))
    body = InferenceRequest(inputs=[encoded]).model_dump_json().encode()
    answer = InferenceResponse.model_validate(get("/v2/models/champion/infer", body))
    return {one.name: NumpyCodec.decode_output(one).ravel().tolist() for one in answer.outputs}


if __name__ == "__main__":
    address, answers = sys.argv[1], {}
    if find_spec("kserve"):
        answers["kserve"] = asyncio.run(call_with_kserve(address))
    if find_spec("mlserver"):
        answers["mlserver"] = read_with_mlserver(address)
    sys.stdout.write(json.dumps(answers))
