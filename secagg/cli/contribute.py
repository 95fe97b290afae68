"""``secagg contribute``: add your adapter to a session."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.connection import add_connection, client_config, connect_to
from secagg.cli.exit_codes import ExitCode
from secagg.cli.options import add_command, add_passphrase_file, check_out, load_key, session_id
from secagg.cli.output import Reporter, Rows, table

if TYPE_CHECKING:
    from secagg.client import Milestone, Participation, Result, SessionDetails
    from secagg.crypto.signing import SigningKey
    from secagg.identity.client_config import ClientConfig
    from secagg.protocol.session import ClientPolicy
    from secagg.runtime.vectors import EncodingReport
    from secagg.spending import Spending
    from secagg.transcript.entries import SessionOpen

RECEIPTS = "receipts"


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
        result. If it is ended or the machine crashes, run it again with the same arguments and it goes on where it
        was.

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
    from secagg.cli.describe_noise import spending_words
    from secagg.protocol.errors import RejectReason, RemoteProtocolError

    reporter, session = Reporter.of(arguments), arguments.session
    policy = _policy(config)
    keeper = _ReceiptKeeper(config.state_directory, identity, session, reporter)
    async with await connect_to(config, arguments.timeout) as coordinator:
        details = await coordinator.details(session, policy.registrars)
        policy.check_parameters(details.session.parameters)
        spending = await asyncio.to_thread(_spending, details.session.parameters, policy, config, identity)
        rows = await asyncio.to_thread(_summary, arguments.adapter, details, config)
        reporter.details([*rows, *spending_words(details.session.parameters, spending)])
        with reporter.waiting("taking part"):
            participation = await coordinator.contribute(
                session, arguments.adapter, identity, config.state_directory, policy, keeper.reached
            )
            keeper.participation = participation
            if participation.details.session.entry != details.session.entry:
                await participation.close()
                raise RemoteProtocolError(RejectReason.LOG_FORKED, "it showed other parameters than it then used")
            result = await _taken_part(participation, arguments.out, keeper)
        keeper.save()
        spending = await asyncio.to_thread(_spending, details.session.parameters, policy, config, identity)
        if result is not None and arguments.out is not None:
            await asyncio.to_thread(result.write_adapter, arguments.out)
    if result is None:
        _report_delivered(reporter, arguments, keeper, spending)
    else:
        _report(reporter, arguments, result, keeper, spending)
    return ExitCode.OK


async def _taken_part(participation: Participation, out: Path | None, keeper: _ReceiptKeeper) -> Result | None:
    """The sum; None where nothing more is asked of the contributor and nobody asked for the sum."""
    from secagg.client import OneShotParticipation

    if isinstance(participation, OneShotParticipation):
        await participation.delivered()
        keeper.save()
        if out is None:
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


class _ReceiptKeeper:
    """Hears of milestones and saves the receipt, the very bytes that were signed, as soon as it is there."""

    def __init__(self, state: Path, identity: SigningKey, session: bytes, reporter: Reporter) -> None:
        public = identity.public_bytes.hex()
        self.file = state / public / RECEIPTS / f"{session.hex()}.json"
        self.participation: Participation | None = None
        self._fields = {"identity": public, "session": session.hex()}
        self._reporter = reporter
        self._saved = False

    @property
    def encoding(self) -> EncodingReport | None:
        """What encoding did to the adapter, if this process encoded it."""
        return None if self.participation is None else self.participation.encoding

    def reached(self, milestone: Milestone) -> None:
        """Tell the contributor; save the receipt if it has come."""
        self._reporter.progress(str(milestone))
        self.save()

    def save(self) -> None:
        """Write the receipt once."""
        receipt = None if self.participation is None else self.participation.receipt
        if receipt is None or self._saved:
            return
        content = {**self._fields, "receipt": receipt.receipt.hex(), "signature": receipt.signature.hex()}
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, sort_keys=True, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.file)
        self._saved = True


def _report_delivered(
    reporter: Reporter, arguments: argparse.Namespace, keeper: _ReceiptKeeper, spending: Spending | None
) -> None:
    """The contribution is held: what was done, and how to fetch the sum once it is there."""
    from secagg.cli.describe_noise import spending_value

    connection = f" --config {arguments.config}" if arguments.config is not None else ""
    following = f"secagg session result {arguments.session.hex()} --out DIR{connection}"
    encoding = keeper.encoding
    rows = [
        ("session", arguments.session.hex()),
        ("delivered", "the coordinator holds your masked adapter: nothing more is asked of you"),
        *_earlier(arguments, encoding),
    ]
    if encoding is not None and encoding.clamped:
        rows.append(("clamped", f"{encoding.clamped} coordinates were too large for the session's bound"))
    rows += [("receipt", str(keeper.file)), ("once it has ended", following)]
    reporter.result(
        {
            "session": arguments.session.hex(),
            "contributors": None,
            "norm": None if encoding is None else encoding.norm,
            "clamped": None if encoding is None else encoding.clamped,
            "receipt": str(keeper.file),
            "merged": None,
            "budget": spending_value(spending),
            "next": following,
        },
        table(rows),
    )


def _earlier(arguments: argparse.Namespace, encoding: EncodingReport | None) -> Rows:
    """Whoever masked an adapter for a session cannot change it: another one that is given later goes nowhere."""
    if encoding is not None:
        return []
    words = "what an earlier run of this identity masked for this session counts, and cannot be changed; "
    return [("NOT sent now", f"{words}{arguments.adapter} was not used")]


def _report(
    reporter: Reporter,
    arguments: argparse.Namespace,
    result: Result,
    keeper: _ReceiptKeeper,
    spending: Spending | None,
) -> None:
    from secagg.cli.describe_noise import spending_value, spent_words

    encoding = keeper.encoding
    rows = [
        ("session", arguments.session.hex()),
        ("contributors", f"{result.contributors}, you among them"),
        *_earlier(arguments, encoding),
    ]
    if encoding is not None and encoding.clamped:
        rows.append(("clamped", f"{encoding.clamped} coordinates were too large for the session's bound"))
    if keeper.file.exists():
        rows.append(("receipt", str(keeper.file)))
    if spending is not None:
        rows.append(("your budget", spent_words(spending)))
    if arguments.out is not None:
        rows.append(("merged adapter", str(arguments.out)))
    else:
        rows.append(("merged adapter", "not written (--out DIR, or later `secagg session result`)"))
    reporter.result(
        {
            "session": arguments.session.hex(),
            "contributors": result.contributors,
            "norm": None if encoding is None else encoding.norm,
            "clamped": None if encoding is None else encoding.clamped,
            "receipt": str(keeper.file) if keeper.file.exists() else None,
            "merged": None if arguments.out is None else str(arguments.out),
            "budget": spending_value(spending),
        },
        table(rows),
    )
