"""Simulated machines: each runs one process at a time, which can be killed; what is on its disk stays."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from secagg.runtime.participant import TransportError
from simulations.world.process import Process

HostT = TypeVar("HostT")


class Machine(ABC):
    """A machine. ``process`` is what runs on it now, None while it is down."""

    process: Process | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the node."""

    def begin(self) -> Process:
        """A new process on it."""
        self.process = Process(self.name)
        return self.process

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
        self.process = None


class Server(Machine, Generic[HostT]):
    """A machine whose process serves a host."""

    _host: HostT | None = None

    @property
    def host(self) -> HostT:
        """What is served. Raises TransportError while it is not."""
        if self._host is None:
            raise TransportError(f"{self.name} is not serving yet")
        return self._host

    @property
    def is_up(self) -> bool:
        """Whether it serves."""
        return self._host is not None

    async def start(self) -> None:
        """Begin, or go on after a crash; returns when it serves, or was killed before."""
        process = self.begin()
        await asyncio.wait({process.spawn(self._begin_to_serve(process))})

    def kill(self) -> None:
        """See ``Machine.kill``."""
        super().kill()
        self._host = None

    async def _begin_to_serve(self, process: Process) -> None:
        self._host = await self._served(process)

    @abstractmethod
    async def _served(self, process: Process) -> HostT:
        """A host in a new process, from what is on the disk."""
