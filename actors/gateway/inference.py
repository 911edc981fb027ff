"""The Open Inference Protocol: questions about the server and its models, and inference."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from actors.config import GatewaySettings
from actors.gateway.errors import NotFoundError, NotReadyError
from actors.gateway.how import How, read_how
from actors.gateway.message import HttpRequest, HttpResponse, Reader, json_response
from actors.gateway.outputs import Outputs
from actors.gateway.tensors import InferBody, Wanted, read_inputs, write_output
from actors.gateway.transactions import SUFFIX, TransactionModel
from actors.gateway.upstream import Upstream
from actors.gateway.vectors import VectorModel
from actors.state import Loaded, NodeState
from transport.client.errors import ProtocolError, ScorewireError

#: How long the JSON is, where bytes follow it.
JSON_LENGTH = b"inference-header-content-length"
_PLATFORM = "scorewire_pipeline"
#: Triton's priorities: 1 is the highest, 0 is the default; what is below them may wait here.
_HIGHEST = 1


class Inference:
    """Answers what stands under `/v2`.

    Args:
        state: what the node's actors share.
        upstream: whom to ask.
        limits: what a request may have.
    """

    def __init__(self, state: NodeState, upstream: Upstream, limits: GatewaySettings) -> None:
        self._state = state
        self._limits = limits
        self._reader = Reader(InferBody)
        name = limits.model
        self._models: Mapping[str, VectorModel | TransactionModel] = {
            name: VectorModel(upstream, limits.rows),
            f"{name}{SUFFIX}": TransactionModel(upstream, limits.rows),
        }

    async def live(self, _: HttpRequest) -> HttpResponse:
        """Say that somebody is there."""
        return json_response({"live": True})

    async def ready(self, _: HttpRequest) -> HttpResponse:
        """Say whether this gateway serves.

        Raises:
            NotReadyError: it does not.
        """
        self._check_ready()
        return json_response({"live": True, "ready": True})

    async def server(self, _: HttpRequest) -> HttpResponse:
        """Say what this server is."""
        about = {"name": "scorewire", "version": _version(), "extensions": ["binary_tensor_data"]}
        return json_response(about)

    async def model(self, request: HttpRequest) -> HttpResponse:
        """Say what a model takes and gives.

        Raises:
            NotFoundError: there is no such model, or version of it.
            NotReadyError: no release is held here yet.
        """
        name, model, loaded = self._find(request)
        inputs, outputs = model.describe(loaded)
        versions = [str(number) for number in sorted(self._state.holdings.releases)]
        about = {"name": name, "versions": versions, "platform": _PLATFORM}
        return json_response({**about, "inputs": inputs, "outputs": outputs})

    async def model_ready(self, request: HttpRequest) -> HttpResponse:
        """Say whether a model can be asked.

        Raises:
            NotFoundError, NotReadyError: it cannot.
        """
        name, _, _ = self._find(request)
        self._check_ready()
        return json_response({"name": name, "ready": True})

    async def infer(self, request: HttpRequest) -> HttpResponse:
        """Score.

        Raises:
            ScorewireError: the request is at fault, or cannot be answered.
        """
        name, model, loaded = self._find(request)
        text, raw = _split(request)
        body: InferBody = self._reader.read(text)
        how = self._how(request, body)
        inputs = read_inputs(body, raw)
        found = await model.infer(inputs, loaded, how)
        chosen, tail = _chosen(body, found)
        answer: dict[str, Any] = {"model_name": name, "model_version": found.version}
        if body.id:
            answer["id"] = body.id
        response = json_response({**answer, "outputs": chosen})
        if tail:
            response.headers.append((JSON_LENGTH, b"%d" % len(response.body)))
            response.type = b"application/octet-stream"
            response.body += tail
        return response

    def _check_ready(self) -> None:
        if self._state.leaving or not self._state.is_ready():
            why = "this gateway leaves" if self._state.leaving else "no release is held here yet"
            raise NotReadyError(why)

    def _find(self, request: HttpRequest) -> tuple[str, VectorModel | TransactionModel, Loaded]:
        """Return the model that a path names, and the release that its version names."""
        name, version = request.groups
        model = self._models.get(name or "")
        if model is None:
            known = " and ".join(self._models)
            raise NotFoundError(f"there is no model {name!r}: there are {known}", field="model", rule="name")
        holdings = self._state.holdings
        if version is None:
            loaded = holdings.find(None)
            if loaded is None:
                raise NotReadyError("no release is held here yet")
            return name or "", model, loaded
        held = {str(number): one for number, one in holdings.releases.items()}
        if version not in held:
            why = f"there is no version {version!r} of {name!r} here: the releases held are {', '.join(held)}"
            raise NotFoundError(why, field="version", rule="name")
        return name or "", model, held[version]

    def _how(self, request: HttpRequest, body: InferBody) -> How:
        """Return how a request is to be scored; a version in its path is the release."""
        parameters = body.parameters or {}
        version = request.groups[1]
        timeout_us = parameters.get("timeout")  # Triton's
        deadline_ms = parameters.get("deadline_ms")
        if deadline_ms is None and timeout_us is not None:
            deadline_ms = timeout_us / 1e3 if isinstance(timeout_us, int) else timeout_us
        if deadline_ms is not None and type(deadline_ms) not in (int, float):
            raise ProtocolError("a deadline is a number", field="deadline_ms", rule="type")
        priority = parameters.get("priority")
        if isinstance(priority, int):
            priority = "live" if priority <= _HIGHEST else "replay"
        release = int(version) if version is not None else None
        return read_how(self._limits, request, deadline_ms, release, priority)


def _split(request: HttpRequest) -> tuple[bytes, bytes]:
    """Part the JSON of a request from the bytes behind it."""
    told = request.headers.get(JSON_LENGTH)
    if told is None:
        return request.body, b""
    length = int(told) if told.isdigit() else -1
    if not 0 < length <= len(request.body):
        name = JSON_LENGTH.decode()
        why = f"{name} is the length of the JSON, 1 to {len(request.body)}, and not {told.decode('latin-1')}"
        raise ProtocolError(why, field=name, rule="range")
    return request.body[:length], request.body[length:]


def _chosen(body: InferBody, found: Outputs) -> tuple[list[dict[str, Any]], bytes]:
    """Return the outputs that a request wants, and the bytes that follow them."""
    all_binary = bool((body.parameters or {}).get("binary_data_output", False))
    heads, tails = [], []
    for wanted in body.outputs or [Wanted(name) for name in found.usual]:
        parameters = wanted.parameters or {}
        if parameters.get("classification"):
            raise ProtocolError("no output is classified here", field=wanted.name, rule="classification")
        datatype, array = found.get(wanted.name)
        binary = bool(parameters.get("binary_data", all_binary))
        head, tail = write_output(wanted.name, datatype, array, binary=binary)
        heads.append(head)
        tails.append(tail)
    return heads, b"".join(tails)


def describe_error(error: ScorewireError) -> dict[str, Any]:
    """Return an error as the protocol has it, `error` being a sentence, with our name for it beside that."""
    return {"error": error.detail, "code": error.code, "field": error.field, "rule": error.rule}


def _version() -> str:
    try:
        return metadata.version("scorewire")
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0"
