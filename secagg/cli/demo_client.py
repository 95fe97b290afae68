"""One contributor of the demo, in a process of its own: the client library and nothing else.

Reads one JSON object from standard input, writes one line of JSON for each step to standard output. A contributor
that is to drop out kills itself, so that nothing of it is tidied up.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from secagg.client import LogPolicy, LogTrust, Milestone, OneShotParticipation, SessionAbortedError, connect
from secagg.identity.keys import KeyKind, load_key_file
from secagg.identity.tls import PinnedCertificate
from secagg.protocol.errors import ProtocolError
from secagg.protocol.session import ClientPolicy, PrivacyAllowance
from secagg.runtime.participant import TransportError
from secagg.store.checkpoints import FileCheckpointMemory


@dataclass(frozen=True, slots=True)
class Task:
    """What a contributor is told.

    ``leave_at`` is the name of a milestone, or empty; ``openers`` are the keys of those whom it lets open a
    sum; ``allowance`` is epsilon and delta of its own budget, or empty.
    """

    address: str
    coordinator_key: str
    certificate: str
    certificate_name: str
    registrar: str
    session: str
    adapter: str
    identity: str
    state: str
    leave_at: str
    log_policy: str
    openers: list[str]
    allowance: list[str]

    @classmethod
    def read(cls) -> Task:
        """The task on standard input."""
        fields: dict[str, Any] = json.loads(sys.stdin.readline())
        return cls(**fields)


async def take_part(task: Task) -> None:
    """Contribute, and stay until nothing more is asked of a contributor or the task says to leave."""

    def progress(milestone: Milestone) -> None:
        _say(milestone.name)
        if milestone.name == task.leave_at:
            os.kill(os.getpid(), signal.SIGKILL)

    identity = load_key_file(Path(task.identity), KeyKind.IDENTITY, None)
    # Small demos can tolerate nobody; how many this one does is in its first lines.
    policy = ClientPolicy(
        tolerated_corrupt=Fraction(0),
        registrars=frozenset({bytes.fromhex(task.registrar)}),
        openers=frozenset(map(bytes.fromhex, task.openers)),
        allowance=PrivacyAllowance(*map(Fraction, task.allowance)) if task.allowance else None,
    )
    tls = PinnedCertificate(task.certificate.encode("ascii"), task.certificate_name)
    key, state = bytes.fromhex(task.coordinator_key), Path(task.state)
    memory = FileCheckpointMemory.of_coordinator(state / identity.public_bytes.hex(), key)
    coordinator = await connect(task.address, key, tls, LogTrust(LogPolicy.parse(task.log_policy), memory))
    async with coordinator:
        participation = await coordinator.contribute(
            bytes.fromhex(task.session), Path(task.adapter), identity, state, policy, progress
        )
        if isinstance(participation, OneShotParticipation):
            await participation.delivered()
        else:
            await participation.result()


def _say(event: str, detail: str = "") -> None:
    sys.stdout.write(json.dumps({"event": event, "detail": detail}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Take part once."""
    _say("READY")
    try:
        asyncio.run(take_part(Task.read()))
    except (ProtocolError, TransportError, SessionAbortedError) as error:
        _say("FAILED", str(error))
        raise SystemExit(1) from None
    _say("DONE")


if __name__ == "__main__":
    main()
