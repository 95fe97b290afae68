"""``python -m simulations attack``: one attack, replayed and explained."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from secagg.protocol.errors import RejectReason
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.catalogue import ATTACKS, BEYOND_THEIR_ASSUMPTION, record_of
from simulations.attacks.ciphertexts import NOT_PLAYED
from simulations.commands.explore import whole
from simulations.naive import attacks as naive
from simulations.naive.setting import Weakness
from simulations.naive.story import NaiveResult
from simulations.world.plan import Protocol

UNUSABLE = 2
NAIVE = "flower-style"
_MOST_COLUMNS = 112

_DESCRIPTION = """\
Replay one attack on a session of the real machines, and tell what was tried, who refused it, what the adversary could
compute in the end, and which rule stopped it. What it learned is computed, from the shares and masked inputs that it
holds and from all that reached it; the same seed tells the same story.

--against flower-style shows the same attack succeeding on a deliberately naive model of published weaknesses
(simulations/naive/setting.py names their sources; it is no copy of any framework)."""

_EPILOG = """\
examples:
  python -m simulations attack --list
  python -m simulations attack two-closes
  python -m simulations attack two-closes --against flower-style

exit codes:
  0  the attack ended as it should: it failed here, or succeeded on the naive model
  1  it did not
  2  unusable arguments"""

_NAIVE_WEAKNESS = {
    "seed-search": Weakness.FOLDED_SEEDS,
    "both-shares": Weakness.BOTH_SHARES,
    "key-substitution": Weakness.UNSIGNED_KEYS,
    "single-survivor": Weakness.NO_MINIMUM,
    "two-sets": Weakness.NO_CONSISTENCY,
}
"""The one weakness that each attack on the naive model needs."""

_REASON = re.compile(r": ([A-Z_]+)$")


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``attack``."""
    parser = commands.add_parser(
        "attack",
        help="replay an attack, and say what was tried and why it failed",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the attack")
    parser.add_argument("--list", action="store_true", help="all attacks by name")
    parser.add_argument("--seed", type=whole, default=1, help="of the session and of everything random (default: 1)")
    parser.add_argument("--against", choices=[NAIVE], help="a naive model of published weaknesses")
    parser.add_argument("--json", metavar="OUT", help="write everything to a file; - for standard output, alone")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    if arguments.list:
        print("\n".join(_listed()))
        return 0
    if arguments.name is None:
        return _unusable("the name of an attack is missing; --list names all")
    attack = _found(arguments.name)
    if attack is None:
        return _unusable(_unknown(arguments.name))
    if arguments.against is None:
        result = attack.run(arguments.seed)
        if result.ended == NOT_PLAYED:
            return _unusable(f"{attack.name}: {result.steps[0]}")
        return _told(arguments, _story(attack, result, arguments.seed), _record(attack, result, arguments.seed))
    if attack.naive is None:
        named = ", ".join(sorted(each.name for each in ATTACKS if each.naive is not None))
        return _unusable(f"{attack.name} has no counterpart on the naive model; those that have: {named}")
    found = naive.ATTACKS[attack.naive](arguments.seed)
    return _told(arguments, _naive_story(attack, found, arguments.seed), _naive_record(attack, found, arguments.seed))


def _told(arguments: argparse.Namespace, story: Iterator[str], record: dict[str, Any]) -> int:
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
    else:
        print("\n".join(story))
    if arguments.json not in {None, "-"}:
        try:
            Path(arguments.json).write_text(text, encoding="utf-8")
        except OSError as error:
            return _unusable(f"--json {arguments.json}: {error.strerror}")
    return 0 if record["as_it_should"] else 1


def _unusable(reason: str) -> int:
    sys.stderr.write(f"python -m simulations attack: {reason}\n")
    return UNUSABLE


# Names.


def _found(name: str) -> Attack | None:
    """The attack of this name, or the one whose counterpart on the naive model has it."""
    named = {each.naive: each for each in ATTACKS if each.naive is not None} | {each.name: each for each in ATTACKS}
    return named.get(name)


def _unknown(name: str) -> str:
    names = [each.name for each in ATTACKS]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [each for each in names if name in each][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "--list names all"
    return f"no attack is named {name}; {hint}"


def _listed() -> Iterator[str]:
    width = max(len(each.name) for each in ATTACKS)
    for protocol in Protocol:
        yield f"Attacks on {protocol.value} sessions:"
        for each in ATTACKS:
            if each.protocol is protocol:
                yield from _hung(f"{' ' if each.naive is None else '*'} {each.name:{width}}  ", each.goal)
        yield ""
    yield from _hung("", f"Those marked * also run with --against {NAIVE}.")


# Stories.


def _story(attack: Attack, result: AttackResult, seed: int) -> Iterator[str]:
    yield f"{attack.name}: an attack on a {attack.protocol.value} session, seed {seed}"
    yield ""
    yield from _hung("Goal       ", attack.goal)
    yield from _hung("Adversary  ", attack.adversary)
    yield ""
    yield "What was tried"
    yield from _numbered(result.steps)
    yield ""
    yield "What was refused"
    yield from _bulleted(result.refusals or ("nothing",))
    yield from _meanings(result.refusals)
    yield ""
    yield from _hung("Session    ", _ended(result.ended))
    yield from _hung("Learned    ", "; ".join(result.learned) or "nothing beyond a sum that it may know")
    yield from _hung("Outcome    ", _outcome(attack, result))
    yield from _hung("Why        ", attack.why)
    if attack.naive is not None:
        yield ""
        yield from _hung("", f"--against {NAIVE} shows the same attack on a model with the published weakness.")


def _naive_story(attack: Attack, result: NaiveResult, seed: int) -> Iterator[str]:
    yield f"{result.attack}: the attack {attack.name} on the naive model, seed {seed}"
    yield ""
    yield from _hung("Goal       ", attack.goal)
    yield from _hung(
        "Model      ",
        "masking in pairs with shares for dropouts, and with weaknesses that were published; the sources are named in "
        "simulations/naive/setting.py. It is no copy of any framework.",
    )
    yield from _hung("Weakness   ", _NAIVE_WEAKNESS[result.attack].value)
    yield ""
    yield "What was tried"
    yield from _numbered(result.tried)
    yield ""
    yield from _hung("Learned    ", result.learned)
    yield from _hung("Cost       ", result.cost)
    if result.recovered is not None:
        shown = ", ".join(str(int(value)) for value in result.recovered[:6])
        true = ", ".join(str(int(value)) for value in result.truth[:6])
        yield from _hung("Recovered  ", f"{shown}, ...")
        yield from _hung("Truth      ", f"{true}, ...")
    yield from _hung("Outcome    ", _naive_outcome(result))
    yield ""
    yield from _hung("Here       ", f"Without --against: it fails. {attack.why}")


def _outcome(attack: Attack, result: AttackResult) -> str:
    if attack.name in BEYOND_THEIR_ASSUMPTION:
        return (
            "succeeded, as it must: it goes beyond the assumption on purpose"
            if result.succeeded
            else "FAILED, though it goes beyond the assumption on purpose"
        )
    return "SUCCEEDED, which it must not" if result.succeeded else "failed"


def _naive_outcome(result: NaiveResult) -> str:
    return "succeeded, on the naive model" if result.succeeded else "FAILED, though the model has the weakness"


def _ended(ended: str) -> str:
    return "left open by the coordinator" if ended == "open" else ended


def _meanings(refusals: Sequence[str]) -> Iterator[str]:
    """What the reasons in refusals mean, each once."""
    found = dict.fromkeys(match.group(1) for each in refusals if (match := _REASON.search(each)))
    known = [name for name in found if name in RejectReason.__members__]
    for name in known:
        yield from _hung(f"    {name}: ", RejectReason[name].value)


# Lines.


def _columns() -> int:
    return max(40, min(_MOST_COLUMNS, shutil.get_terminal_size((_MOST_COLUMNS, 24)).columns))


def _hung(lead: str, text: str) -> Iterator[str]:
    """Text behind a lead, its further lines indented as far."""
    yield from textwrap.wrap(
        text, _columns(), initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False
    ) or [lead.rstrip()]


def _numbered(texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts, 1):
        yield from _hung(f"{number:3}. ", text)


def _bulleted(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from _hung("  -  ", text)


# Records.


def _record(attack: Attack, result: AttackResult, seed: int) -> dict[str, Any]:
    return _head(attack, seed) | record_of(attack, result) | {"against": ""}


def _naive_record(attack: Attack, result: NaiveResult, seed: int) -> dict[str, Any]:
    return _head(attack, seed) | {
        "against": NAIVE,
        "weakness": _NAIVE_WEAKNESS[result.attack].value,
        "steps": list(result.tried),
        "learned": [result.learned],
        "cost": result.cost,
        "recovered": None if result.recovered is None else [int(value) for value in result.recovered],
        "truth": [int(value) for value in result.truth],
        "succeeded": result.succeeded,
        "as_it_should": result.succeeded,
    }


def _head(attack: Attack, seed: int) -> dict[str, Any]:
    return {
        "name": attack.name,
        "protocol": attack.protocol.value,
        "seed": seed,
        "goal": attack.goal,
        "adversary": attack.adversary,
        "why": attack.why,
        "naive": attack.naive,
    }
