"""A coordinator of a script's own: the commands an operator types, as processes, gone when the script ends."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

CALL_S = 120.0
_START_S = 120.0
_STOP_S = 20.0


class ServiceError(Exception):
    """A command failed, or the coordinator did not start; the text is what it said."""


def command(name: str, *arguments: str) -> list[str]:
    """What runs a module of this Python; commands of the service answer with one JSON object a line."""
    machine = ["--format", "json"] if name == "secagg.cli.main" else []
    return [sys.executable, "-m", name, *arguments, *machine]


async def secagg(*arguments: str) -> dict[str, Any]:
    """Run a command; what it prints with ``--format json``. Raises ServiceError."""
    process = await asyncio.create_subprocess_exec(
        *command("secagg.cli.main", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise ServiceError(f"secagg {' '.join(arguments[:2])}: {errors.decode(errors='replace')}")
    found: dict[str, Any] = json.loads(output)
    return found


async def verify(record: Path, policy: Path, *options: str) -> str:
    """The report of ``secagg-verify check``. Raises ServiceError unless every check passes."""
    process = await asyncio.create_subprocess_exec(
        *command("verifier", "check", str(record), "--policy", str(policy), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    report = output.decode(errors="replace")
    if process.returncode != 0:
        raise ServiceError(f"the record does not verify:\n{report}")
    return report


@contextlib.asynccontextmanager
async def serving(config: Path, errors: Path) -> AsyncIterator[dict[str, Any]]:
    """``secagg coordinator serve``, gone when the context ends; yields what it says once it serves."""
    async with staying(errors, "coordinator", "serve", "--config", str(config)) as said:
        async with asyncio.timeout(_START_S):
            started = await said()
        yield started


@contextlib.asynccontextmanager
async def staying(errors: Path, *arguments: str) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """A command that says one thing after the other, gone when the context ends; yields what waits for the next.

    That raises ServiceError if nothing comes any more; ``errors`` is where the command's progress and errors go.
    """
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command("secagg.cli.main", *arguments), stdout=asyncio.subprocess.PIPE, stderr=stderr
        )

    async def said() -> dict[str, Any]:
        line = await process.stdout.readline() if process.stdout else b""
        if not line:
            raise ServiceError(f"secagg {' '.join(arguments[:2])}: {await asyncio.to_thread(errors.read_text)}")
        found: dict[str, Any] = json.loads(line)
        return found

    try:
        yield said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
