"""Structured logs: a constant event name and allow-listed fields, one JSON object a line.

Nothing that came over the wire is ever formatted into a log line, and no exception's text is.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

_ALLOWED = frozenset({"session", "phase", "method", "reason", "address", "port", "signal", "key"})


class EventLog:
    """Writes events through the standard logging module under the name ``secagg``."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("secagg")

    def event(self, name: str, **fields: str | int) -> None:
        """Log ``name`` with ``fields``.

        Raises:
            ValueError: a field is not in the allow-list.
        """
        unknown = set(fields) - _ALLOWED
        if unknown:
            raise ValueError(f"log field {sorted(unknown)[0]} is not allowed")
        self._logger.info(name, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """Time, level, event, fields; exceptions by class name only, so that no local variable gets out."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name == "secagg" else record.name,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, sort_keys=True)


def log_to(stream: TextIO = sys.stderr) -> None:
    """Send events to ``stream`` and nothing else anywhere."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    logging.getLogger("secagg").setLevel(logging.INFO)
