"""A lying coordinator against a committee: it asks members for sums that nobody should open.

It has two members of seven on its side, which give it any sum of the shares that they hold. Some client stays away, so
that the session does not close by itself meanwhile. What all answers together open is computed with the machines' own
functions; the attack succeeds if that is a sum of fewer contributions than the session promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secagg.crypto.signing import SigningKey
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.forgery_one_shot import close_over, invented
from simulations.attacks.interrogation import VICTIM, LyingCoordinator, Scheme, attempt, plan_of
from simulations.attacks.notebook import numbered
from simulations.world.cast import client_name, key_of, member_name
from simulations.world.loop import run_virtually
from simulations.world.plan import Protocol
from simulations.world.stores import CrashTime

PRESENT = (0, 1, 2, 3, 4)
ALL_OF_THEM = numbered(PRESENT)
WITHOUT_THE_VICTIM = numbered([number for number in PRESENT if number != VICTIM])
STRANGERS = (6, 7, 8)
"""Numbers that no client of the session has."""


async def two_sets(liar: LyingCoordinator) -> None:
    """Ask everybody for all contributions, and then for all but one."""
    contributions = await liar.collect(PRESENT)
    for what, left_out in ((ALL_OF_THEM, None), (WITHOUT_THE_VICTIM, VICTIM)):
        chosen = [each for number, each in contributions.items() if number != left_out]
        await liar.ask(f"the sum of {what}", chosen, liar.shows(close_over(liar.world.cast, chosen)))


async def two_closes(liar: LyingCoordinator) -> None:
    """Two closes in one log: some are asked for the first, the others for the second."""
    contributions = await liar.collect(PRESENT)
    everybody = list(contributions.values())
    others = [each for each in everybody if each.number != VICTIM]
    closes = [close_over(liar.world.cast, chosen) for chosen in (everybody, others)]
    first = liar.honest[: len(liar.honest) // 2]
    last = liar.honest[len(first) :]
    await liar.ask("the first of two closes in one log", everybody, liar.shows(closes[0]), first)
    await liar.ask("the second of two closes in one log", others, liar.shows(*closes), last)
    await liar.ask("the second of two closes in one log", others, liar.shows(*closes), first)


async def split(liar: LyingCoordinator) -> None:
    """Each half of the members is shown a log with another close."""
    contributions = await liar.collect(PRESENT)
    half = (len(liar.honest) + 1) // 2
    groups = ((ALL_OF_THEM, None, liar.honest[:half]), (WITHOUT_THE_VICTIM, VICTIM, liar.honest[half:]))
    for what, left_out, places in groups:
        chosen = [each for number, each in contributions.items() if number != left_out]
        await liar.ask(f"the sum of {what}", chosen, liar.shows(close_over(liar.world.cast, chosen)), places)
    committee = liar.world.plan.committee
    corrupt = len(liar.spoils.corrupt)
    liar.notes.step(
        f"One set has {half} + {corrupt} share sums, the other {len(liar.honest) - half} + {corrupt}; "
        f"{committee.needed} are needed for each."
    )


async def below_minimum(liar: LyingCoordinator) -> None:
    """Ask for the sum of two contributions."""
    contributions = await liar.collect(PRESENT)
    chosen = list(contributions.values())[:2]
    evidence = liar.shows(close_over(liar.world.cast, chosen))
    await liar.ask("the sum of two contributions, three are the minimum", chosen, evidence)


async def single(liar: LyingCoordinator) -> None:
    """Ask for one contribution, and claim that it is three."""
    contributions = await liar.collect(PRESENT)
    chosen = [contributions[VICTIM]]
    evidence = liar.shows(close_over(liar.world.cast, chosen, liar.world.plan.minimum))
    await liar.ask("one contribution under a close that counts three", chosen, evidence)


async def repeated(liar: LyingCoordinator) -> None:
    """Ask for a set that names the victim three times."""
    contributions = await liar.collect(PRESENT)
    chosen = [contributions[VICTIM]] * 3
    evidence = liar.shows(close_over(liar.world.cast, chosen))
    await liar.ask("a set that has one contribution three times", chosen, evidence)


async def strangers(liar: LyingCoordinator) -> None:
    """Surround the victim with people whom nobody put into the roster."""
    cast = liar.world.cast
    keys = [key_of(cast.plan.seed, client_name(number)) for number in STRANGERS]
    await _fill(liar, "contributions of strangers", [(key.public_bytes, key) for key in keys])


async def impersonation(liar: LyingCoordinator) -> None:
    """Surround the victim with contributions under names of the roster."""
    cast = liar.world.cast
    absent = [cast.clients[number].public_bytes for number in PRESENT if number != VICTIM]
    await _fill(liar, "contributions in the names of others", [(each, cast.coordinator) for each in absent])


async def _fill(liar: LyingCoordinator, what: str, makers: Sequence[tuple[bytes, SigningKey]]) -> None:
    """Ask for the victim's contribution among those that the coordinator made: claimed identity, and who signs."""
    cast = liar.world.cast
    victim = (await liar.collect([VICTIM]))[VICTIM]
    opened_at = liar.shows().start
    fillers = [invented(cast, claimed, signer, opened_at) for claimed, signer in makers]
    await liar.hold(what, fillers)
    chosen = sorted([victim, *fillers], key=lambda each: each.identity)
    evidence = liar.shows(close_over(cast, chosen))
    await liar.ask(f"a set of one client and {len(fillers)} {what}", chosen, evidence)


async def crashed(liar: LyingCoordinator) -> None:
    """Every honest member dies right after it decided, loses its checkpoints, and is asked for another set."""
    contributions = await liar.collect(PRESENT)
    everybody = list(contributions.values())
    others = [each for each in everybody if each.number != VICTIM]
    cast, world = liar.world.cast, liar.world
    for place in liar.honest:
        # Its second write of the opening is the decision; it is durable, the answer is not made yet.
        world.crash_at(member_name(place), write=2, when=CrashTime.AFTER)
    evidence = liar.shows(close_over(cast, everybody))
    await liar.ask(f"the sum of {ALL_OF_THEM}, and it dies with the decision on its disk", everybody, evidence)
    for place in liar.honest:
        world.members[place].memories.clear()
        await world.restart(member_name(place))
    liar.notes.step("The honest members start again. They have lost what they knew of the log, by a second mishap.")
    await liar.ask(f"the sum of {WITHOUT_THE_VICTIM} instead", others, liar.shows(close_over(cast, others)))
    await liar.ask(f"the sum of {ALL_OF_THEM} again", everybody, evidence)


def _attack(name: str, scheme: Scheme, texts: tuple[str, str, str]) -> Attack:
    goal, adversary, why = texts
    return Attack(name, Protocol.ONE_SHOT, goal, adversary, why, replay(scheme))


def replay(scheme: Scheme) -> Callable[[int], AttackResult]:
    """A function that replays what a coordinator tries, from a seed."""
    return lambda seed: run_virtually(attempt(plan_of(seed), scheme))


_ALONE = "the coordinator with 2 of 7 committee members; no witnesses watch the log"

ATTACKS: tuple[Attack, ...] = (
    _attack(
        "committee-two-sets",
        two_sets,
        (
            "Have the committee open two sets that differ in one client: the difference is that client's vector.",
            _ALONE,
            "A member answers for one close of a session, once, and keeps what it was shown of the log: a log with "
            "another close in its place is a fork. Answers to one set are all that the coordinator gets.",
        ),
    ),
    _attack(
        "committee-two-closes",
        two_closes,
        (
            "Log two closes of one session, and have each answered by some of the members.",
            _ALONE,
            "A member reads every entry since the session was opened. A log with two closes is out of order, and "
            "neither is answered.",
        ),
    ),
    _attack(
        "committee-split",
        split,
        (
            "Show half of the members a close with the victim and the other half one without it.",
            _ALONE,
            "Nobody can notice, since each member sees one close. But every set needs 5 answers; each honest member "
            "gives one answer, each corrupt one two: 5 + 2 * 2 = 9 for two sets that need 10. Sessions in which 2 r "
            "does not exceed m + c cannot be opened at all.",
        ),
    ),
    _attack(
        "committee-below-minimum",
        below_minimum,
        (
            "Have the sum of two contributions opened where at least three were promised.",
            _ALONE,
            "A member reads the minimum in the open entry, has one of its own, and counts the set of the close.",
        ),
    ),
    _attack(
        "committee-single-contribution",
        single,
        (
            "Have one contribution opened under a close that claims a larger count.",
            _ALONE,
            "The set is given as the headers under the root of the close. A member compares their number with the "
            "count, and their root with the entry.",
        ),
    ),
    _attack(
        "committee-repeated-contribution",
        repeated,
        (
            "Have a set opened that has one contribution three times: a third of the sum is the victim's vector.",
            _ALONE,
            "A member wants the contributions of a set in strictly ascending order of the roster, so each once.",
        ),
    ),
    _attack(
        "committee-strangers",
        strangers,
        (
            "Fill a set up with contributions of invented people, and subtract them from the sum.",
            _ALONE,
            "A member holds shares of people in the roster only, and the registrar signed the roster. A registrar "
            "that works for the coordinator can put invented people there; then no minimum means anything.",
        ),
    ),
    _attack(
        "committee-impersonation",
        impersonation,
        (
            "Fill a set up with contributions in the names of people who stayed away, and subtract them from the sum.",
            _ALONE,
            "A member holds shares under headers that people in the roster signed. The coordinator has nobody's key.",
        ),
    ),
    _attack(
        "committee-after-a-crash",
        crashed,
        (
            "Let members die right after they decided what to open, and ask them for another set.",
            _ALONE,
            "That a member answers, and for which close, is on its disk before it touches a share. After the crash "
            "it gives that answer and no other.",
        ),
    ),
)
"""A coordinator's attacks on a committee."""
