"""``secagg contribute``: add your adapter to a session."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.connection import add_connection, client_config, connect_to
from secagg.cli.exit_codes import ExitCode
from secagg.cli.options import add_command, add_passphrase_file, check_out, load_key, session_id
from secagg.cli.output import Reporter, Rows, now_and_then, table

if TYPE_CHECKING:
    from secagg.cli.contribution_report import ReceiptKeeper
    from secagg.client import Coordinator, Participation, Result, SessionDetails
    from secagg.crypto.signing import SigningKey
    from secagg.identity.client_config import ClientConfig
    from secagg.protocol.session import ClientPolicy
    from secagg.spending import Spending
    from secagg.transcript.entries import SessionOpen


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``contribute``."""
    parser = add_command(
        subparsers,
        "contribute",
        "add your adapter to a session",
        """
        Add a PEFT LoRA adapter (adapter_config.json and adapter_model.safetensors in ADAPTER_DIR) to a session. The
        adapter leaves this machine only under masks that cancel in the sum over all contributors. Before anything is
        sent, session, roster and log are checked against the coordinator's key and your policy, and what you are
        about to take part in is shown. In a pairwise session the command stays until the sum is published; in a
        one-shot session it returns as soon as the coordinator holds the masked adapter, unless --out asks for the
        result. Where the strategy takes two sessions, name the first: the command takes part in those of the two that
        admit you, and stays until then. If it is ended or the machine crashes, run it again with the same arguments
        and it goes on where it was.

        State is kept in DIR/PUBLIC_KEY, encrypted under your key: never restore it from a backup. The coordinator's
        signed receipt is saved there as receipts/SESSION.json.""",
        "secagg contribute my-adapter --session 6f1c...09 --config client.toml --out merged",
    )
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="the adapter to add")
    parser.add_argument(
        "--session", type=session_id, required=True, metavar="HEX", help="the session, as its operator announced it"
    )
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="KEYFILE",
        help="your key, in the session's roster (default: the configuration's, or identity.key)",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="where to keep state (default: the configuration's, or state)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="stay until the end and write the merged adapter here, as PEFT reads it"
    )
    add_connection(parser)
    add_passphrase_file(parser)
    parser.set_defaults(run=_contribute)


def _contribute(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.keys import KeyKind

    check_out(arguments.out)
    config = client_config(arguments)
    changes = {"identity_key_file": arguments.identity, "state_directory": arguments.state}
    config = dataclasses.replace(config, **{name: path for name, path in changes.items() if path is not None})
    identity = load_key(config.identity_key_file, KeyKind.IDENTITY, arguments)
    return asyncio.run(_take_part(arguments, config, identity))


async def _take_part(arguments: argparse.Namespace, config: ClientConfig, identity: SigningKey) -> ExitCode:
    policy = _policy(config)
    async with await connect_to(config, arguments.timeout) as coordinator:
        visit = _Visit(arguments, config, identity, policy, coordinator)
        details = await coordinator.details(arguments.session, policy.registrars)
        await visit.both(details)
    return ExitCode.OK


class _Until(enum.Enum):
    """How long a contributor stays, where the protocol lets it choose."""

    DELIVERED = "delivered"
    PUBLISHED = "published"


@dataclass(frozen=True)
class _Visit:
    """One contributor at one coordinator."""

    arguments: argparse.Namespace
    config: ClientConfig
    identity: SigningKey
    policy: ClientPolicy
    coordinator: Coordinator

    async def both(self, details: SessionDetails) -> None:
        """Take part in a session, or where its merge takes two in those of the two that admit this identity."""
        from secagg.protocol.second import first_merge
        from secagg.transcript.merge import PilotMerge, admits

        reporter, out = Reporter.of(self.arguments), self.arguments.out
        merge, key = details.session.parameters.merge, self.identity.public_bytes
        until = _Until.DELIVERED if out is None else _Until.PUBLISHED
        if first_merge(details.session.parameters) is None:
            await self.one(details, out, until)
            return
        admitted = admits(merge, key)
        if admitted:
            await self.one(details, None, _Until.PUBLISHED)
        else:
            reporter.progress("not drawn for the pilot: this identity belongs to the session that follows")
        if admitted and isinstance(merge, PilotMerge) and out is None:
            return
        reporter.progress("waiting for the session that follows")
        second = await self.coordinator.second_session_of(details)
        if admits(second.session.parameters.merge, key):
            await self.one(second, out, until)
        elif out is not None:
            await self._fetch(second, out)

    async def one(self, details: SessionDetails, out: Path | None, until: _Until) -> None:
        """Take part in one session; write what is merged to ``out``, if that is given."""
        from secagg.cli.contribution_report import ReceiptKeeper, Reported
        from secagg.cli.describe_noise import spending_words
        from secagg.protocol.errors import RejectReason, RemoteProtocolError
        from secagg.runtime.clock import SystemClock
        from secagg.second_session import with_fixed

        arguments, config, policy, identity = self.arguments, self.config, self.policy, self.identity
        parameters = details.session.parameters
        reporter, session = Reporter.of(arguments), parameters.session
        keeper = ReceiptKeeper(config.state_directory, identity, session, reporter)
        policy.check_parameters(parameters)
        spending = await asyncio.to_thread(_spending, parameters, policy, config, identity)
        fetched = await with_fixed(self.coordinator.port, details)
        rows = await asyncio.to_thread(_summary, arguments.adapter, fetched, config)
        reporter.details([*rows, *spending_words(parameters, spending)])
        with reporter.waiting("taking part"):
            participation = await self.coordinator.contribute(
                session, arguments.adapter, identity, config.state_directory, policy, keeper.reached
            )
            keeper.participation = participation
            if participation.details.session.entry != details.session.entry:
                await participation.close()
                raise RemoteProtocolError(RejectReason.LOG_FORKED, "it showed other parameters than it then used")
            result = await _taken_part(participation, keeper, until)
        keeper.save()
        spending = await asyncio.to_thread(_spending, parameters, policy, config, identity)
        reported = Reported(arguments, keeper, session, spending)
        if result is None:
            reported.delivered(reporter)
            return
        quality = None
        if out is not None:
            progress = now_and_then(reporter.progress, SystemClock().now_s)
            quality = await asyncio.to_thread(result.write_adapter, out, progress)
        reported.merged(reporter, result, out, quality)

    async def _fetch(self, details: SessionDetails, out: Path) -> None:
        """The result of a session that goes on without this identity."""
        from secagg.cli.contribution_report import quality_rows, quality_value
        from secagg.participation import wait_for_the_end

        session = details.session.parameters.session
        await wait_for_the_end(self.coordinator.port, session)
        result = await self.coordinator.result(session)
        quality = await asyncio.to_thread(result.write_adapter, out)
        value = {"session": session.hex(), "contributors": result.contributors, "merged": str(out)}
        rows = [
            ("session", session.hex()),
            ("contributors", f"{result.contributors}, on what you and other pilots found"),
            ("merged adapter", str(out)),
            *quality_rows(quality),
        ]
        Reporter.of(self.arguments).result({**value, "quality": quality_value(quality)}, table(rows))


async def _taken_part(participation: Participation, keeper: ReceiptKeeper, until: _Until) -> Result | None:
    """The sum; None where nothing more is asked of the contributor and nobody asked for the sum."""
    from secagg.client import OneShotParticipation

    if isinstance(participation, OneShotParticipation):
        await participation.delivered()
        keeper.save()
        if until is _Until.DELIVERED:
            return None
    return await participation.result()


def _policy(config: ClientConfig) -> ClientPolicy:
    from secagg.protocol.session import ClientPolicy, PrivacyAllowance

    policy = config.policy
    return ClientPolicy(
        policy.min_contributors,
        policy.tolerated_corrupt,
        policy.base_models,
        policy.registrars,
        config.openers,
        None if config.budget is None else PrivacyAllowance(config.budget.epsilon, config.budget.delta),
    )


def _spending(
    parameters: SessionOpen, policy: ClientPolicy, config: ClientConfig, identity: SigningKey
) -> Spending | None:
    """What the session costs of the contributor's budget, if there is one. Raises StoreError."""
    from secagg.spending import OwnBudget

    if policy.allowance is None:
        return None
    directory = config.state_directory / identity.public_bytes.hex()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with OwnBudget(directory, policy.allowance) as budget:
        return budget.spending(parameters)


def _summary(adapter: Path, details: SessionDetails, config: ClientConfig) -> Rows:
    """What is about to be sent, to whom, and what protects it. Raises AdapterError."""
    from secagg.cli.describe import opening_words, registrar_words
    from secagg.cli.describe_contribution import Contribution
    from secagg.cli.describe_noise import noise_rows
    from secagg.lora.reader import read_adapter
    from secagg.protocol.one_shot.session import OneShotSession

    parameters, session = details.session.parameters, details.session
    besides = "besides keys and sealed shares"
    openers: Rows = []
    if isinstance(session, OneShotSession):
        besides = "besides what opens the sum, sealed for those who do; then you can leave"
        openers = [("opened by", opening_words(session.opening, config.openers))]
    found = read_adapter(adapter, parameters.base_model)
    contribution = Contribution(adapter, found, session, details.merging, details.merging.message(found))
    return [
        ("session", parameters.session.hex()),
        ("coordinator", f"{config.coordinator}, key {parameters.coordinator.hex()}"),
        *contribution.rows(besides),
        (
            "cohort",
            f"the sum is opened over at least {parameters.min_contributors} contributions, "
            f"and shows none of them even if {parameters.max_corrupt} collude with the coordinator",
        ),
        *openers,
        *noise_rows(parameters),
        ("registrar", registrar_words(parameters, config.policy.registrars)),
        ("log", _log_words(details, config)),
    ]


def _log_words(details: SessionDetails, config: ClientConfig) -> str:
    from secagg.transcript.policy import NO_QUORUM

    origin, policy = details.session.parameters.log, config.policy.log_policy()
    if policy.quorum == NO_QUORUM:
        return f"{origin}: NO WITNESS ASKED FOR: the operator can show you another log than others (policy.log)"
    return f"{origin}, cosigned as {config.policy.log} asks: everybody who asks so is shown the same"
