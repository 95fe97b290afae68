"""Contributors as a process that a test starts, kills and starts again with the same arguments.

    python -m tests.support.contributor_process STATE PORT SESSION NAMES [CALL before|after]

Each of NAMES (comma-separated) contributes the one-hot adapter STATE/NAME/adapter through the client library, with the
key of the tests under that name and its own state directory. With CALL the process kills itself with SIGKILL before or
after that call of a contributor's stores. Prints one line of JSON for each contributor that is done; every message
that leaves is appended to STATE/NAME/sent.jsonl, outside the stores.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secagg import participation, remote
from secagg.client import Coordinator, Result, SessionAbortedError, connect
from secagg.crypto.signing import SigningKey
from secagg.identity.tls import PinnedCertificate
from secagg.protocol.errors import ProtocolError
from secagg.protocol.messages import ClientMessage, Contribution
from secagg.protocol.session import ClientPolicy
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import BlobStore
from secagg.transcript.statements import ContributionHeader, OneShotHeader, SelfMaskShare, UnmaskStatement
from tests.support.cohort import key_of
from tests.support.coordinator_process import Fate, MortalBlobs, MortalStore, fate_of


def make_mortal(fate: Fate) -> None:
    """Let every contributor of this process die with its stores."""
    immortal = participation.StateKeeper.__init__

    def init(self: Any, directory: Path, identity: SigningKey, *more: Any) -> None:
        immortal(self, directory, identity, *more)
        self.sealed = MortalStore(self.sealed, fate)
        self.blobs = MortalBlobs(self.blobs, fate)

    participation.StateKeeper.__init__ = init


def record_messages(path_of: Callable[[bytes], Path]) -> None:
    """Write down every message before it leaves, by the identity in it."""
    send, upload = remote.GrpcCoordinator.send, remote.GrpcCoordinator.upload

    def note(message: ClientMessage, body: bytes) -> None:
        statement = message.signed.statement
        kinds: list[tuple[int, str]] = []
        if isinstance(statement, UnmaskStatement):
            kinds = [(s.index, "self-mask" if isinstance(s, SelfMaskShare) else "root") for s in statement.shares]
        digest = hashlib.sha256(message.signed.to_bytes() + body).hexdigest()
        with path_of(statement.identity).open("a") as file:
            file.write(json.dumps([type(message).__name__, digest, kinds]) + "\n")

    async def noted_send(self: Any, session: bytes, message: ClientMessage) -> None:
        note(message, b"")
        await send(self, session, message)

    async def noted_upload(self: Any, session: bytes, message: Contribution, blobs: BlobStore) -> Any:
        assert isinstance(message.signed.statement, ContributionHeader | OneShotHeader)
        upload_digest = message.signed.statement.upload
        if blobs.has(upload_digest):  # else it was delivered and deleted, and is only announced again
            note(message, blobs.get(upload_digest))
        return await upload(self, session, message, blobs)

    remote.GrpcCoordinator.send = noted_send  # type: ignore[method-assign]
    remote.GrpcCoordinator.upload = noted_upload  # type: ignore[method-assign]


async def take_part(state: Path, port: int, session: bytes, name: str) -> dict[str, Any]:
    """Contribute, however often the coordinator has to be connected to; what came of it."""
    tls = PinnedCertificate((state / "tls.crt").read_bytes(), "localhost")
    while True:
        try:
            async with await connect(f"127.0.0.1:{port}", key_of("coordinator").public_bytes, tls) as coordinator:
                result = await _contribute(coordinator, state / name, session, key_of(name))
            return {"name": name, "count": result.contributors, "sum": result.integer_sum.tolist()}
        except SessionAbortedError as error:
            return {"name": name, "aborted": error.reason}
        except ProtocolError as error:
            return {"name": name, "refused": str(error)}
        except TransportError:
            await asyncio.sleep(0.1)  # a poll: the coordinator is being started again


async def _contribute(coordinator: Coordinator, own: Path, session: bytes, identity: SigningKey) -> Result:
    participation = await coordinator.contribute(session, own / "adapter", identity, own / "state", ClientPolicy())
    return await participation.result()


async def main(state: Path, port: int, session: bytes, names: list[str]) -> None:
    """Let everybody take part at once."""
    for taking_part in asyncio.as_completed([take_part(state, port, session, name) for name in names]):
        sys.stdout.write(json.dumps(await taking_part) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _state, _names = Path(sys.argv[1]), sys.argv[4].split(",")
    _by_key = {key_of(name).public_bytes: name for name in _names}
    if len(sys.argv) > 5:
        make_mortal(fate_of(sys.argv[5:]))
    record_messages(lambda identity: _state / _by_key[identity] / "sent.jsonl")
    asyncio.run(main(_state, int(sys.argv[2]), bytes.fromhex(sys.argv[3]), _names))
