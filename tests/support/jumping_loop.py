"""A loop in which time passes only where somebody would otherwise wait for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class _Selector(selectors.DefaultSelector):
    skip: Callable[[float], bool]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is not None and self.skip(timeout):
            return []
        return super().select(timeout)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer when nothing else is left to do and no thread is at work."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.skip = self._skip
        self._ahead_s = 0.0
        self._threads = 0

    def time(self) -> float:
        return super().time() + self._ahead_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self._threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._threads -= 1

    def _skip(self, timeout_s: float) -> bool:
        if self._threads:
            return False
        self._ahead_s += timeout_s
        return True
