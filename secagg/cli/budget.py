"""``secagg budget``: what was spent in differential privacy, and what is left."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_group, hex_bytes
from secagg.cli.output import Reporter, Rows, table

if TYPE_CHECKING:
    from dp.ledger import BudgetState, Ledger

_CLIENT_KEY = "coordinator_key"
"""A member of client.toml that coordinator.toml does not have."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``budget show`` and ``accept-restored``."""
    commands = add_group(
        subparsers,
        "budget",
        "what was spent in differential privacy, and what is left",
        """
        Operators and contributors each keep a ledger of their own. An operator's says what its sessions may cost
        whoever takes part in all of them; its head stands in the log, in the open entry of every session with
        noise. A contributor's says what the sessions that it joined cost it, and needs nobody's word.""",
    )
    show = add_command(
        commands,
        "show",
        "show a ledger's budgets and sessions",
        """
        Show what every budget holds, what is spent and left, and what each session costs by itself; epsilons do not
        add up, together they are less. FILE is a coordinator.toml or a client.toml. An operator's ledger is brought
        up to date with the log first: what ended is settled with the contributions it was closed over, or taken
        back if it never was.""",
        """
        secagg budget show --config aggregator/coordinator.toml
        secagg budget show --config client.toml""",
    )
    show.add_argument("--config", type=Path, required=True, metavar="FILE", help="coordinator.toml or client.toml")
    show.add_argument(
        "--identity",
        type=hex_bytes(32),
        metavar="KEY",
        help="of a contributor: whose ledger, by its public key (default: the identity of the configuration)",
    )
    show.set_defaults(run=_show)
    accept = add_command(
        commands,
        "accept-restored",
        "go on with a restored ledger, if the log shows nothing that it lacks (operator)",
        """
        A ledger that went back in time is refused, because budget that was spent would be spent again. If the newest
        copy is lost, this compares the copy that is there with the coordinator's log: it is accepted if it holds the
        newest reservation that was published. What it has lost then are settlements, which are made again from the
        log. That it was accepted is written down in the ledger for ever.""",
        "secagg budget accept-restored --config aggregator/coordinator.toml",
    )
    accept.add_argument("--config", type=Path, required=True, metavar="FILE", help="the coordinator.toml")
    accept.set_defaults(run=_accept_restored)


def _show(arguments: argparse.Namespace) -> ExitCode:
    budgets = _of_contributor(arguments) if _is_client(arguments.config) else _of_operator(arguments)
    nothing = "nothing was spent: no session with noise was joined or opened"
    text = "\n\n".join(table(_rows(budget)) for budget in budgets) or nothing
    Reporter.of(arguments).result({"budgets": [_value(budget) for budget in budgets]}, text)
    return ExitCode.OK


def _accept_restored(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.coordinator import load_config
    from secagg.cli.operator_ledger import accept_restored

    sessions = accept_restored(load_config(arguments.config))
    words = f"accepted: the ledger holds the newest of the {sessions} reservations that the log shows"
    Reporter.of(arguments).result({"accepted": True, "published_reservations": sessions}, words)
    return ExitCode.OK


def _is_client(path: Path) -> bool:
    import tomllib

    try:
        return _CLIENT_KEY in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False  # what is wrong with it is said by whoever reads it


def _of_operator(arguments: argparse.Namespace) -> list[_Budget]:
    from secagg.cli.coordinator import load_config
    from secagg.cli.operator_ledger import LEDGER_FILE, noisy_sessions, operator_ledger

    config = load_config(arguments.config)
    if not any(config.state_directory.glob(f"{LEDGER_FILE}*")) and not noisy_sessions(config.record_directory):
        return []
    with operator_ledger(config) as ledger:
        return _states(ledger)


def _of_contributor(arguments: argparse.Namespace) -> list[_Budget]:
    from dp.ledger import Ledger
    from secagg.cli.connection import load_config
    from secagg.cli.operator_ledger import ledger_errors
    from secagg.identity.keys import KeyKind, load_public_key, public_path
    from secagg.spending import LEDGER_FILE

    config = load_config(arguments.config)
    identity = arguments.identity or load_public_key(public_path(config.identity_key_file), KeyKind.IDENTITY)
    path = config.state_directory / identity.hex() / LEDGER_FILE
    if not any(path.parent.glob(f"{LEDGER_FILE}*")):
        if config.budget is None:
            raise CommandError(
                "NO_BUDGET", f"{arguments.config}: has no [budget], so nothing is counted", kind="privacy"
            )
        return []
    with ledger_errors(), Ledger.open(path) as ledger:
        return _states(ledger)


@dataclass(frozen=True, slots=True)
class _Budget:
    """A budget, and how many further sessions like the last it holds; None where there was none yet."""

    state: BudgetState
    further: int | None


def _states(ledger: Ledger) -> list[_Budget]:
    found = []
    for population in ledger.populations():
        state = ledger.state(population)
        last = state.sessions[-1].mechanism if state.sessions else None
        found.append(_Budget(state, None if last is None else ledger.fits(population, last)))
    return found


def _value(budget: _Budget) -> dict[str, Any]:
    state = budget.state
    return {
        "population": state.population,
        "epsilon": float(state.epsilon),
        "delta": float(state.delta),
        "spent": _number(state.spent.epsilon),
        "left": state.remaining,
        "further_sessions": budget.further,
        "sessions": [
            {"session": each.session.hex(), "state": each.state.value, "epsilon": _number(each.epsilon)}
            for each in state.sessions
        ],
    }


def _rows(budget: _Budget) -> Rows:
    state = budget.state
    sessions = "\n".join(
        f"{each.session.hex()}  {each.state.value:<9}  epsilon {each.epsilon:.4g}" for each in state.sessions
    )
    return [
        ("budget", f"{state.population}: epsilon {float(state.epsilon):g} at delta {float(state.delta):g}"),
        (
            "spent",
            f"{state.spent.epsilon:.4g} by all together; what is only reserved counts with the most it can cost",
        ),
        ("left", f"{state.remaining:.4g}{_further(budget)}"),
        ("sessions", sessions or "none"),
    ]


def _further(budget: _Budget) -> str:
    if budget.further is None:
        return ""
    return f"; further sessions like the last: {budget.further} (epsilons do not add up, together they are less)"


def _number(value: float) -> float | None:
    """What JSON can hold."""
    return value if math.isfinite(value) else None
