"""How log lines look: one line an event on standard error, a JSON object in production, plain text for a terminal.

Every process is told here, by the front door; the rooms only write lines. What a line is about stands in fields of its own
beside the words (``extra={"message_hash": …}``), and the hash of a message id is the same in the line of every process:
``profiles.ids.message_hash``, ``opportune hash``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

from opportune.traces import TRACED, Spans
from stream.clock import monotonic_ms

QUIET: Final = ("faust", "mode", "aiokafka", "uvicorn")
"""Frameworks of which only warnings are worth a line."""
SELDOM_MS: Final = 10_000
SELDOM_KEPT_MAX: Final = 1_000


def configure(log_format: str, log_level: str, spans: Spans | None = None) -> None:
    """Let lines of this level and above be written; of the frameworks only warnings and worse.

    No message of ours holds personal data (R25), and theirs at these levels hold topics, offsets and tracebacks: places
    in code, without the values that stood there.

    Args:
        log_format: ``json`` or ``plain``.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        spans: takes what is told of events, whatever the level.
    """
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    structlog.configure(
        processors=[*steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = logging.getLevelNamesMapping()[log_level.upper()]
    root.setLevel(level)
    handler.setLevel(level)
    if spans is not None:
        for name in TRACED:
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.handlers[:] = [spans]
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    handler.addFilter(_Seldom())


class _Seldom(logging.Filter):
    """Lets a framework say the same thing every ten seconds only: without a broker they say it all the time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[int, int]] = {}  # (logger, template) -> (when, swallowed since)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in QUIET:
            return True
        now_ms = monotonic_ms()
        key = (record.name, str(record.msg))
        before = self._said.get(key)
        if before is not None and now_ms - before[0] < SELDOM_MS:
            self._said[key] = (before[0], before[1] + 1)
            return False
        if before is not None and before[1]:
            record.msg = f"{record.msg} (and {before[1]} more like it)"
        # A template is text in their source, so there are few; one that was made on the way must not pile up here.
        if len(self._said) > SELDOM_KEPT_MAX:
            self._said.clear()
        self._said[key] = (now_ms, 0)
        return True
