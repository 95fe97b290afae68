"""An event loop in virtual time: it jumps to the next timer, runs threads' work inline, and never sleeps.

Everything that the runtime does with asyncio happens in one thread, in an order that follows from the program alone:
the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from simulations.world.process import new_task

_T = TypeVar("_T")


class NothingLeftError(RuntimeError):
    """Somebody waits for what will never happen: there is no timer and nothing to run."""


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: no file and no thread ever wakes this loop."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeftError("nothing is left to do, and somebody still waits")
        if timeout > 0:
            self._pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0, in seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Selector(self._pass))
        self.set_task_factory(new_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def run_in_executor(self, executor: object, func: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
        """Run ``func`` now, in this thread; the future that is returned is done."""
        del executor
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except asyncio.CancelledError:
            future.cancel()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            future.set_exception(error)
        return future

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds


def run_virtually(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` to its end in a loop of its own; background tasks that are left are cancelled.

    Raises:
        NothingLeftError: ``main`` waits for what will never happen.
        BaseExceptionGroup: the loop was told of errors that nobody else took.
    """
    loop = VirtualLoop()
    unhandled: list[BaseException] = []

    def remember(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        unhandled.append(error if error is not None else RuntimeError(context["message"]))

    loop.set_exception_handler(remember)
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        _cancel_all(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    if unhandled:
        raise BaseExceptionGroup("background work failed", unhandled)
    return result


def _cancel_all(loop: VirtualLoop) -> None:
    for _ in range(100):
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not left:
            return
        for task in sorted(left, key=lambda task: task.get_name()):
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=60))
    raise RuntimeError(f"tasks that refuse to end: {left}")
