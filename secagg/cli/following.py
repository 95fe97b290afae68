"""The second session of a strategy that takes two, as its operator opens it: once the first has its sum."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.opening import Opening
from secagg.cli.operator_socket import OPERATOR_CALL_S, REACH_S, at_socket
from secagg.client import Coordinator, LogTrust
from secagg.identity.config import CoordinatorConfig
from secagg.identity.keys import KeyKind, load_public_key, public_path
from secagg.lora.manifest import Manifest
from secagg.lora.update_merging import UpdateMerging
from secagg.participation import wait_for_the_end
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.second import FirstSession, first_merge
from secagg.remote_operator import at_operator, reach_operator
from secagg.second_session import ended_first
from secagg.session_details import SessionDetails
from secagg.transcript.merge import MAX_ATTEMPTS, second_session

WAITING = "waiting for the sum of the first session, to open the second"


@dataclass(frozen=True, slots=True)
class EndedFirst:
    """A first session that has its sum, its modules, and which attempt at a second session is due."""

    first: FirstSession
    manifest: Manifest
    attempt: int


def takes_two(opening: Opening) -> bool:
    """Whether another session follows the one that was opened."""
    return first_merge(opening.session.parameters) is not None


async def wait_for_first(arguments: argparse.Namespace, config: CoordinatorConfig, session: bytes) -> EndedFirst:
    """Wait until the sum of a first session is published.

    Raises:
        CommandError: nothing follows such a session, it has no sum, or an attempt at a second one is under way or over.
    """
    await at_socket(arguments, reach_operator(config.state_directory, REACH_S))
    key = load_public_key(public_path(config.key_file), KeyKind.COORDINATOR)
    port = await at_operator(config.state_directory, OPERATOR_CALL_S)
    async with Coordinator(port, key, LogTrust.nobody()) as view:
        merging = (await view.details(session)).merging
        await wait_for_the_end(port, session)
        details = await view.details(session)
        if first_merge(details.session.parameters) is None or not isinstance(merging, UpdateMerging):
            raise CommandError("FOLLOWS", "--follows: no session follows one with such a merge", "leave it out")
        if details.view.abort is not None:
            raise CommandError(
                "FIRST_ABORTED",
                f"the first session ended without a sum: {details.view.abort.reason}",
                "open it again",
                kind="session",
                code=ExitCode.SESSION_FAILED,
            )
        first = (await ended_first(view, details)).first
        return EndedFirst(first, merging.manifest, await _next_attempt(view, details))


async def _next_attempt(view: Coordinator, first: SessionDetails) -> int:
    """The first attempt that does not exist; those before it came to nothing."""
    for attempt in range(MAX_ATTEMPTS):
        session = second_session(first.session.parameters.session, attempt)
        try:
            found = await view.details(session)
        except RemoteProtocolError as error:
            if error.reason is not RejectReason.UNKNOWN_SESSION:
                raise
            return attempt
        if found.view.abort is None:
            fix = f"`secagg session show {session.hex()}` says where it stands"
            raise CommandError("FOLLOWED", f"session {session.hex()} follows it already", fix)
    raise CommandError(
        "FOLLOWED", f"{MAX_ATTEMPTS} second sessions came to nothing", "train again, and open a new first"
    )
