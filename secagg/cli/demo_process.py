"""Processes of the demo: each party is one of its own, and is gone when the demo is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from secagg.cli.demo_plan import DemoFailedError

_START_S = 60.0
_STOP_S = 10.0


@contextlib.asynccontextmanager
async def started(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A party of the demo; it is gone when the context ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        await stopped(process)


async def stopped(process: asyncio.subprocess.Process) -> None:
    """End a party in order, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def ran(module: str, *arguments: str) -> tuple[int, str, str]:
    """Run a party that ends by itself; its exit code and what it wrote to stdout and stderr."""
    async with started(module, *arguments) as process:
        output, errors = await process.communicate()
    code = await process.wait()
    return code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


async def serving(process: asyncio.subprocess.Process, party: str) -> dict[str, Any]:
    """What a service says on stdout (``--format json``) once it serves."""
    if process.stdout is None or process.stderr is None:
        raise DemoFailedError(f"{party} has no output")
    async with asyncio.timeout(_START_S):
        async for line in process.stdout:
            with contextlib.suppress(ValueError):
                event: dict[str, Any] = json.loads(line)
                if event.get("event") == "serving":
                    return event
    said = (await process.stderr.read()).decode("utf-8", "replace").strip().splitlines()
    raise DemoFailedError(f"{party} did not start: {said[-1] if said else 'it said nothing'}")
