"""``secagg contribute`` with a witness at the door: what leaves, and what is acknowledged, is written down.

    python -m tests.drills.contributor SENT_DIRECTORY contribute ADAPTER ...

The command is the installed one, with its arguments. Before a message leaves, SENT_DIRECTORY/sent.jsonl has a line
with its digest, outside the stores of the contributor; on stderr stands what was acknowledged.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from secagg import remote
from secagg.cli.main import main
from tests.support.contributor_process import record_messages


def announce_acknowledgements() -> None:
    """Say on stderr, as the command says its progress, what the coordinator has acknowledged."""
    send, upload = remote.GrpcCoordinator.send, remote.GrpcCoordinator.upload

    async def announced_send(self: Any, session: bytes, message: Any) -> None:
        await send(self, session, message)
        _say(acknowledged=type(message).__name__)

    async def announced_upload(self: Any, session: bytes, message: Any, blobs: Any) -> Any:
        receipt = await upload(self, session, message, blobs)
        _say(receipt="for the upload", signed=receipt.receipt.hex())
        return receipt

    remote.GrpcCoordinator.send = announced_send  # type: ignore[method-assign]
    remote.GrpcCoordinator.upload = announced_upload  # type: ignore[method-assign]


def _say(**line: str) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sent = Path(sys.argv[1]) / "sent.jsonl"
    record_messages(lambda _: sent)
    announce_acknowledgements()
    sys.argv[1:] = sys.argv[2:]
    main()
