"""The demo's witnesses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from secagg.cli.demo_process import serving, started
from secagg.crypto.rng import SystemRng
from secagg.identity.address import Address
from secagg.identity.keys import KeyKind, create_key_file
from secagg.identity.witness_config import WitnessConfig
from secagg.store.witness_state import DirectoryWitnessState
from secagg.transcript.note import VerifierKey
from secagg.transcript.policy import LogPolicy

WITNESSES = 3
_GROUP = "witnesses"


@contextlib.asynccontextmanager
async def witnesses(private: Path, log: VerifierKey) -> AsyncIterator[LogPolicy]:
    """Three witnesses of ``log``, each a process; yields the policy that asks for all of them, with addresses.

    Of three witnesses a quorum that survives a dishonest one would be all three, and then one that is down stops the
    log: real deployments have four or more.
    """
    configs = await asyncio.to_thread(_found, private, log)
    async with contextlib.AsyncExitStack() as stack:
        processes = await asyncio.gather(
            *(stack.enter_async_context(started("secagg.cli.main", *_serve(config))) for config in configs)
        )
        lines = [(await serving(process, "a witness"))["policy_line"] for process in processes]
        members = " ".join(line.split()[1] for line in lines)
        text = [f"log {log.to_text()}", *lines, f"group {_GROUP} all {members}", f"quorum {_GROUP}"]
        yield LogPolicy.parse("".join(f"{line}\n" for line in text))


def _found(private: Path, log: VerifierKey) -> list[Path]:
    """Make the witnesses' keys, states and configurations; returns the files of the latter."""
    files = []
    for number in range(1, WITNESSES + 1):
        home = private / f"witness-{number}"
        home.mkdir(mode=0o700)
        name = f"witness-{number}.demo"
        config = WitnessConfig(name, home / "state", home / "witness.key", Address("127.0.0.1", 0), "", (log,))
        create_key_file(config.key_file, KeyKind.WITNESS, None, SystemRng())
        DirectoryWitnessState.create(config.state_directory)
        files.append(home / WitnessConfig.FILE_NAME)
        files[-1].write_text(config.to_toml(), encoding="utf-8")
    return files


def _serve(config: Path) -> tuple[str, ...]:
    return ("witness", "serve", "--config", str(config), "--format", "json")
