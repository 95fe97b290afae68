"""A party of a drill: a process that says what it does, and can be killed and started again at any time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0
_STOP_S = 20.0


@dataclass(frozen=True)
class Happening:
    """One line that ``who`` wrote, or something that was seen of a session. ``what`` names the moment."""

    who: str
    what: str
    line: dict[str, Any]

    @property
    def kind(self) -> str:
        """Which kind of party."""
        return self.who.split(maxsplit=1)[0]


class Happenings:
    """Everything that happened, in order."""

    def __init__(self) -> None:
        self.all: list[Happening] = []
        self._changed = asyncio.Event()

    def add(self, happening: Happening) -> None:
        self.all.append(happening)
        self._changed.set()

    async def after(self, position: int, tells: Callable[[Happening], bool]) -> int:
        """The position of the first happening from ``position`` on of which ``tells`` is true, once there is one."""
        while True:
            for at in range(position, len(self.all)):
                if tells(self.all[at]):
                    return at
            position = max(position, len(self.all))
            self._changed.clear()
            await self._changed.wait()


class Party:
    """One command with its arguments, in process after process.

    Args:
        name: which party; the first word is its kind.
        command: a module and its arguments.
        log: the file that all its lines are appended to.
        happenings: told of every line.
    """

    def __init__(self, name: str, command: tuple[str, ...], log: Path, happenings: Happenings) -> None:
        self.name, self.kind = name, name.split(maxsplit=1)[0]
        self.command = command
        self.peak_mib = 0.0
        self.deaths = 0
        self.results: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self._log = log
        self._happenings = happenings
        self._process: asyncio.subprocess.Process | None = None
        self._listening: list[asyncio.Task[None]] = []
        self._serves = asyncio.Event()
        self.serving: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process."""
        self._serves.clear()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *self.command, env=environment, limit=1 << 20,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        streams = ((self._process.stdout, self.results), (self._process.stderr, self.errors))
        self._listening = [asyncio.ensure_future(self._listen(stream, lines)) for stream, lines in streams]

    async def serves(self) -> dict[str, Any]:
        """What it said once it served."""
        waiting = [asyncio.ensure_future(self._serves.wait()), asyncio.ensure_future(self.ended())]
        try:
            await asyncio.wait(waiting, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if not self._serves.is_set():
            raise RuntimeError(f"{self.name} does not serve: {self.last_words()}")
        return self.serving

    async def ended(self) -> int:
        """Its exit code, once the process has ended and everything it wrote was read."""
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.gather(*self._listening)
        return code

    async def kill(self) -> None:
        """SIGKILL; the process is gone."""
        assert self._process is not None
        self.weigh()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        if await self.ended() == -signal.SIGKILL:
            self.deaths += 1

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for who does not mind it."""
        if self._process is None or not self.is_running:
            return
        self.weigh()
        self._process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), _STOP_S)
        except TimeoutError:
            self.errors.append({"text": f"{self.name} did not end within {_STOP_S:.0f} s of SIGTERM"})
            self._process.kill()
        await self.ended()

    def weigh(self) -> None:
        """Note the peak of the resident set."""
        self.peak_mib = max(self.peak_mib, memory_mib(self.pid, "VmHWM"))

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return " | ".join(json.dumps(line) for line in self.errors[-3:])

    async def _listen(self, stream: asyncio.StreamReader | None, lines: list[dict[str, Any]]) -> None:
        assert stream is not None
        async for data in stream:
            line = _parsed(data)
            lines.append(line)
            with self._log.open("ab") as log:
                log.write(data)
            if line.get("event") == "serving" and "address" in line and lines is self.results:
                self.serving = line
                self._serves.set()
            if self.is_running:
                self.weigh()
            self._happenings.add(Happening(self.name, _moment(line), line))


def memory_mib(pid: int, field: str) -> float:
    """A field of /proc/PID/status that is in kB; 0 where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")]
    return int(values[0]) / 1024 if values else 0.0


def _parsed(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        line = json.loads(data)
        if isinstance(line, dict):
            return line
    return {"text": data.decode("utf-8", "replace").rstrip()}


def _moment(line: dict[str, Any]) -> str:
    """A short name for what a line says."""
    progress = line.get("progress")
    if isinstance(progress, str):
        return progress.split(":")[0]
    error = line.get("error")
    if isinstance(error, dict):
        return f"error {error.get('reason')}"
    if "event" in line:
        return str(line["event"])
    if "signed" in line:
        return f"receipt {line['receipt']}"
    if "acknowledged" in line:
        return f"acknowledged {line['acknowledged']}"
    return "plan shown" if isinstance(progress, dict) else "result printed"
