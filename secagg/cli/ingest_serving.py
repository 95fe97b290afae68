"""The ingest processes of a coordinator: started with it, started again when one dies, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.identity.config import CoordinatorConfig
from secagg.services.ingest_processes import IngestProcesses
from secagg.services.logs import EventLog

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 30.0
_STARTS_S = 30.0
_STOP_S = 8.0


@contextlib.asynccontextmanager
async def running_ingest(config: CoordinatorConfig, processes: IngestProcesses, log: EventLog) -> AsyncIterator[None]:
    """Keep the processes running that the configuration asks for; ended in order when the block ends.

    Raises:
        CommandError: one of them does not begin to serve.
    """
    keepers = [_Keeper(config, place, log) for place in range(processes.count)]
    tasks = [asyncio.ensure_future(keeper.run()) for keeper in keepers]
    try:
        for keeper in keepers:
            await _first_attached(config, processes, keeper)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Keeper:
    """Runs the process of one place, again and again."""

    def __init__(self, config: CoordinatorConfig, place: int, log: EventLog) -> None:
        self.place = place
        self.ended_once = asyncio.Event()
        self._text = config.to_toml().encode("utf-8")
        self._log = log

    async def run(self) -> None:
        """Until it is cancelled; then the process has ended."""
        delay_s, loop = _FIRST_DELAY_S, asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            code = await self._once()
            self.ended_once.set()
            self._log.event("ingest_ended", reason=f"code {code}")
            delay_s = _FIRST_DELAY_S if loop.time() - started_s > _LONGEST_DELAY_S else delay_s
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def _once(self) -> int:
        # In a session of its own: an interrupt from the keyboard is the coordinator's to handle.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "secagg.cli.ingest_process",
            str(self.place),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await process.communicate(self._text)
        except asyncio.CancelledError:
            await _end(process)
            raise
        return process.returncode or 0


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _first_attached(config: CoordinatorConfig, processes: IngestProcesses, keeper: _Keeper) -> None:
    """Wait until a process serves. Raises CommandError: it ends before it does, or takes too long."""
    attached = asyncio.ensure_future(processes.has_attached(keeper.place))
    ended = asyncio.ensure_future(keeper.ended_once.wait())
    await asyncio.wait({attached, ended}, timeout=_STARTS_S, return_when=asyncio.FIRST_COMPLETED)
    serves = attached.done()
    for waiting in (attached, ended):
        waiting.cancel()
    if not serves:
        raise CommandError(
            "INGEST_FAILED",
            f"ingest process {keeper.place} does not serve on {config.ingest_listen(keeper.place)}",
            "the log on stderr says why; if another process serves there, end it, or change `listen` or "
            "`ingest_processes` in the configuration",
            kind="unavailable",
            code=ExitCode.UNAVAILABLE,
        )
