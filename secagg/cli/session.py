"""``secagg session``: open a session, see where it stands, fetch its result."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli import coordinator, masked_inputs, session_open
from secagg.cli.connection import add_connection, client_config, connect_to
from secagg.cli.exit_codes import ExitCode
from secagg.cli.operator_socket import OPERATOR_CALL_S, at_socket
from secagg.cli.options import add_command, add_group, check_out, session_id
from secagg.cli.output import Reporter, now_and_then, table

if TYPE_CHECKING:
    from secagg.client import Coordinator
    from secagg.runtime.shown import Status

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
PHASES = (
    "advertise-keys", "share-keys", "commit", "masked-input", "hold-shares", "consistency-check", "unmask", "open-sum",
)  # fmt: skip
"""Those that can be ended; each session has some of them."""
_PATIENCE_S = 60.0
"""How long a watch goes on trying to reach a coordinator that does not answer."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``session open``, ``end-phase``, ``list``, ``show``, ``watch``, ``result``, ``export-masked-inputs``."""
    commands = add_group(
        subparsers,
        "session",
        "open a session, see where it stands, fetch its result",
        """
        A session adds up the adapters of one roster, once. `open` and `end-phase` are for the operator and work on
        the coordinator's own machine; the rest is for anybody who knows the coordinator's key, and checks what it
        shows against that key.""",
    )
    session_open.add_parser(commands)
    _add_end_phase(commands)
    _add_list(commands)
    _add_show(commands)
    _add_watch(commands)
    _add_start(commands)
    _add_result(commands)
    masked_inputs.add_parser(commands)


def _add_end_phase(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "end-phase",
        "end a phase before its deadline (operator)",
        """
        Go on with those who are there, as if the deadline of the phase had passed; through the socket in the state
        directory. Nothing happens if the session is in another phase by now.""",
        "secagg session end-phase 6f1c...09 advertise-keys --config aggregator/coordinator.toml",
    )
    _add_session(parser)
    parser.add_argument(
        "phase",
        choices=PHASES,
        metavar="PHASE",
        help=f"the phase to end: {', '.join(PHASES)}",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the coordinator.toml that is served"
    )
    parser.set_defaults(run=_end_phase)


def _add_list(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "list",
        "list the coordinator's sessions",
        "List the sessions of a coordinator and their phases, newest first.",
        "secagg session list --config client.toml",
    )
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_list(arguments)))


def _add_show(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "show",
        "show a session's parameters and where it stands",
        """
        Fetch a session's parameters, roster and log, check them against the coordinator's key and against each
        other, and show them with the phase the session is in.""",
        "secagg session show 6f1c...09 --config client.toml",
    )
    _add_session(parser)
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_show(arguments)))


def _add_watch(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "watch",
        "follow a session to its end",
        """
        Write a line to stdout whenever the session moves (with --format json one object a line), until it has
        ended. The exit code is 0 if there is a sum and 1 if there is none. A coordinator that goes away is waited
        for, for a minute.""",
        "secagg session watch 6f1c...09 --config client.toml",
    )
    _add_session(parser)
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_watch(arguments)))


def _add_start(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "start",
        "fetch the adapter that everybody starts from (frozen-a)",
        """
        Where a session freezes A, write the adapter to train from to DIR: the session's A, and B = 0. Train B alone;
        an adapter with another A is refused.""",
        "secagg session start 6f1c...09 --out start --config client.toml",
    )
    _add_session(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write the adapter")
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_start(arguments)))


def _add_result(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "result",
        "fetch the merged adapter",
        """
        Fetch the exact sum of a session that has ended, check it against the signed log, recompute the mean and
        write it to DIR as an adapter that PEFT loads: adapter_config.json and adapter_model.safetensors.""",
        "secagg session result 6f1c...09 --out merged --config client.toml",
    )
    _add_session(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write the adapter")
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_result(arguments)))


def _add_session(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", type=session_id, metavar="SESSION", help="the session: 32 hex characters")


def _end_phase(arguments: argparse.Namespace) -> ExitCode:
    from secagg.protocol.phases import Phase
    from secagg.remote_operator import end_phase

    state = coordinator.load_config(arguments.config).state_directory
    asyncio.run(at_socket(arguments, end_phase(state, arguments.session, Phase(arguments.phase), OPERATOR_CALL_S)))
    Reporter.of(arguments).result(
        {"session": arguments.session.hex(), "phase": arguments.phase}, f"{arguments.phase} is over"
    )
    return ExitCode.OK


async def _list(arguments: argparse.Namespace) -> ExitCode:
    async with await connect_to(client_config(arguments), arguments.timeout) as remote:
        found = [(session.hex(), phase.value) for session, phase in await remote.port.sessions()]
    Reporter.of(arguments).result(
        {"sessions": [{"session": session, "phase": phase} for session, phase in found]},
        table(found) if found else "no sessions",
    )
    return ExitCode.OK


async def _show(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.describe import describe_session, opener_identities, opening_words, registrar_words
    from secagg.protocol.one_shot.session import OneShotSession

    config = client_config(arguments)
    async with await connect_to(config, arguments.timeout) as remote:
        details = await remote.details(arguments.session, config.policy.registrars)
        status = await _status_now(remote, arguments.session)
    described = describe_session(details.session, details.merging)
    abort = details.view.abort
    told = {"registrar": registrar_words(details.session.parameters, config.policy.registrars)}
    pinned: dict[str, Any] = {}
    if isinstance(details.session, OneShotSession):
        told["opened by"] = opening_words(details.session.opening, config.openers)
        pinned["openers_pinned"] = sorted(
            key.hex() for key in opener_identities(details.session.opening) & config.openers
        )
    rows = [
        *((label, told.get(label, value)) for label, value in described.rows),
        ("phase", _words(status)),
        *([("reason", abort.reason)] if abort is not None else []),
    ]
    Reporter.of(arguments).result(
        {
            **described.value,
            **_status_value(status),
            "registrar_pinned": details.session.parameters.registrar in config.policy.registrars,
            **pinned,
            "abort_reason": None if abort is None else abort.reason,
        },
        table(rows),
    )
    return ExitCode.OK


async def _status_now(remote: Coordinator, session: bytes) -> Status:
    from secagg.runtime.participant import TransportError

    async for status in remote.port.watch(session):
        return status
    raise TransportError("the watch ended before it began")


async def _watch(arguments: argparse.Namespace) -> ExitCode:
    from secagg.client import SessionAbortedError
    from secagg.protocol.phases import Phase

    reporter, session = Reporter.of(arguments), arguments.session
    async with await connect_to(client_config(arguments), arguments.timeout) as remote:
        last = await _follow(remote, session, reporter)
        if last.phase is not Phase.ABORTED:
            return ExitCode.OK
        abort = (await remote.details(session)).view.abort
    raise SessionAbortedError("unknown" if abort is None else abort.reason)


async def _follow(remote: Coordinator, session: bytes, reporter: Reporter) -> Status:
    """Report every change until the session has ended; the last status."""
    from secagg.protocol.phases import Phase
    from secagg.runtime.participant import TransportError

    loop = asyncio.get_running_loop()
    last: Status | None = None
    heard_s, delay_s = loop.time(), _FIRST_DELAY_S
    while True:
        try:
            async for status in remote.port.watch(session):
                heard_s, delay_s = loop.time(), _FIRST_DELAY_S
                if status != last:
                    reporter.result({"session": session.hex(), **_status_value(status)}, _words(status))
                last = status
                if status.phase in {Phase.FINISHED, Phase.ABORTED}:
                    return status
        except TransportError:
            if loop.time() - heard_s > _PATIENCE_S:
                raise
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


def _status_value(status: Status) -> dict[str, Any]:
    return {
        "phase": status.phase.value,
        "deadline_s": status.deadline_s,
        "received": status.received,
        "expected": status.expected,
        "log_size": status.log_size,
    }


def _words(status: Status) -> str:
    from secagg.protocol.phases import Phase

    if status.phase is Phase.ABORTED:
        return "aborted: there is no sum"
    if status.phase is Phase.FINISHED:
        return f"finished: the sum of {status.received} contributions is published"
    until = f", until {_local_time(status.deadline_s)}" if status.deadline_s else ""
    return f"{status.phase.value}: {status.received} of {status.expected}{until}"


def _local_time(at_s: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


async def _start(arguments: argparse.Namespace) -> ExitCode:
    from secagg.lora.writer import write_adapter
    from secagg.second_session import with_fixed

    check_out(arguments.out)
    config = client_config(arguments)
    async with await connect_to(config, arguments.timeout) as remote:
        details = await remote.details(arguments.session, config.policy.registrars)
        merging = (await with_fixed(remote.port, details)).merging
    await asyncio.to_thread(lambda: write_adapter(arguments.out, merging.template, merging.start()))
    Reporter.of(arguments).result(
        {"session": arguments.session.hex(), "start": str(arguments.out), "rank": merging.rank},
        f"adapter of rank {merging.rank} to train B of, and never A: {arguments.out}",
    )
    return ExitCode.OK


async def _result(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.contribution_report import quality_rows, quality_value
    from secagg.protocol.second import first_merge
    from secagg.runtime.clock import SystemClock

    check_out(arguments.out)
    async with await connect_to(client_config(arguments), arguments.timeout) as remote:
        result = await remote.result(arguments.session)
    progress = now_and_then(Reporter.of(arguments).progress, SystemClock().now_s)
    quality = await asyncio.to_thread(result.write_adapter, arguments.out, progress)
    first = first_merge(result.details.session.parameters) is not None
    what = "bases, for the session that follows, of the sum" if first else "mean"
    Reporter.of(arguments).result(
        {
            "session": arguments.session.hex(),
            "contributors": result.contributors,
            "merged": str(arguments.out),
            "quality": quality_value(quality),
        },
        "\n".join(
            [
                f"{what} of {result.contributors} adapters, checked against the log: {arguments.out}",
                *([table(quality_rows(quality))] if quality is not None else []),
            ]
        ),
    )
    return ExitCode.OK
