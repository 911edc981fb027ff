"""Traces of OpenTelemetry around a client's calls. Only a client that is told to make them loads this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wire
from .errors import ScorewireError
from .pool import Done

try:
    from opentelemetry import trace
except ImportError as missing:
    raise ImportError("traces=True needs OpenTelemetry: pip install 'scorewire-client[otel]'") from missing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Traces:
    """Makes a span for each call that is sampled, by the tracer provider that the program has set."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("scorewire_client")

    def around(self, done: Done) -> tuple[str, Done]:
        """Begin the span of a call, within the span that is current.

        Args:
            done: takes the outcome of the call.

        Returns:
            what goes with the transaction ("" where it is not sampled), and what is to take the outcome.
        """
        span = self._tracer.start_span("scorewire.score", kind=trace.SpanKind.CLIENT)
        found = span.get_span_context()
        if not found.trace_flags.sampled:
            return "", done

        def finish(outcome: bytes | Exception) -> None:
            _end(span, outcome)
            done(outcome)

        return f"00-{found.trace_id:032x}-{found.span_id:016x}-01", finish


def _end(span: Span, outcome: bytes | Exception) -> None:
    if isinstance(outcome, Exception):
        code = outcome.code if isinstance(outcome, ScorewireError) else type(outcome).__name__
        span.set_attribute("error.type", code)
        span.set_status(trace.StatusCode.ERROR, str(outcome))
    else:
        body = wire.unpack_body(outcome)
        for name in ("id", "release", "environment"):
            if isinstance(value := body.get(name), str | int):
                span.set_attribute(f"scorewire.{'transaction' if name == 'id' else name}", value)
    span.end()
