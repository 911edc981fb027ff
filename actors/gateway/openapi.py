"""The OpenAPI document of a gateway: its own paths, and the transactions that the current release takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.config import GatewaySettings
from actors.gateway.how import LEAST_MS
from actors.gateway.message import HttpRequest, HttpResponse, json_response
from actors.gateway.scoring import BatchBody, ScoreBody
from actors.gateway.tensors import InferBody
from actors.gateway.transactions import SUFFIX
from actors.state import Holdings, Loaded, NodeState
from models.spec import FeatureSpec
from transport.client.answer import Answer

Json = dict[str, Any]

#: What msgpack carries, and so a transaction.
_VALUE: Final[Json] = {
    "anyOf": [
        {"type": ["null", "boolean", "string", "number"], "minimum": -(2**63), "maximum": 2**64 - 1},
        {"type": "array", "items": {"$ref": "#/components/schemas/Value"}},
        {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Value"}},
    ]
}
_TENSOR: Final[Json] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}


class OpenApi:
    """Answers `/openapi.json`.

    Args:
        state: what the node's actors share.
        limits: what a request may have.
    """

    def __init__(self, state: NodeState, limits: GatewaySettings) -> None:
        self._state = state
        self._limits = limits
        self._made: tuple[Holdings, bytes] | None = None

    async def document(self, _: HttpRequest) -> HttpResponse:
        """Return the document, as the releases have it that are held now."""
        holdings = self._state.holdings
        if self._made is None or self._made[0] is not holdings:
            self._made = (holdings, json_response(self._write(holdings)).body)
        return HttpResponse(self._made[1])

    def _write(self, holdings: Holdings) -> Json:
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Scorewire",
                "version": "1",
                "description": "Scores transactions and feature vectors. See docs/http.md.",
            },
            "paths": {**self._own_paths(), **self._protocol_paths(holdings)},
            "components": {"schemas": self._schemas(holdings.find(None))},
        }

    # -- what is sent and answered

    def _schemas(self, loaded: Loaded | None) -> Json:
        kinds = (ScoreBody, BatchBody, InferBody, Answer)
        _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        found["ScoreBody"]["properties"]["transaction"] = _ref("Transaction")
        many = found["BatchBody"]["properties"]["transactions"]
        # Each is judged for itself: one that breaks a rule is answered by its error.
        many |= {"items": {"type": "object"}, "maxItems": self._limits.rows}
        for body in ("ScoreBody", "BatchBody"):
            number = found[body]["properties"]["deadline_ms"]["anyOf"][0]
            number["maximum"] = self._limits.longest_deadline_ms
        # JSON has no NaN: a score that is none is null.
        found["Answer"]["properties"]["scores"]["additionalProperties"] = {"type": ["number", "null"]}
        return {
            **found,
            "Transaction": _transaction(loaded),
            "Value": _VALUE,
            "Tensor": _TENSOR,
            "Error": _object(error="string", detail="string", field="string", rule="string"),
            "ProtocolError": _object(error="string", code="string", field="string", rule="string"),
        }

    # -- paths

    def _own_paths(self) -> Json:
        results = {"anyOf": [_ref("Answer"), _ref("Error")]}
        answers = _object()
        answers |= {"required": ["results"], "properties": {"results": {"type": "array", "items": results}}}
        longest = self._limits.longest_deadline_ms
        how = [
            _header("Scorewire-Deadline-Ms", {"type": "number", "minimum": LEAST_MS, "maximum": longest}),
            _header("Scorewire-Release", {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}),
            _header("Scorewire-Priority", {"enum": ["live", "replay"]}),
        ]
        codes = (400, 404, 408, 413, 415, 422, 500, 502, 503, 504)
        return {
            "/v1/score": {
                "post": _operation("score", "Score a transaction.", "Error", codes, _ref("Answer"))
                | {"requestBody": _body("ScoreBody"), "parameters": how}
            },
            "/v1/score/batch": {
                "post": _operation("score_batch", "Score transactions.", "Error", codes, answers)
                | {"requestBody": _body("BatchBody"), "parameters": how}
            },
            "/openapi.json": {"get": _operation("openapi", "This document.", "Error", (), _object())},
        }

    def _protocol_paths(self, holdings: Holdings) -> Json:
        model = _object(name="string", platform="string", versions="array", inputs="array", outputs="array")
        live = {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}}
        server = _object(name="string", version="string", extensions="array")
        ready = _object(name="string", ready="boolean")
        paths: Json = {
            "/v2": {"get": _protocol("server_metadata", "What this server is.", (503,), server)},
            "/v2/health/live": {"get": _protocol("server_live", "Whether somebody is there.", (), live)},
            "/v2/health/ready": {"get": _protocol("server_ready", "Whether it serves.", (503,), live)},
        }
        held = [str(number) for number in sorted(holdings.releases)]
        for ending, name in (("", ""), ("/versions/{model_version}", "_version")):
            named = [_in_path("model_name", {"enum": [self._limits.model, self._limits.model + SUFFIX]})]
            if ending:
                named.append(_in_path("model_version", {"enum": held}))
            path, codes = f"/v2/models/{{model_name}}{ending}", (404, 503)
            asked = (400, 404, 408, 413, 415, 422, 500, 502, 503, 504)
            paths |= {
                path: {
                    "get": _protocol(f"model_metadata{name}", "What a model takes and gives.", codes, model),
                    "parameters": named,
                },
                f"{path}/ready": {
                    "get": _protocol(f"model_ready{name}", "Whether a model can be asked.", codes, ready),
                    "parameters": named,
                },
                f"{path}/infer": {
                    "post": _protocol(f"infer{name}", "Score tensors.", asked, _inference())
                    | {"requestBody": _body("InferBody")},
                    "parameters": named,
                },
            }
        return paths


def _transaction(loaded: Loaded | None) -> Json:
    """Return the schema of the transactions that a release takes."""
    found: Json = {"type": "object", "additionalProperties": _ref("Value")}
    specs = [] if loaded is None else [s for s in loaded.specs.values() if isinstance(s, FeatureSpec)]
    schemas = [{key: value for key, value in spec.schema().items() if key != "$schema"} for spec in specs]
    return {**found, "allOf": schemas} if schemas else found


def _inference() -> Json:
    found = _object(model_name="string", model_version="string")
    found["properties"]["outputs"] = {"type": "array", "items": _ref("Tensor")}
    found["required"].append("outputs")
    return found


def _protocol(name: str, summary: str, codes: tuple[int, ...], schema: Json) -> Json:
    return _operation(name, summary, "ProtocolError", codes, schema)


def _operation(name: str, summary: str, error: str, codes: tuple[int, ...], schema: Json) -> Json:
    """Describe an operation: what it answers where all is well, and the statuses of its errors."""
    good = {"application/json": {"schema": schema}}
    if name.startswith("infer"):
        good["application/octet-stream"] = {"schema": {}}
    responses: Json = {"200": {"description": "All is well.", "content": good}}
    bad = {"application/json": {"schema": _ref(error)}}
    responses |= {str(code): {"description": _MEANING[code], "content": bad} for code in codes}
    return {"operationId": name, "summary": summary, "responses": responses}


_MEANING: Final[Mapping[int, str]] = {
    400: "The request breaks a rule of this interface: `field` and `rule` say which.",
    404: "There is no such path, model, version or release.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    415: "The body is encoded in a way that is not taken: `Accept-Encoding` says what is.",
    422: "A field of the transaction breaks a rule of the release: `field` and `rule` say which.",
    500: "Something failed that nobody foresaw, or code of the release did.",
    502: "The nodes that held the request failed.",
    503: "Too much is asked, or nobody can answer now: come again after `Retry-After` seconds.",
    504: "The deadline passed.",
}


def _object(**members: str) -> Json:
    properties = {name: {"type": kind} for name, kind in members.items()}
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(name: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": _ref(name)}}}


def _header(name: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}
