"""Traces without a tracer: what each process tells of an event in its log becomes a span of OpenTelemetry.

A trace is an event: its id is made of the hash of the message id, which every process knows by itself, so nothing has to
travel with the event, and whether it is among the share that is traced each process decides alike. The collector's span goes
from the arrival to the broker's acknowledgement, the worker's from the arrival to its being applied; spans go out as
OTLP over HTTP, as JSON (opentelemetry-proto 1.x), from a thread of their own. Who does not take them in time loses them:
tracing never holds an event up.
"""

from __future__ import annotations

import logging
import queue
import threading
import urllib.request
from typing import Any, Final

import orjson

from profiles.ids import digest64

QUEUE_MAX: Final = 10_000
SPANS_MAX: Final = 500
LINGER_S: Final = 1.0
SEND_S: Final = 5.0
TRACED: Final = ("opportune.collector", "stream.computing")
"""Loggers that tell of events by their hash."""
_SERVER, _CONSUMER = 2, 5
"""Kinds of spans."""

log = logging.getLogger(__name__)


class Spans(logging.Handler):
    """Takes log records of events, sends them as spans.

    Args:
        url: of an OTLP/HTTP receiver: ``http://otel:4318``.
        service: what this process is called there: ``opportune-worker``.
        one_of: one event of so many is traced, the same ones by every process.
    """

    def __init__(self, url: str, service: str, one_of: int) -> None:
        super().__init__(logging.DEBUG)
        self._to = f"{url.rstrip('/')}/v1/traces"
        self._service = service
        self._one_of = one_of
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._send_on, name="traces", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a span, if the record is of an event that is traced."""
        name, since_ms = getattr(record, "message_hash", None), getattr(record, "received_ms", None)
        if name is None or since_ms is None or int(name, 16) % self._one_of:
            return
        is_first = record.name == TRACED[0]
        what = ("topic", "offset", "outcome")
        span = {
            "traceId": name + name,
            "spanId": name if is_first else format(digest64(f"{name}\x1f{record.name}\x1f{record.created}"), "016x"),
            "parentSpanId": "" if is_first else name,
            "name": "accept" if is_first else "apply",
            "kind": _SERVER if is_first else _CONSUMER,
            "startTimeUnixNano": str(since_ms * 1_000_000),
            "endTimeUnixNano": str(max(since_ms * 1_000_000, int(record.created * 1e9))),
            "attributes": [
                {"key": f"opportune.{one}", "value": {"stringValue": str(record.__dict__[one])}}
                for one in what
                if one in record.__dict__
            ],
        }
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            pass  # An event is worth more than its trace.

    def close(self) -> None:
        """Send what waits, if it is taken at once."""
        if self._thread.is_alive():
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                pass
            self._thread.join(SEND_S)
        super().close()

    def _send_on(self) -> None:
        goes_on, failed = True, False
        while goes_on:
            spans = [self._waiting.get()]
            while len(spans) < SPANS_MAX and spans[-1] is not None:
                try:
                    spans.append(self._waiting.get(timeout=LINGER_S))
                except queue.Empty:
                    break
            goes_on = spans[-1] is not None
            told = [one for one in spans if one is not None]
            if not told:
                continue
            try:
                self._send(told)
                failed = False
            except OSError as error:
                if not failed:  # Once for each time that it goes away.
                    log.warning("traces: a receiver that takes them wanted, got %s", type(error).__name__)
                failed = True

    def _send(self, spans: list[dict[str, Any]]) -> None:
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": self._service}}]}
        scope = {"scope": {"name": "opportune"}, "spans": spans}
        request = urllib.request.Request(
            self._to,
            orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SEND_S):
            pass
