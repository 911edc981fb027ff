"""A collector of traces: takes what OpenTelemetry's exporter sends over HTTP, as a real one does."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from transport.client.running import Running


class Collector(Running):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self._spans: list[dict[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def take(self, request: Any) -> None:
        for of_resource in request.resource_spans:
            service = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self._spans += [_read(span, service["service.name"]) for span in of_scope.spans]

    def of(self, trace: str) -> dict[str, dict[str, Any]]:
        """Return the spans of a trace, by their names."""
        return {one["name"]: one for one in list(self._spans) if one["trace"] == trace}

    def start(self) -> None:
        """Take spans from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more. Stopping twice is harmless."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def count(self) -> int:
        return len(self._spans)


def _read(span: Any, service: str) -> dict[str, Any]:
    facts = {}
    for one in span.attributes:
        kind = one.value.WhichOneof("value")
        facts[one.key] = getattr(one.value, kind)
    return {
        "name": span.name,
        "service": service,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "failed": span.status.code == 2,
        "facts": facts,
    }
