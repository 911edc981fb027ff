"""Traces of OpenTelemetry: what a node adds to the trace that a transaction is part of.

Spans are made for the transactions that are traced alone, and mostly after their answer has left; a thread of
the SDK brings them to the collector. Without a collector nothing of OpenTelemetry is loaded.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from actors.config import TracesSettings
from actors.errors import ConfigError
from transport.client import wire

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: The name of the field that carries a trace: in bodies, and in headers of HTTP.
TRACEPARENT: Final = "traceparent"
#: The same, as it is packed.
PACKED: Final = b"\xab" + TRACEPARENT.encode()
#: Seconds that spans may take to leave: a collector that is away must not hold up the end of a node.
_FLUSH_S: Final = 2.0
#: Nanoseconds by which the two clocks part before that counts: one of them was set.
_PARTED_NS: Final = 1_000_000


class Traces:
    """Makes spans, and sends them to a collector.

    Args:
        settings: where to, and how many.
        resource: what every span is labelled with.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    def __init__(self, settings: TracesSettings, resource: Mapping[str, str]) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra, for those who trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                "traces.endpoint is set, and OpenTelemetry is not installed: pip install 'scorewire[otel]'"
            ) from error
        self._share = settings.share
        self.clock = _Clock()
        self._trace = trace
        self._provider = TracerProvider(resource=Resource.create(dict(resource)))
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_FLUSH_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("scorewire")
        self._read = tracecontext.TraceContextTextMapPropagator().extract

    def begin(self, traceparent: object, name: str, began: float) -> Span | None:
        """Begin the span of a request.

        Args:
            traceparent: the trace that it came with, as W3C has it; None where it came with none.
            name: the span's.
            began: when it came (time.monotonic seconds).

        Returns:
            the span; None where this request is not traced.
        """
        if not isinstance(traceparent, str):
            if random.random() >= self._share:  # noqa: S311 - a sample, no secret
                return None
            parent = None
        else:
            parent = self._read({TRACEPARENT: traceparent})
            if not self._trace.get_current_span(parent).get_span_context().trace_flags.sampled:
                return None
        kind = self._trace.SpanKind.SERVER
        return self._tracer.start_span(name, parent, kind, start_time=self.clock.epoch_ns(began))

    def child(self, parent: Span, name: str, began: float, ended: float | None = None) -> Span:
        """Make a span within another; it is over where it is said when (time.monotonic seconds)."""
        context = self._trace.set_span_in_context(parent)
        kind = self._trace.SpanKind.INTERNAL if ended else self._trace.SpanKind.CLIENT
        span = self._tracer.start_span(name, context, kind, start_time=self.clock.epoch_ns(began))
        if ended is not None:
            span.end(self.clock.epoch_ns(ended))
        return span

    def fail(self, span: Span, error: Exception) -> None:
        """Say what went wrong in a span, and end it."""
        code = getattr(error, "code", type(error).__name__)
        span.set_attribute("error.type", str(code))
        span.set_status(self._trace.StatusCode.ERROR, str(error))
        span.end()

    def close(self) -> None:
        """Send what is left, for a while."""
        self._provider.force_flush(int(_FLUSH_S * 1e3))
        self._provider.shutdown()


class CallTrace:
    """The trace of one transaction in a preprocessor.

    Args:
        traces: makes spans.
        span: the transaction's.
        began: when it came (time.monotonic seconds).
    """

    __slots__ = ("_asked", "_began", "_span", "_traces")

    def __init__(self, traces: Traces, span: Span, began: float) -> None:
        self._traces = traces
        self._span = span
        self._began = began
        self._asked: tuple[Span, float] | None = None

    def ask(self) -> dict[str, str]:
        """Begin the span of the scorer; return what goes with the vector."""
        now = time.monotonic()
        span = self._traces.child(self._span, "scorewire.scorer", now)
        self._asked = (span, now)
        return {TRACEPARENT: traceparent_of(span)}

    def end(self, answer: wire.Body) -> None:
        """Note what was answered, and how long each part took."""
        now, us = time.monotonic(), answer["us"]
        if self._asked is not None:
            span, asked = self._asked
            self._traces.child(self._span, "scorewire.features", self._began, asked)
            answered = asked + us.get("scorer", 0) / 1e6
            span.end(self._traces.clock.epoch_ns(answered if "scorer" in us else now))
            if "decision" in us:
                self._traces.child(
                    self._span, "scorewire.decision", answered, answered + us["decision"] / 1e6
                )
        facts: dict[str, Any] = {
            "scorewire.transaction": answer["id"],
            "scorewire.release": answer["release"],
            "scorewire.fallback": "fallback" in answer,
        }
        if answer["decision"] is not None:
            facts["scorewire.decision"] = answer["decision"]["outcome"]
        self._span.set_attributes(facts)
        self._span.end(self._traces.clock.epoch_ns(now))

    def fail(self, error: Exception) -> None:
        """Note what went wrong."""
        if self._asked is not None:
            self._traces.fail(self._asked[0], error)
        self._traces.fail(self._span, error)


def traceparent_of(span: Span) -> str:
    """Return a span that is sampled, as W3C's Trace Context writes it."""
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-01"


class _Clock:
    """Makes unix time of time.monotonic, so that what came first is first there, too.

    The two are compared anew each time, and the difference is kept until they have parted: to read one after
    the other takes a moment, which would put a span before the one that it is a part of.
    """

    def __init__(self) -> None:
        self._apart_ns = time.time_ns() - time.monotonic_ns()

    def epoch_ns(self, moment: float) -> int:
        """Return a moment of time.monotonic as nanoseconds of unix time."""
        apart_ns = time.time_ns() - time.monotonic_ns()
        if abs(apart_ns - self._apart_ns) > _PARTED_NS:
            self._apart_ns = apart_ns
        return int(moment * 1e9) + self._apart_ns
