"""What the page and the terminal both tell of an outcome, counted and put into words."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secagg.protocol.phases import Phase
from simulations.scenarios.outcome import CallTraffic, ClientFate, Note, Outcome

AFTER_THE_END = "after the end"
THROUGHOUT = "throughout"
"""Traffic that belongs to no phase: watching, and cosigning the log."""

COUNTED, DROPPED_LATER, DROPPED = "counted", "dropped later", "dropped"
KINDS = (COUNTED, DROPPED_LATER, DROPPED, "refused", "too late", "left out", "never came")
"""Fates of clients, without reasons. Who dropped later is in the sum: it fell silent when its input was taken."""

_MOST_FINDINGS = 5
_ORDER = {phase.value: place for place, phase in enumerate(Phase)}
_ENDS = frozenset({Phase.FINISHED.value, Phase.ABORTED.value})


class Verdict(enum.StrEnum):
    """How a simulated session is to be seen."""

    KEPT = "kept"
    """It finished, and whatever was promised holds."""
    STOPPED = "stopped"
    """It did not finish; nothing was published, and whatever was promised holds."""
    BROKEN = "broken"
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """The verdict in words: a headline, what is behind it, and more of that."""

    verdict: Verdict
    headline: str
    details: tuple[str, ...]


def sentence_of(outcome: Outcome) -> Sentence:
    """How the session ended, and whether every promise was kept."""
    if not outcome.is_good:
        return Sentence(Verdict.BROKEN, "A promise was broken", (*broken_promises(outcome), _ending(outcome)))
    if outcome.sum_is_right:
        details = [f"{counted_noun(outcome.counted, 'client')} of {len(outcome.clients):,} in the sum."]
        if outcome.attacks:
            details.append(_attacks_words(outcome.attacks))
        headline = "Finished with the right sum" if outcome.ended == "finished" else _ending(outcome)
        return Sentence(Verdict.KEPT, headline, tuple(details))
    if outcome.ended == "aborted":
        return Sentence(Verdict.STOPPED, "Aborted, and nothing was published", (reason_of(outcome),))
    return Sentence(Verdict.STOPPED, _ending(outcome), ("Nothing was published.",))


def broken_promises(outcome: Outcome) -> list[str]:
    """Every promise that was broken, in words."""
    broken = []
    if outcome.sum_is_right is False:
        broken.append("The published sum is not the sum of what the counted clients contributed.")
    broken += [f"Invariant broken: {violation}" for violation in outcome.violations]
    if failed := record_failures(outcome):
        broken.append(f"The published record fails checks of the verifier: {', '.join(failed)}.")
        broken += [str(finding) for finding in (outcome.record.get("findings") or ())[:_MOST_FINDINGS]]
    wrong = [each for each in outcome.attacks if not each["as_it_should"]]
    broken += [f"The attack {each['name']} {result_words(each)}." for each in wrong]
    return broken


def result_words(attack: Mapping[str, Any]) -> str:
    """What came of an attack, and whether it had to be so: some go beyond what everything rests on."""
    match attack["succeeded"], attack["as_it_should"]:
        case True, True:
            return "succeeded, as it has to beyond its assumption"
        case True, False:
            return "succeeded"
        case False, True:
            return "failed"
        case _:
            return "failed, though it goes beyond its assumption"


def _attacks_words(attacks: Sequence[Mapping[str, Any]]) -> str:
    beyond = sum(bool(attack["succeeded"]) for attack in attacks)
    words = f"{counted_noun(len(attacks), 'attack')} replayed beside it: "
    if not beyond:
        return f"{words}{'it' if len(attacks) == 1 else 'every one'} failed."
    return f"{words}{len(attacks) - beyond} failed, {beyond} beyond their assumption succeeded, as they have to."


def reason_of(outcome: Outcome) -> str:
    """Why it was aborted; a full stop at the end."""
    return f"Because: {outcome.reason}." if outcome.reason else "No reason was given."


def _ending(outcome: Outcome) -> str:
    match outcome.ended:
        case "finished":
            return "The session finished."
        case "aborted":
            return f"The session was aborted. {reason_of(outcome)}"
        case _:
            return "Not over when the simulation stopped"


def record_failures(outcome: Outcome) -> list[str]:
    """Checks of the verifier that failed over the published record."""
    return [str(check) for check in outcome.record.get("failed") or ()]


def record_text(outcome: Outcome) -> str:
    """The verifier's verdict in words."""
    if not outcome.record:
        return "not checked"
    verdict = str(outcome.record.get("verdict") or "no verdict")
    failed = record_failures(outcome)
    return f"{verdict}: {', '.join(failed)}" if failed else verdict


# Clients.


def kind_of(fate: ClientFate) -> str:
    """A fate without its reason."""
    kind = fate.fate.partition(":")[0]
    return DROPPED_LATER if kind == COUNTED and fate.phase else kind


def kinds_of(outcome: Outcome) -> dict[str, int]:
    """How many clients met which fate; those that somebody met."""
    counts = Counter(kind_of(each) for each in outcome.clients)
    return {kind: counts[kind] for kind in (*KINDS, *sorted(set(counts) - set(KINDS))) if counts[kind]}


def refusals_of(outcome: Outcome) -> dict[str, int]:
    """Why clients refused, most frequent first."""
    reasons = Counter(each.fate.partition(":")[2].strip() for each in outcome.clients if kind_of(each) == "refused")
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def phase_at(outcome: Outcome, at_s: float) -> str:
    """The phase that the session was in; ``AFTER_THE_END`` when it was over."""
    name = AFTER_THE_END if at_s >= outcome.seconds else ""
    for phase in outcome.phases:
        if phase.began_s <= at_s < outcome.seconds:
            name = phase.phase
    return name or (outcome.phases[0].phase if outcome.phases else AFTER_THE_END)


def phase_of(outcome: Outcome, fate: ClientFate) -> str:
    """The phase in which a client's fate was decided; "" for one that never came."""
    if fate.phase in _ENDS:
        return AFTER_THE_END
    if fate.phase in _ORDER:
        return fate.phase
    return "" if fate.at_s is None else phase_at(outcome, fate.at_s)


def fates_by_phase(outcome: Outcome) -> dict[str, dict[str, int]]:
    """For each phase, and after the end where there is something to tell: how many met which fate, but counted."""
    table: dict[str, Counter[str]] = {phase.phase: Counter() for phase in outcome.phases}
    for fate in outcome.clients:
        if (kind := kind_of(fate)) != COUNTED:
            table.setdefault(phase_of(outcome, fate), Counter())[kind] += 1
    return {phase: dict(table[phase]) for phase in sorted(table, key=_place) if phase}


def regions_of(outcome: Outcome) -> dict[str, dict[str, int]]:
    """For each region: how many clients met which fate; nothing where there are no regions."""
    regions: dict[str, Counter[str]] = {}
    for fate in outcome.clients:
        if fate.region:
            regions.setdefault(fate.region, Counter())[kind_of(fate)] += 1
    return {region: dict(regions[region]) for region in sorted(regions, key=_natural)}


def _natural(name: str) -> tuple[str, int]:
    """Sorts ``region 10`` after ``region 9``."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


# Time and bytes.


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """What one phase took.

    Attributes:
        phase: its name, or ``THROUGHOUT``.
        began_s, seconds: None where it has no time of its own.
        calls: of clients.
        up, down: bytes that all clients sent and received.
        institutions: bytes between coordinator and members or witnesses, both ways.
    """

    phase: str
    began_s: float | None
    seconds: float | None
    calls: int
    up: int
    down: int
    institutions: int


def costs_of(outcome: Outcome) -> tuple[PhaseCost, ...]:
    """Time and bytes by phase, in order; what belongs to no phase last."""
    times = {phase.phase: phase for phase in outcome.phases}
    names = set(times) | {_cost_phase(each) for each in outcome.traffic}
    costs = []
    for name in sorted(names, key=_place):
        rows = [each for each in outcome.traffic if _cost_phase(each) == name]
        own = [each for each in rows if each.caller == "client"]
        others = [each for each in rows if each.caller != "client"]
        time = times.get(name)
        costs.append(
            PhaseCost(
                name,
                None if time is None else time.began_s,
                None if time is None else time.seconds,
                sum(each.calls for each in own),
                sum(each.request_bytes for each in own),
                sum(each.reply_bytes for each in own),
                sum(each.request_bytes + each.reply_bytes for each in others),
            )
        )
    return tuple(costs)


def _cost_phase(traffic: CallTraffic) -> str:
    return AFTER_THE_END if traffic.phase in _ENDS else traffic.phase or THROUGHOUT


def arrived_count(outcome: Outcome) -> int:
    """How many clients came."""
    return sum(each.arrived_s is not None for each in outcome.clients)


def _place(phase: str) -> tuple[int, str]:
    return {AFTER_THE_END: len(_ORDER), THROUGHOUT: len(_ORDER) + 1}.get(phase, _ORDER.get(phase, -1)), phase


# Words.


def phase_words(phase: str) -> str:
    """A phase as people read it."""
    return phase.replace("-", " ")


def counted_noun(count: int, noun: str) -> str:
    """A number and its noun: `1 client`, `2,000 clients`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bytes_words(count: float) -> str:
    """So many bytes, three digits of them."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1000 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"


def seconds_words(seconds: float) -> str:
    """So much time: `0.36 s`, `12.5 s`, `40 min 12 s`, `2 d 3 h`."""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    units = (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    unit, size, name, part = next(each for each in units if whole >= 2 * each[1] or each[1] == 60)
    rest = whole % size // part
    return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"


def plan_words(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers of a plan, named; those that it has."""
    names = (
        ("protocol", "Protocol"),
        ("clients", "Clients"),
        ("dimension", "Coordinates"),
        ("minimum", "Fewest in a sum"),
        ("corrupt", "May collude"),
        ("expected_dropout", "Dropout it is made for"),
        ("witnesses", "Witnesses"),
        ("phase_s", "Longest phase"),
        ("epsilon", "Epsilon"),
        ("seed", "Seed"),
    )
    words = [(title, _plan_word(key, plan[key])) for key, title in names if plan.get(key) is not None]
    committee = plan.get("committee")
    if plan.get("protocol") == "one-shot" and isinstance(committee, Mapping):
        words.insert(3, ("Committee", f"{committee.get('needed')} of {committee.get('members')} open"))
    return words


def _plan_word(key: str, value: object) -> str:
    if key == "phase_s" and isinstance(value, int | float):
        return seconds_words(value)
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)


def models_words(models: Sequence[Mapping[str, Any]]) -> str:
    """Models of a scenario with their numbers: `Independent (rate 0.1)`."""
    return "; ".join(_model_words(model) for model in models)


def _model_words(model: Mapping[str, Any]) -> str:
    name = str(model.get("model") or "")
    numbers = [
        _number_words(key, value)
        for key, value in model.items()
        if key != "model" and value is not None and value not in ([], "", 0.0)
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _number_words(key: str, value: object) -> str:
    if isinstance(value, int | float):
        if key.endswith("bytes_per_s"):
            return f"bandwidth {bytes_words(value)}/s"
        if key.endswith("_s"):
            return f"{key[:-2].replace('_', ' ')} {value:g} s"
    return f"{key.replace('_', ' ')} {_value_words(value)}"


def _value_words(value: object) -> str:
    match value:
        case float():
            return f"{value:g}"
        case Mapping():
            return ", ".join(f"{key} {_value_words(each)}" for key, each in value.items())
        case list() | tuple():
            return ", ".join(map(_value_words, value))
        case _:
            return str(value)


def faults_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """Faults of a scenario as they are planned."""
    return "; ".join(_fault_words(fault) for fault in faults)


def _fault_words(fault: Mapping[str, Any]) -> str:
    match fault:
        case {"fault": "Crash", "node": node, "at_s": at_s, "down_s": down_s, "write": write, "when": when}:
            start = f", counted from {at_s:g} s" if at_s else ""
            time = f"at {at_s:g} s" if write is None else f"{when} its write {write} is durable{start}"
            back = "for good" if down_s is None else f"for {down_s:g} s"
            return f"{node} dies {time}, {back}"
        case {"fault": "Cut", "nodes": nodes, "share": share, "at_s": at_s, "seconds": seconds}:
            cut_off = [str(node) for node in nodes] + ([f"{100 * share:.3g} % of the clients"] if share else [])
            return f"{' and '.join(cut_off)} cut off at {at_s:g} s for {seconds:g} s"
        case _:
            return _model_words(fault)


# Machines.


@dataclass(frozen=True, slots=True)
class NoteGroup:
    """The same thing that happened to the same machine ``times`` times, from ``first_s`` to ``last_s``."""

    first_s: float
    last_s: float
    node: str
    words: str
    times: int


def note_groups(notes: Sequence[Note]) -> list[NoteGroup]:
    """Notes by time; deaths and starts each by themselves, other things that were repeated as one."""
    groups: dict[tuple[str, str, float | None], list[Note]] = {}
    for note in notes:
        own = note.at_s if note.what in {"dies", "starts"} else None
        groups.setdefault((note.node, _note_words(note), own), []).append(note)
    return [NoteGroup(same[0].at_s, same[-1].at_s, node, words, len(same)) for (node, words, _), same in groups.items()]


def _note_words(note: Note) -> str:
    what = note.what.replace("_", " ").replace("-", " ")
    if note.what == "dies":
        return f"dies, in {phase_words(note.detail)}" if note.detail else "dies"
    return f"{what}: {note.detail}" if note.detail else what


def deaths_of(notes: Sequence[Note]) -> dict[str, int]:
    """How often which machine died, in the order of their first deaths."""
    return dict(Counter(note.node for note in notes if note.what == "dies"))
