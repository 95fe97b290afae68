"""One line that says what long work is at, for whoever looks at a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

_WIDTH = 78
_ERASE = "\r\x1b[K"


class Progress:
    """Shows one line on a stream and removes it at the end; nothing at all where the stream is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write(_ERASE)
            self._stream.flush()

    def show(self, text: str) -> None:
        """Replace the line. The text is the verifier's own: numbers, names of files, ids in hex."""
        if self._shown:
            self._stream.write(_ERASE + text[:_WIDTH])
            self._stream.flush()
