"""Processes of simulated machines: what runs in one ends with it, at once and without a last word."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Process:
    """One process from its start to its death. Tasks that its tasks create belong to it.

    Attributes:
        name: of the node that it runs on.
        is_alive: False once it was killed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self._context = contextvars.copy_context()
        self._context.run(_CURRENT.set, self)
        # Ordered: what is cancelled first must not depend on addresses in memory.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._callers: dict[asyncio.Future[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run ``work`` in this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def owe(self, reply: asyncio.Future[Any]) -> None:
        """Somebody outside waits for this: if the process dies before it is done, it is cancelled."""
        self._callers[reply] = None
        reply.add_done_callback(lambda done: self._callers.pop(done, None))

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Count a new task as one of this process; in a dead one nothing begins any more."""
        if not self.is_alive:
            task.cancel()
            return
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def kill(self) -> None:
        """End it, as ``kill -9`` does: no task of it does anything any more, and no store of it changes."""
        if not self.is_alive:
            return
        self.is_alive = False
        for task in list(self._tasks):
            task.cancel()
        for reply in list(self._callers):
            reply.cancel()

    def check_alive(self) -> None:
        """Raise CancelledError in a process that was killed: for ports, which must not act for the dead."""
        if not self.is_alive:
            raise asyncio.CancelledError

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not self.is_alive and not task.cancelled():
            task.exception()  # nobody is left to take it


_CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def new_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T], **options: Any) -> asyncio.Task[_T]:  # noqa: ANN401
    """A task factory: tasks belong to the process in whose context they are made."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    process = _CURRENT.get() if context is None else context.get(_CURRENT)
    if process is not None:
        process.adopt(task)
    return task
