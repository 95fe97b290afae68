"""The attacks that the weaknesses of the naive model allow, each told in words as it runs.

Every attack aims at one client and succeeds when it has that client's vector exactly. It needs one weakness and no
other; on a model without that weakness it is tried all the same and fails. The server is the attacker; where clients
help it, the story says how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from simulations.naive.impersonator import Impersonator
from simulations.naive.masks import Mask, expand, pair_seed, signed
from simulations.naive.model import Opened, RefusedError, UnmaskAnswer, View
from simulations.naive.session import Session
from simulations.naive.setting import MODULUS_BITS, PUBLISHED_FOLD_BITS, Setting, SettingError
from simulations.naive.story import NaiveResult, Story, clients_named, counted
from simulations.naive.twister import outputs, seeds_that_fit
from simulations.world.randomness import SeededRng

VICTIM = 1
"""Index of the client whose vector every attack is after: it has a lower and a higher neighbour."""

SEARCH_SETTING = Setting(clients=3, threshold=2)
"""`seed-search`: the fewest clients; one of the three helps the server."""

BOTH_SHARES_SETTING = Setting(clients=5, threshold=3)
"""`both-shares`."""

SUBSTITUTION_SETTING = Setting(clients=5, threshold=3)
"""`key-substitution`."""

SURVIVOR_SETTING = Setting(clients=5, threshold=2)
"""`single-survivor`: the smallest threshold, so that one helper is enough."""

TWO_SETS_SETTING = Setting(clients=6, threshold=3)
"""`two-sets`: two groups of clients, each as large as the threshold, that have nobody in common."""

# Seeds whose whole masks are made together: their states are 10 MiB.
_CHECKED_AT_ONCE = 4096


def seed_search(seed: int, setting: Setting = SEARCH_SETTING) -> NaiveResult:
    """Tries all folded seeds of the one pairwise mask that the server does not know.

    The server follows the protocol, and all clients but the victim and one other help it. So it has the victim's
    masked vector, the self mask, which an honest unmasking removes, and all pairwise masks but one. What is left is
    the vector plus or minus one mask. Values are far below the modulus, a mask is anywhere in it, so the right seed
    shows. With two unknown masks the same search would be over pairs of seeds; that is not done here.

    Args:
        seed: of the session.
        setting: of the session; `fold_bits` is the width of the search, also when the model does not fold.

    Returns:
        How it went.
    """
    session = Session(seed, setting)
    helpers = sorted(session.everybody - {VICTIM})[:-1]
    other = max(session.everybody - {VICTIM})
    story = Story("seed-search", session.vectors[VICTIM])
    try:
        session.collect()
        opened, answers = session.open_honestly()
    except RefusedError as refused:
        return story.stops(refused)
    self_seed = session.server.self_seed(VICTIM, answers)
    if self_seed is None or not _is_right(session, opened):
        return story.ends(None, "nothing: the session did not end", "nothing was searched")
    story.step(f"The server runs the session as it should: {setting.clients} clients, all alive, and the sum is right.")
    story.step(f"Unmasking gave it the self-mask seed of client {VICTIM}, as it must; it takes that mask off.")
    rest = session.server.masked[VICTIM] - expand(self_seed, setting)
    for helper in helpers:
        shared = pair_seed(session.clients[helper].mask_secret, session.server.keys[VICTIM].mask_key)
        rest -= signed(expand(shared, setting), VICTIM, helper)
    story.step(
        f"The mask secrets of {clients_named(helpers)}, its helpers, give it all of the victim's pairwise masks but "
        f"the one shared with client {other}."
    )
    story.step(
        f"It tries every seed of {setting.fold_bits} bits for that mask. The right one leaves {setting.dimension} "
        f"values that are all below 2^{setting.value_bits}, in a modulus of 2^{MODULUS_BITS}."
    )
    found, cost = _search(rest, other, setting)
    story.step(f"Such values are left by {counted(len(found), 'seed')}.")
    if len(found) != 1:
        return story.ends(None, f"nothing: {counted(len(found), 'seed')} fit, not one", cost)
    return story.ends(found[0], f"every value of client {VICTIM}, exactly", cost)


def both_shares(seed: int, setting: Setting = BOTH_SHARES_SETTING) -> NaiveResult:
    """Names the victim both alive and dropped in one request, and takes both its masks off.

    Args:
        seed: of the session.
        setting: of the session.

    Returns:
        How it went.
    """
    session = Session(seed, setting)
    server = session.server
    story = Story("both-shares", session.vectors[VICTIM])
    story.step(f"The server collects the masked vectors of {setting.clients} clients as it should.")
    view = View(session.everybody, frozenset({VICTIM}))
    story.step(f"It sends one unmask request to each: all are alive, and client {VICTIM} has dropped out as well.")
    try:
        session.collect()
        answers = session.ask(dict.fromkeys(sorted(session.everybody), view))
    except RefusedError as refused:
        return story.stops(refused)
    story.step("Each answers with a share of the victim's self-mask seed and a share of its mask secret.")
    self_seed, secret = server.self_seed(VICTIM, answers), server.mask_secret(VICTIM, answers)
    cost = f"{counted(len(answers), 'answer')}, no search, no helper"
    if self_seed is None or secret is None:
        return story.ends(None, "nothing: too few shares", cost)
    recovered = server.masked[VICTIM] - expand(self_seed, setting)
    for neighbour in session.everybody - {VICTIM}:
        shared = pair_seed(secret, server.keys[neighbour].mask_key)
        recovered -= signed(expand(shared, setting), VICTIM, neighbour)
    story.step("It reconstructs both and takes all masks off the victim's vector.")
    if _is_right(session, server.open(session.everybody, answers)):
        story.step("The same answers give the sum over all, so the session ends as if nothing had happened.")
    return story.ends(recovered, f"every value of client {VICTIM}, exactly", cost)


def key_substitution(seed: int, setting: Setting = SUBSTITUTION_SETTING) -> NaiveResult:
    """Puts the server's own keys between the victim and everybody else.

    Args:
        seed: of the session.
        setting: of the session.

    Returns:
        How it went.
    """
    server = Impersonator(setting, VICTIM, SeededRng(seed, "naive forged keys"))
    session = Session(seed, setting, server)
    story = Story("key-substitution", session.vectors[VICTIM])
    story.step(
        f"The server shows client {VICTIM} keys of its own in place of everybody else's, all distinct, and shows "
        f"everybody else a key of its own in place of that of client {VICTIM}."
    )
    try:
        session.collect()
    except RefusedError as refused:
        return story.stops(refused)
    story.step("It opens every box from and to the victim, reads the shares and seals them again for the recipient.")
    before = server.unasked_answers()
    self_seed = server.self_seed(VICTIM, before)
    cost = f"{counted(2 * setting.clients - 2, 'box')} opened and sealed again, no search, no helper"
    if self_seed is None:
        return story.ends(None, "nothing: too few boxes opened", cost)
    recovered = server.masked[VICTIM] - expand(self_seed, setting) - server.pairwise_masks_of_victim()
    story.step("It knows the victim's self-mask seed from those shares, and every pairwise mask, being every partner.")
    story.step("It takes all masks off the victim's vector before anybody is asked to unmask.")
    if _ends_well(session):
        story.step("It unmasks with everybody as usual and the sum is right: no client sees anything out of order.")
    return story.ends(recovered, f"every value of client {VICTIM}, exactly", cost)


def single_survivor(seed: int, setting: Setting = SURVIVOR_SETTING) -> NaiveResult:
    """Says that everybody dropped out but the victim and as many helpers as the threshold needs beside it.

    Args:
        seed: of the session.
        setting: of the session; a threshold of two needs one helper.

    Returns:
        How it went.
    """
    session = Session(seed, setting)
    helpers = sorted(session.everybody - {VICTIM})[: setting.threshold - 1]
    alive = frozenset({VICTIM, *helpers})
    story = Story("single-survivor", session.vectors[VICTIM])
    story.step(f"The server sets the threshold to {setting.threshold} and collects all masked vectors.")
    story.step(
        f"It tells client {VICTIM} that all dropped out but itself and {clients_named(helpers)}, in league with the "
        "server, and asks nobody else."
    )
    try:
        session.collect()
        answers = session.ask(dict.fromkeys(sorted(alive), View(alive, session.everybody - alive)))
    except RefusedError as refused:
        return story.stops(refused)
    opened = session.server.open(alive, answers)
    cost = f"{counted(len(answers), 'answer')}, no search, {counted(len(helpers), 'helper')}"
    if opened is None:
        return story.ends(None, "nothing: too few shares", cost)
    story.step(f"The answers open the sum over {counted(len(alive), 'client')}; it subtracts what its helpers put in.")
    recovered = opened.total - session.sum_of(alive - {VICTIM})
    return story.ends(recovered, f"every value of client {VICTIM}, exactly", cost)


def two_sets(seed: int, setting: Setting = TWO_SETS_SETTING) -> NaiveResult:
    """Tells two groups of clients two sets of survivors that differ by the victim, and subtracts the two sums.

    Args:
        seed: of the session.
        setting: of the session; at least twice as many clients as the threshold.

    Returns:
        How it went.

    Raises:
        SettingError: field `threshold`, when two groups of so many clients have somebody in common.
    """
    if 2 * setting.threshold > setting.clients:
        raise SettingError("threshold", "two groups of that size would have a client in common")
    session = Session(seed, setting)
    others = sorted(session.everybody - {VICTIM})
    second = others[: setting.threshold]
    first = [VICTIM, *others[setting.threshold : 2 * setting.threshold - 1]]
    with_all, without = View(session.everybody), View(session.everybody - {VICTIM}, frozenset({VICTIM}))
    story = Story("two-sets", session.vectors[VICTIM])
    story.step(f"The server collects the masked vectors of {setting.clients} clients as it should.")
    story.step(f"It tells {clients_named(first)} that all are alive.")
    story.step(f"It tells {clients_named(second)} that client {VICTIM} dropped out. Each client is asked once.")
    try:
        session.collect()
        answers = session.ask({**dict.fromkeys(first, with_all), **dict.fromkeys(second, without)})
    except RefusedError as refused:
        return story.stops(refused)
    larger = session.server.open(with_all.alive, _of(answers, first))
    smaller = session.server.open(without.alive, _of(answers, second))
    cost = f"{counted(len(answers), 'answer')}, no search, no helper"
    if larger is None or smaller is None:
        return story.ends(None, "nothing: too few shares", cost)
    story.step(f"The first group's answers open the sum over {setting.clients}, the second's over one fewer.")
    story.step("It subtracts the second sum from the first.")
    return story.ends(larger.total - smaller.total, f"every value of client {VICTIM}, exactly", cost)


def _search(rest: Mask, other: int, setting: Setting) -> tuple[list[Mask], str]:
    """The vectors with small values that some seed of the mask with `other` leaves, and what the search took."""
    bound = 1 << setting.value_bits

    def leaves_small_values(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.bool_]:
        fits: NDArray[np.bool_] = rest[0] - signed(first, VICTIM, other) < bound
        fits &= rest[1] - signed(second, VICTIM, other) < bound
        return fits

    began_s = time.perf_counter()
    seeds = seeds_that_fit(leaves_small_values, setting.fold_bits)
    found: list[Mask] = []
    for start in range(0, seeds.size, _CHECKED_AT_ONCE):
        some = seeds[start : start + _CHECKED_AT_ONCE]
        vectors = rest - signed(outputs(some, setting.dimension), VICTIM, other)
        found += [vector for vector in vectors if (vector < bound).all()]
    elapsed_s = time.perf_counter() - began_s
    rate = (1 << setting.fold_bits) / elapsed_s
    cost = f"{counted(1 << setting.fold_bits, 'seed')} in {elapsed_s:.2f} s on one core, {rate:,.0f} a second"
    if setting.fold_bits != PUBLISHED_FOLD_BITS:
        published_s = (1 << PUBLISHED_FOLD_BITS) / rate
        cost += f"; the {PUBLISHED_FOLD_BITS} bits published would take {published_s:,.0f} s (extrapolated, not run)"
    return found, cost


def _of(answers: Sequence[UnmaskAnswer], clients: Sequence[int]) -> list[UnmaskAnswer]:
    return [answer for answer in answers if answer.sender in clients]


def _ends_well(session: Session) -> bool:
    """Whether the rest of the session gives the right sum and no client refuses."""
    try:
        opened, _ = session.open_honestly()
    except RefusedError:
        return False
    return _is_right(session, opened)


def _is_right(session: Session, opened: Opened | None) -> bool:
    return opened is not None and np.array_equal(opened.total, session.sum_of(session.everybody))


ATTACKS: Mapping[str, Callable[[int], NaiveResult]] = MappingProxyType(
    {
        "seed-search": seed_search,
        "both-shares": both_shares,
        "key-substitution": key_substitution,
        "single-survivor": single_survivor,
        "two-sets": two_sets,
    }
)
"""The attacks by name; each takes a seed and runs with the sizes named above and all weaknesses."""
