"""What a view determines is what linear algebra by other means says, in small cases; and what the attacks are about."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest

from secagg.arith.keystream import add_masks
from secagg.arith.prime_field import PRIME
from secagg.derive import boxes
from simulations.judging.knowledge import Determined, Input, KnowledgeError, View
from simulations.judging.linear import (
    MERSENNE_61,
    LinearLimitError,
    cancelling,
    centred,
    echelon,
    smallest_support,
)
from simulations.judging.watched import Watched
from simulations.world.cast import ONE, Cast
from simulations.world.loop import run_virtually
from simulations.world.plan import Plan, Protocol
from simulations.world.randomness import generator
from simulations.world.world import World
from tests.support.seen_sessions import ROOT, SELF, SeenOneShot, SeenPairwise

# Linear algebra.


def _eliminated(rows: Sequence[Sequence[Fraction]]) -> list[list[Fraction]]:
    """Reduced echelon form over the rationals."""
    left, done = [list(row) for row in rows], []
    for column in range(len(left[0]) if left else 0):
        pivot = next((row for row in left if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        pivot = [value / pivot[column] for value in pivot]
        for each in (*left, *done):
            each[:] = [a - each[column] * b for a, b in zip(each, pivot, strict=True)]
        done.append(pivot)
    return done


def _visible(rows: Sequence[Sequence[Fraction]], hidden: int) -> list[list[Fraction]]:
    """A reduced basis of the combinations that are zero in the first ``hidden`` columns, without those."""
    return [row[hidden:] for row in _eliminated(rows) if not any(row[:hidden])]


def _modulo(value: Fraction, prime: int) -> int:
    return value.numerator * pow(value.denominator, -1, prime) % prime


def _dense(vectors: Iterable[Mapping[int, int]], width: int) -> list[list[int]]:
    return [[vector.get(column, 0) for column in range(width)] for vector in vectors]


@pytest.mark.parametrize("seed", range(25))
def test_cancelling_combinations_are_those_over_the_rationals(seed):
    random = generator(seed, "rows")
    rows, columns = int(random.integers(1, 9)), int(random.integers(1, 9))
    matrix = random.integers(-2, 3, (rows, columns)) * (random.random((rows, columns)) < random.choice([0.2, 0.4, 0.9]))
    sparse = [{column: int(value) for column, value in enumerate(row) if value} for row in matrix]
    identity = np.eye(rows, dtype=int)
    expected = _visible([[*map(Fraction, map(int, (*a, *b)))] for a, b in zip(matrix, identity, strict=True)], columns)
    found = echelon(cancelling(sparse), lambda column: (column,))
    assert _dense(found, rows) == [[_modulo(value, MERSENNE_61) for value in row] for row in expected]


@pytest.mark.parametrize("seed", range(20))
def test_masks_of_pairs_cancel_exactly_over_connected_parts(seed):
    """Ten clients without self masks, any pairs masked: what shows are the sums over the connected components."""
    random = generator(seed, "pairs")
    pairs = [pair for pair in itertools.combinations(range(10), 2) if random.random() < 0.15]
    rows: list[dict[object, int]] = [{} for _ in range(10)]
    for low, high in pairs:
        rows[low][low, high], rows[high][low, high] = 1, -1
    parts = {number: {number} for number in range(10)}
    for low, high in pairs:
        joined = parts[low] | parts[high]
        parts.update(dict.fromkeys(joined, joined))
    expected = sorted({tuple(sorted(part)) for part in parts.values()})
    found = echelon(cancelling(rows), lambda column: (column,))
    assert [tuple(vector) for vector in found] == expected or sorted(tuple(sorted(each)) for each in found) == expected
    assert all(value == 1 for vector in found for value in vector.values())


@pytest.mark.parametrize("seed", range(30))
def test_the_smallest_support_is_that_of_all_vectors_there_are(seed):
    prime, random = 5, generator(seed, "support")
    count, width = int(random.integers(1, 5)), int(random.integers(2, 8))
    matrix = random.integers(0, prime, (count, width)) * (random.random((count, width)) < 0.6)
    basis = echelon(
        [{column: int(value) for column, value in enumerate(row) if value} for row in matrix],
        lambda column: (column,),
        prime,
    )
    about: Callable[[int], int] = lambda column: column // 2  # noqa: E731 - an argument
    sizes = []
    for factors in itertools.product(range(prime), repeat=len(basis)):
        total = [
            sum(factor * vector.get(column, 0) for factor, vector in zip(factors, basis, strict=True)) % prime
            for column in range(width)
        ]
        if any(total):
            sizes.append(len({about(column) for column, value in enumerate(total) if value}))
    found = smallest_support(basis, about, prime)
    assert (None if found is None else len(found)) == min(sizes, default=None)


def test_what_is_too_large_for_an_exact_answer_has_an_error_and_no_answer(monkeypatch):
    monkeypatch.setattr("simulations.judging.linear.MAX_DENSE_CELLS", 8)
    with pytest.raises(LinearLimitError) as limit:
        cancelling([{column: row * column + 1 for column in range(3)} for row in range(3)])
    assert limit.value.limit == "cells of a dense matrix"
    monkeypatch.setattr("simulations.judging.linear.MAX_FLATS", 2)
    with pytest.raises(LinearLimitError):
        smallest_support([{0: 1, 2: 1, 3: 2}, {1: 1, 2: 3, 3: 5}], lambda column: column)


def test_residues_are_shown_as_the_nearest_integers():
    assert [centred(value, 7) for value in (0, 1, 3, 4, 6, -1)] == [0, 1, 3, -3, -1, -1]


# Pairwise.


def _pairwise(clients: int = 6, corrupt: Iterable[int] = (), **more: object) -> View:
    plan = Plan(Protocol.PAIRWISE, clients, dimension=8, seed=3, max_corrupt=1, **more)  # type: ignore[arg-type]
    return View(Cast.of(plan), corrupt)


THRESHOLD = 4
"""Of six clients with one that may be corrupt: five neighbours each."""


def test_masked_inputs_alone_determine_nothing():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    for number in range(6):
        seen.contributes(number)
    assert view.determined() == ()
    assert view.smallest_sum() is None
    assert view.explain() == ("nothing",)


def _honest_session(view: View, accepted: Sequence[int], answering: Sequence[int]) -> SeenPairwise:
    seen = SeenPairwise(view, range(6))
    for number in range(6):
        seen.contributes(number)
    for number in answering:
        seen.answers(number, {each: SELF if each in accepted else ROOT for each in range(6) if each != number})
    return seen


def test_enough_answers_open_the_sum_of_the_closed_set_and_nothing_else():
    view = _pairwise()
    accepted = [0, 1, 3, 4, 5]
    seen = _honest_session(view, accepted, accepted[:4])
    assert view.explain() == ("nothing",)
    seen.answers(5, {each: SELF if each in accepted else ROOT for each in range(5)})
    assert view.smallest_sum() == set(accepted)
    assert view.explain() == ("the sum of clients 0, 1 and 3 to 5, and nothing else",)


def test_one_answer_too_few_opens_nothing():
    view = _pairwise()
    _honest_session(view, range(6), range(THRESHOLD))
    assert view.determined() == ()


def test_a_corrupt_client_has_its_own_input_and_its_shares():
    view = _pairwise(corrupt=[2])
    _honest_session(view, range(6), [0, 1, 3, 4])
    assert view.smallest_sum() == {0, 1, 3, 4, 5}


def test_with_a_threshold_of_corrupt_neighbours_every_input_shows_at_once():
    view = _pairwise(corrupt=range(THRESHOLD))
    seen = SeenPairwise(view, range(6))
    seen.contributes(4)
    assert view.explain() == ("the input of client 4, and nothing else",)
    seen.contributes(5)
    assert view.explain() == ("the input of client 4", "the input of client 5")


def test_one_corrupt_neighbour_less_sees_nothing_before_answers():
    view = _pairwise(corrupt=range(THRESHOLD - 1))
    seen = SeenPairwise(view, range(6))
    for number in range(6):
        seen.contributes(number)
    assert view.determined() == ()


def test_both_shares_of_one_client_show_its_input():
    view = _pairwise()
    seen = _honest_session(view, range(6), range(6))
    assert view.smallest_sum() == set(range(6))
    assert view.doubly_opened() == ()
    for number in range(1, 5):
        seen.answers(number, {0: ROOT})
    assert view.doubly_opened() == (0,)
    assert view.explain() == ("the input of client 0", "the sum of clients 1 to 5")
    assert view.smallest_sum() == {0}


def test_a_rejected_input_stays_masked_although_it_arrived():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    for number in range(6):
        seen.contributes(number, missing=[5] if number == 0 else [])
    for number in range(1, 6):
        seen.answers(number, {each: ROOT if each == 0 else SELF for each in range(6) if each != number})
    assert view.smallest_sum() == {1, 2, 3, 4, 5}


def test_an_edge_that_one_end_left_out_keeps_the_sum_masked():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    for number in range(6):
        seen.contributes(number, missing=[5] if number == 0 else [])
    for number in range(6):
        seen.answers(number, {each: SELF for each in range(6) if each != number})
    assert view.determined() == ()


def test_a_second_masked_input_of_a_client_shows_the_difference():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    seen.contributes(3)
    assert view.determined() == ()
    seen.contributes(3, version=1)
    assert view.explain() == ("the difference of two masked inputs of client 3, and nothing else",)
    assert view.smallest_sum() == {3}
    seen.contributes(3, version=1)
    assert len(view.determined()) == 1


def test_two_masked_inputs_of_a_client_under_other_masks_show_nothing():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    seen.contributes(3, missing=[5])
    seen.contributes(3, version=1)
    assert view.determined() == ()


def test_what_is_sealed_to_a_key_that_its_owner_never_made_is_the_adversarys():
    """Client 0 is shown a key for client 1 that client 1 did not make: one of the four shares that are needed."""
    view = _pairwise()
    seen = SeenPairwise(view, range(6), forged=[(0, 1, "share")])
    for number in range(6):
        seen.contributes(number)
    assert view.determined() == ()
    for number in range(2, 5):
        seen.answers(number, {0: SELF})
        # Up to three shares that were released, and one in the box that the adversary can open: b of client 0.
        assert view.determined() == ()
    for number in range(2, 5):
        seen.answers(number, {0: ROOT})
    assert view.doubly_opened() == (0,)
    assert view.smallest_sum() == {0}


def test_pair_seeds_that_are_sealed_to_a_forged_mask_key_are_the_adversarys():
    """Whoever has the lowest index seals all its pair seeds; with them and its self mask its input shows."""
    view = _pairwise()
    first, *others = sorted(range(6), key=lambda number: view.cast.clients[number].public_bytes)
    seen = SeenPairwise(view, range(6), forged=[(first, other, "mask") for other in others])
    for number in range(6):
        seen.contributes(number)
    assert view.determined() == ()
    for number in range(6):
        seen.answers(number, {each: SELF for each in range(6) if each != number})
    assert view.doubly_opened() == ()
    assert view.smallest_sum() == {first}


def test_who_shared_no_keys_masks_with_nobody():
    view = _pairwise()
    seen = SeenPairwise(view, range(6), absent=[4])
    others = [0, 1, 2, 3, 5]
    for number in others:
        seen.contributes(number)
    for number in others:
        seen.answers(number, {each: SELF for each in others if each != number})
    assert view.smallest_sum() == set(others)


def test_a_masked_input_whose_partners_were_never_shown_is_no_silence():
    view, other = _pairwise(), _pairwise()
    seen = SeenPairwise(other, range(6))
    seen.view = view
    seen.contributes(0)
    with pytest.raises(KnowledgeError):
        view.determined()


def test_shares_of_who_signed_no_header_are_no_silence():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    seen.answers(0, {1: SELF})
    with pytest.raises(KnowledgeError):
        view.determined()


def test_a_masked_input_without_a_header_is_no_silence():
    view = _pairwise()
    seen = SeenPairwise(view, range(6))
    seen.uploads(0, b"masked")
    with pytest.raises(KnowledgeError):
        view.determined()


def _pairwise_oracle(
    seen: SeenPairwise, corrupt: set[int], kinds: Mapping[tuple[int, int, object], bool]
) -> list[list[Fraction]]:
    """All masks as columns, all masked inputs and all known masks as rows, eliminated over the rationals."""
    honest = [number for number in range(6) if number not in corrupt]

    def knows(owner: int, kind: object) -> bool:
        holders = {each for each in range(6) if each != owner and (each in corrupt or (each, owner, kind) in kinds)}
        return owner in corrupt or len(holders) >= THRESHOLD

    pairs = list(itertools.combinations(seen.cohort, 2))
    columns: list[object] = [
        *(("self", number) for number in honest),
        *pairs,
        *(("input", number) for number in honest),
    ]
    rows = []
    for number in honest:
        row = {("self", number): 1, ("input", number): 1}
        row.update({pair: 1 if pair[0] == number else -1 for pair in pairs if number in pair})  # type: ignore[dict-item]
        rows.append(row)
    rows += [{("self", number): 1} for number in honest if knows(number, SELF)]
    rows += [{pair: 1} for pair in pairs if any(each in corrupt or knows(each, ROOT) for each in pair)]  # type: ignore[dict-item]
    matrix = [[Fraction(row.get(column, 0)) for column in columns] for row in rows]  # type: ignore[call-overload]
    return _visible(matrix, len(honest) + len(pairs))


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_released_a_view_determines_what_the_rationals_do(seed):
    random = generator(seed, "releases")
    corrupt = set(map(int, random.permutation(6)[: random.integers(0, 4)]))
    view = _pairwise(corrupt=corrupt)
    seen = SeenPairwise(view, range(6))
    honest = [number for number in range(6) if number not in corrupt]
    for number in honest:
        seen.contributes(number)
    # Mostly one kind of each owner, sometimes none or both: else everything shows or nothing does.
    often = {
        (owner, kind): float(random.choice([0.1, 0.95], p=[1 - share, share]))
        for owner in range(6)
        for kind, share in ((SELF, 0.85), (ROOT, 0.3))
    }
    kinds: dict[tuple[int, int, object], bool] = {}
    for kind, number in itertools.product((SELF, ROOT), honest):
        owners = [owner for owner in range(6) if owner != number and random.random() < often[owner, kind]]
        seen.answers(number, dict.fromkeys(owners, kind))
        kinds.update(dict.fromkeys(((number, owner, kind) for owner in owners), True))
    expected = _pairwise_oracle(seen, corrupt, kinds)
    found = [[dict(each.terms).get(Input(number), 0) for number in honest] for each in view.determined()]
    assert found == [[int(value) for value in row] for row in expected]


# The masks that a view takes for applied are those in the bytes.


def test_the_masks_that_are_taken_for_applied_are_those_in_the_bytes():
    """With the secrets of all clients at hand, every upload without these masks is its client's unit vector."""
    uploads, secrets = run_virtually(_honest_uploads())
    assert len(uploads) == 6
    for number, (data, place, present, missing) in uploads.items():
        assert missing == ()
        lanes = np.frombuffer(data, dtype="<u8").copy()
        session, members = secrets["session"], place.members
        own = secrets[members[place.index]]
        add, subtract = [], []
        for other in present:
            if other == place.index:
                continue
            low = secrets[members[min(other, place.index)]]
            seed = boxes.pair_seed(low.root, session.digest, max(other, place.index))
            (add if place.index < other else subtract).append(boxes.pair_mask_keystream(seed, session.digest).expose())
        own_mask = boxes.self_mask_keystream(own.self_mask, session.digest).expose()
        add_masks(lanes, subtract, [own_mask, *add])
        values = session.field_layout.unpack_sum(lanes, 1)
        assert values.tolist() == [ONE if at == number else 0 for at in range(8)]


class _Secrets(Watched):
    """Keeps what honest clients hold when they deal, and what they upload."""

    def __init__(self, world):
        super().__init__(world)
        self.secrets = {"session": world.cast.session}
        self.sent = {}

    def request(self, call, request, handler):
        super().request(call, request, handler)
        if call.what in {"ShareKeys", "deliver"}:
            number = int(call.caller.split("-")[1])
            state = self.world.clients[number].participant.state
            if call.what == "ShareKeys":
                self.secrets[self.world.cast.clients[number].public_bytes] = state
            else:
                self.sent[number] = request, state.place, state.present, state.sent.statement.missing


async def _honest_uploads():
    world = World(Plan(Protocol.PAIRWISE, clients=6, dimension=8, seed=5))
    kept = _Secrets(world)
    await world.open()
    for number in range(6):
        world.join(number)
    await world.until_over(10_000)
    return kept.sent, kept.secrets


# One-shot.


def _one_shot(clients: int = 8, corrupt: Iterable[int] = (), members: Iterable[int] = ()) -> View:
    """Five of seven members open."""
    return View(Cast.of(Plan(Protocol.ONE_SHOT, clients, dimension=8, seed=3)), corrupt, members)


def _contributed(view: View) -> SeenOneShot:
    seen = SeenOneShot(view)
    for number in range(view.cast.plan.clients):
        seen.contributes(number)
    return seen


def test_members_who_answer_for_one_set_open_its_sum_once_they_are_enough():
    view = _one_shot()
    seen = _contributed(view)
    for place in range(4):
        seen.answers(place, range(6))
        assert view.explain() == ("nothing",)
    seen.answers(6, range(6))
    assert view.explain() == ("the sum of clients 0 to 5, and nothing else",)
    seen.answers(5, range(6))
    assert view.smallest_sum() == set(range(6))


def test_corrupt_members_hold_their_shares_of_everybody():
    view = _one_shot(members=[0, 1])
    seen = _contributed(view)
    assert view.determined() == ()
    for place in (2, 3):
        seen.answers(place, range(6))
        assert view.determined() == ()
    seen.answers(4, range(6))
    assert view.smallest_sum() == set(range(6))


def test_answers_of_corrupt_members_say_nothing_that_was_not_known():
    view = _one_shot(members=[0, 1])
    seen = _contributed(view)
    for place in (0, 1, 2, 3):
        seen.answers(place, range(6))
    assert view.determined() == ()


def test_enough_corrupt_members_have_every_input():
    view = _one_shot(members=range(5))
    _contributed(view)
    assert view.smallest_sum() is not None
    assert len(view.determined()) == 8


def test_two_sets_that_members_answered_show_who_is_in_one_of_them_only():
    view = _one_shot()
    seen = _contributed(view)
    for place in range(5):
        seen.answers(place, range(6))
        seen.answers(place, [1, 2, 3, 4, 5])
    assert view.smallest_sum() == {0}
    assert view.explain() == ("the input of client 0", "the sum of clients 1 to 5")


def test_two_corrupt_members_and_three_honest_ones_for_each_of_two_sets_open_both():
    view = _one_shot(members=[0, 1])
    seen = _contributed(view)
    for place in (2, 3, 4):
        assert view.determined() == ()
        seen.answers(place, range(7))
    for place in (5, 6):
        seen.answers(place, range(1, 7))
    assert view.smallest_sum() == set(range(7))
    seen.answers(2, range(1, 7), share_sum=b"another sum of it" + bytes(15))
    assert view.smallest_sum() == {0}


def test_an_answer_that_is_repeated_for_another_set_is_still_that_for_the_first():
    view = _one_shot()
    seen = _contributed(view)
    for place in range(5):
        repeated = bytes([place]) * 32
        seen.answers(place, range(6), share_sum=repeated)
        seen.answers(place, range(5), share_sum=repeated)
    assert view.smallest_sum() == set(range(6))
    assert len(view.determined()) == 1


def test_an_answer_that_is_over_somebody_whose_input_never_came_opens_nothing():
    view = _one_shot()
    seen = SeenOneShot(view)
    for number in range(1, 6):
        seen.contributes(number)
    for place in range(5):
        seen.answers(place, range(6))
    assert view.determined() == ()


def test_two_masked_inputs_of_one_client_show_their_difference_in_one_shot_sessions_too():
    view = _one_shot()
    seen = _contributed(view)
    seen.contributes(2, version=1)
    assert view.smallest_sum() == {2}


def _one_shot_oracle(
    answers: Sequence[tuple[int, frozenset[int]]], corrupt: set[int], members: set[int], arrived: Sequence[int]
) -> list[dict[int, int]]:
    """Each client's polynomial by itself, every share and answer a row, eliminated modulo the prime of the shares."""
    honest = [number for number in range(8) if number not in corrupt]
    columns = {(number, power): at for at, (number, power) in enumerate(itertools.product(honest, range(5)))}
    hidden = len(columns)
    rows = []
    for at, number in enumerate(honest):
        if number in arrived:
            rows.append({columns[number, 0]: 1, hidden + at: 1})
        rows += [{columns[number, power]: (place + 1) ** power for power in range(5)} for place in members]
    for place, numbers in answers:
        rows.append(
            {columns[number, power]: (place + 1) ** power for number in numbers - corrupt for power in range(5)}
        )
    found = echelon(rows, lambda column: (column,), PRIME)
    return [{honest[at - hidden]: value for at, value in row.items()} for row in found if min(row) >= hidden]


@pytest.mark.parametrize("seed", range(25))
def test_whatever_members_answer_a_view_determines_what_single_polynomials_do(seed):
    random = generator(seed, "answers")
    corrupt = set(map(int, random.permutation(8)[: random.integers(0, 3)]))
    members = set(map(int, random.permutation(7)[: random.integers(0, 4)]))
    arrived = [number for number in range(8) if random.random() < 0.9]
    view = _one_shot(corrupt=corrupt, members=members)
    seen = SeenOneShot(view)
    for number in arrived:
        seen.contributes(number)
    sets = [frozenset(map(int, np.flatnonzero(random.random(8) < 0.7))) for _ in range(int(random.integers(1, 4)))]
    answers = [(place, each) for each in sets for place in range(7) if place not in members and random.random() < 0.8]
    for place, each in answers:
        seen.answers(place, each)
    found = [{each.client: factor % PRIME for each, factor in known.terms} for known in view.determined()]
    assert found == _one_shot_oracle(answers, corrupt, members, arrived)


# Words.


def test_combinations_are_told_in_plain_words():
    def words(**factors: int) -> str:
        return Determined(tuple((Input(int(name[1:])), factor) for name, factor in factors.items())).words()

    assert words(c7=1) == "the input of client 7"
    assert words(c1=1, c2=1) == "the sum of clients 1 and 2"
    assert words(c1=1, c2=1, c3=1, c9=1) == "the sum of clients 1 to 3 and 9"
    assert words(c1=1, c2=-1) == "the combination client 1 - client 2"
    assert words(c1=1, c2=3) == "the combination client 1 + 3 * client 2"
    assert words(**{f"c{number}": 1 + (number == 12) for number in range(13)}) == "a combination of clients 0 to 12"
    versions = Determined(((Input(4), 1), (Input(4, 1), 1)))
    assert versions.words() == "the combination client 4 + client 4 (masked input 2)"


# Size.


@pytest.mark.parametrize("answering", [0, 40])
def test_a_cohort_of_sixty_takes_well_under_a_second(answering):
    view = View(Cast.of(Plan(Protocol.PAIRWISE, 60, dimension=8, seed=3)))
    seen = SeenPairwise(view, range(60))
    for number in range(60):
        seen.contributes(number)
    for number in range(answering):
        seen.answers(number, {each: SELF for each in range(60) if each != number})
    began_s = time.process_time()
    assert view.smallest_sum() == (set(range(60)) if answering else None)
    assert time.process_time() - began_s < 1


def test_a_set_of_two_thousand_with_two_answers_too_many_is_told_at_once():
    view = View(Cast.of(Plan(Protocol.ONE_SHOT, 2000, dimension=8, seed=3)), range(20), [0, 1])
    seen = _contributed(view)
    for place in range(2, 7):
        seen.answers(place, range(1900))
    began_s = time.process_time()
    assert view.smallest_sum() == set(range(20, 1900))
    assert time.process_time() - began_s < 2
