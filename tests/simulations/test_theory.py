"""Theory against enumeration, against seeded draws, and against the real machines."""

import asyncio
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dp.planner import Demand, plan
from secagg.derive.graph import masking_graph
from secagg.derive.threshold import GraphParameters
from secagg.protocol.errors import LocalProtocolError, RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.coordinator_states import HoldingRow
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, RowKind, row_key
from simulations.estimates import theory
from simulations.estimates.theory import (
    Availability,
    Bounds,
    OneShotTerms,
    PairwiseTerms,
    PhaseDropout,
    TheoryError,
    one_shot_failure,
    pairwise_failure,
    pairwise_opens,
)
from simulations.estimates.theory_privacy import (
    corrupt_excess,
    graph_breach,
    hypergeometric_tail,
    noise_after_dropout,
    noise_over,
)
from tests.support import one_shot
from tests.support.cohort import key_of, one_hot, open_cohort, session_of

UNEVEN = PhaseDropout(advertise=0.1, share=0.05, upload=0.2, confirm=0.15, unmask=0.1)
PHASES = (Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT, Phase.CONSISTENCY_CHECK, Phase.UNMASK)


def each_phase(dropout):
    return dropout.advertise, dropout.share, dropout.upload, dropout.confirm, dropout.unmask


def opens(terms, done):
    """Whether clients that spoke in so many phases get a sum; who never advertised is not in the cohort."""
    cohort = [count for count in done if count]
    parameters = terms.graph(len(cohort)) if len(cohort) >= terms.min_contributors else None
    return parameters is not None and pairwise_opens(
        terms, masking_graph(bytes(32), len(cohort), parameters.degree), cohort
    )


def enumerated_failure(terms, clients, dropout):
    """By adding up every way in which each client falls silent."""
    stays = [1 - drops for drops in each_phase(dropout)]
    chance = [math.prod(stays[:spoke]) * (1 - stays[spoke]) for spoke in range(5)] + [math.prod(stays)]
    return sum(
        math.prod(chance[spoke] for spoke in done)
        for done in itertools.product(range(6), repeat=clients)
        if not opens(terms, done)
    )


def drawn_failure(terms, clients, dropout, trials):
    rng, parameters = np.random.default_rng(7), terms.graph(clients)
    graph = masking_graph(bytes(32), clients, parameters.degree)
    failed = 0
    for _ in range(trials):
        alive, done = np.ones(clients, dtype=bool), np.ones(clients, dtype=int)
        for drops in each_phase(dropout)[1:]:
            alive &= rng.random(clients) >= drops
            done += alive
        failed += not pairwise_opens(terms, graph, done.tolist())
    return failed / trials


# Pairwise.


@pytest.mark.parametrize(
    "terms", [PairwiseTerms(3, 1), PairwiseTerms(3, 0), PairwiseTerms(4, 1, Fraction(1, 5)), PairwiseTerms(5, 1)]
)
@pytest.mark.parametrize("dropout", [UNEVEN, PhaseDropout(upload=0.3), PhaseDropout(share=0.3, unmask=0.02)])
def test_a_complete_graph_agrees_with_enumeration(terms, dropout):
    found = pairwise_failure(terms, 5, dropout)
    assert found.upper == pytest.approx(enumerated_failure(terms, 5, dropout), rel=1e-9)
    assert found.is_exact


def test_nobody_drops_out_and_nothing_fails():
    assert pairwise_failure(PairwiseTerms(3, 1), 20, PhaseDropout()) == Bounds(0.0, 0.0)
    assert pairwise_failure(PairwiseTerms(100, 20, Fraction(1, 10)), 200, PhaseDropout()) == Bounds(0.0, 0.0)


def test_cohorts_too_unlikely_to_follow_count_as_failures_at_most():
    few_come = float(stats.binom.cdf(59, 100, 0.99))
    found = pairwise_failure(PairwiseTerms(60, 5), 100, PhaseDropout(advertise=0.01))
    assert found.lower <= few_come <= found.upper < 1e-9
    assert few_come > 0


def test_everybody_drops_out_and_everything_fails():
    for phase in ("advertise", "share", "upload", "confirm", "unmask"):
        for clients in (20, 200):
            assert pairwise_failure(PairwiseTerms(3, 1), clients, PhaseDropout(**{phase: 1.0})).lower > 1 - 1e-9


def test_a_failure_far_below_rounding_keeps_its_digits():
    terms = PairwiseTerms(30, 5)
    least = pairwise_failure(terms, 100, PhaseDropout(upload=0.001))
    needed = terms.graph(100).threshold + 1
    # The largest term: just one too few.
    assert least.lower > math.comb(100, needed - 1) * 0.001 ** (101 - needed) * 0.99 ** (needed - 1)
    assert least.upper < 1e-90


@pytest.mark.parametrize(
    ("terms", "dropout"),
    [
        (PairwiseTerms(22, 20, Fraction(1, 10)), PhaseDropout(upload=0.18)),
        (PairwiseTerms(160, 20, Fraction(1, 10)), PhaseDropout(upload=0.17)),
        (PairwiseTerms(22, 20, Fraction(1, 10)), PhaseDropout(share=0.05, upload=0.05, confirm=0.05, unmask=0.05)),
    ],
)
def test_a_sparse_graph_stays_within_its_bounds(terms, dropout):
    trials, found = 600, pairwise_failure(terms, 200, dropout)
    drawn = drawn_failure(terms, 200, dropout, trials)
    slack = 4 * math.sqrt(drawn * (1 - drawn) / trials) + 1 / trials
    assert found.lower - slack <= drawn <= found.upper + slack
    assert not found.is_exact
    assert found.upper < 1, "says nothing"
    assert found.lower > 0.01, "says nothing"


def test_two_clients_side_by_side_agree_with_enumeration():
    """Positions 0 to 5 of a circle of degree 4: clients 2 and 3 with all of their neighbours."""
    shared, answering, threshold = 0.8, 0.55, 3
    chance = {"absent": 1 - shared, "silent": shared - answering, "answers": answering}
    both = 0.0
    for states in itertools.product(chance, repeat=6):
        short = [
            states[one] != "absent" and sum(states[other] == "answers" for other in around) < threshold
            for one, around in ((2, (0, 1, 3, 4)), (3, (1, 2, 4, 5)))
        ]
        both += math.prod(chance[state] for state in states) if all(short) else 0.0
    assert theory._both_short(GraphParameters(4, threshold), shared, answering) == pytest.approx(both, rel=1e-12)


def test_degree_and_threshold_are_those_of_the_session():
    keys = [key_of(f"client {number}") for number in range(12)]
    for expected in (Fraction(0), Fraction(1, 10), Fraction(2, 5), Fraction(1, 2)):
        session = session_of(keys, min_contributors=6, max_corrupt=3, expected_dropout=expected)
        terms = PairwiseTerms.of(session)
        for cohort in (6, 7, 11, 12, 40, 101, 150):
            try:
                parameters = session.graph_parameters(cohort)
            except LocalProtocolError:
                parameters = None
            assert terms.graph(cohort) == parameters, (expected, cohort)


async def outcome(keys, done):
    """How a real session ends whose clients speak in so many phases."""
    cohort = await open_cohort(session_of(keys), keys, lambda number: one_hot(20, number % 20))
    cohort.start_all()
    steps = (cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer)
    for place, (phase, step) in enumerate(zip(PHASES, steps, strict=True)):
        for number, client in enumerate(cohort.clients):
            if done[number] > place and cohort.host.status().phase is phase:
                try:
                    await step([client])
                except (RemoteProtocolError, LocalProtocolError):
                    continue  # it stops: too few neighbours, or too few confirmations
        for _ in range(100):
            await asyncio.sleep(0.001)
            if cohort.host.status().phase is not phase:
                break
        else:
            cohort.clock.time_s += 61
            await cohort.host.driver.feed(DeadlinePassed())
            for _ in range(100):
                await asyncio.sleep(0.001)
                if cohort.host.status().phase is not phase:
                    break
        if cohort.host.status().phase is Phase.ABORTED:
            break
    return cohort.host.status().phase


@pytest.mark.parametrize(
    "done",
    [
        (5, 5, 5, 5, 5),
        (5, 5, 5, 5, 1),
        (5, 5, 5, 5, 2),
        (5, 5, 5, 3, 2),
        (5, 5, 5, 3, 3),
        (5, 5, 5, 4, 4),
        (5, 5, 5, 5, 4),
        (5, 5, 2, 2, 2),
        (5, 5, 5, 2, 2),
    ],
)
def test_real_machines_open_what_theory_opens(done):
    keys = [key_of(f"client {number}") for number in range(len(done))]
    terms = PairwiseTerms.of(session_of(keys))
    phase = asyncio.run(outcome(keys, done))
    assert phase is (Phase.FINISHED if opens(terms, done) else Phase.ABORTED)


@pytest.mark.parametrize(("field", "value"), [("share", -0.1), ("unmask", 1.1), ("upload", math.nan)])
def test_what_is_no_probability_is_refused_by_name(field, value):
    with pytest.raises(TheoryError, match=field):
        PhaseDropout(**{field: value})


# One-shot.


def test_one_shot_agrees_with_who_is_named_and_answers():
    keys = one_shot.contributor_keys(4)
    session = one_shot.session_of(keys)
    committee, uploads, members = session.opening, 0.2, Availability(0.8, 0.7)
    failing = 0.0
    for came in itertools.product((0, 1), repeat=4):
        staged = tuple(position for position, is_there in enumerate(came) if is_there)
        for held, answered in itertools.product(itertools.product((0, 1), repeat=4), repeat=2):
            chance = math.prod(1 - uploads if one else uploads for one in came)
            for holds, answers in zip(held, answered, strict=True):
                chance *= (0.8 if holds else 0.2) * (0.7 if answers else 0.3)
            mask = sum(1 << place for place, holds in enumerate(held) if holds)
            rows = {row_key(at, RowKind.HOLDING): HoldingRow(mask, 15 ^ mask) for at in staged}
            named = tables.choose_named(rows, staged, session, committee)
            enough = len(named.accepted) >= session.parameters.min_contributors
            opened = enough and sum(answered[place] for place in named.members) >= committee.needed
            failing += 0.0 if opened else chance
    terms = OneShotTerms(session.parameters.min_contributors, len(committee.members), committee.needed)
    found = one_shot_failure(terms, 4, uploads, members)
    assert found.is_exact
    assert found.upper == pytest.approx(failing, rel=1e-9)


def test_one_shot_failures_below_rounding_keep_their_digits():
    found = one_shot_failure(OneShotTerms(2, 7, 5), 100, 0.0, Availability(1.0, 1 - 1e-8))
    assert found.lower == pytest.approx(35 * 1e-24, rel=1e-6)


# Corruption.


def test_tails_agree_with_every_draw():
    draws = list(itertools.combinations(range(9), 4))
    for marked in range(10):
        for above in range(-1, 5):
            counted = sum(sum(one < marked for one in draw) > above for draw in draws)
            assert hypergeometric_tail(9, marked, 4, above) == pytest.approx(counted / len(draws), rel=1e-12)


def test_long_tails_agree_with_integers():
    population, marked, drawn = 8_000, 150, 5_000
    total = math.comb(population, drawn)
    for above in (80, 93, 110, 140):
        ways = sum(
            math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(above + 1, marked + 1)
        )
        assert hypergeometric_tail(population, marked, drawn, above) == pytest.approx(
            float(Fraction(ways, total)), rel=1e-6
        )


def test_a_committee_from_a_whole_population_is_as_good_as_independent():
    assert corrupt_excess(7, 2, 0.1, 2**33) == pytest.approx(corrupt_excess(7, 2, 0.1), rel=1e-6)
    expected = sum(math.comb(7, bad) * 0.1**bad * 0.9 ** (7 - bad) for bad in range(3, 8))
    assert corrupt_excess(7, 2, 0.1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("cohort", "degree", "threshold"), [(11, 4, 3), (12, 4, 4), (13, 6, 5)])
@pytest.mark.parametrize("corrupt", [2, 3, 4])
def test_a_breach_among_neighbours_lies_within_its_bounds(cohort, degree, threshold, corrupt):
    graph, enough = masking_graph(bytes(32), cohort, degree), 2 * threshold - degree
    cases = [frozenset(draw) for draw in itertools.combinations(range(cohort), corrupt)]
    some = sum(
        any(len(case.intersection(graph.neighbours(one))) >= enough for one in range(cohort) if one not in case)
        for case in cases
    ) / len(cases)
    found = graph_breach(cohort, corrupt, GraphParameters(degree, threshold))
    assert found.lower <= some <= found.upper
    one_client = sum(len(case.intersection(graph.neighbours(0))) >= enough for case in cases if 0 not in case) / sum(
        0 not in case for case in cases
    )
    assert found.lower == pytest.approx(one_client, rel=1e-9)


def test_the_session_s_own_degree_keeps_its_promise():
    parameters = PairwiseTerms(900, 100, Fraction(1, 10)).graph(1000)
    assert graph_breach(1000, 100, parameters).upper < 2.0**-128
    assert graph_breach(1000, 101, parameters).upper > 2.0**-130, "the degree is larger than needed"


def test_in_the_complete_graph_one_corrupt_client_too_many_decides():
    parameters = PairwiseTerms(30, 10).graph(50)
    safe = 2 * parameters.threshold - parameters.degree - 1
    assert graph_breach(50, safe, parameters) == Bounds(0.0, 0.0)
    assert graph_breach(50, safe + 1, parameters) == Bounds(1.0, 1.0)


# Noise.


@pytest.fixture(scope="module")
def planned():
    return plan(Demand(Fraction(8), Fraction(1, 10**5), 1, 20, 2, 64, Fraction(1), 64))


def test_the_fewest_survivors_cost_what_was_planned(planned):
    assert noise_over(planned, 20).epsilon == pytest.approx(planned.epsilon, rel=1e-12)
    assert noise_over(planned, 20).rms_noise == pytest.approx(planned.total_sigma / 20, rel=1e-12)


def test_more_survivors_cost_less_and_silent_noise_costs_more(planned):
    costs = [noise_over(planned, count).epsilon for count in (10, 20, 40, 60)]
    assert costs == sorted(costs, reverse=True)
    assert noise_over(planned, 40, 22).epsilon == pytest.approx(noise_over(planned, 20, 2).epsilon)
    assert noise_over(planned, 40, 30).epsilon > noise_over(planned, 40, 2).epsilon
    with pytest.raises(TheoryError, match="noiseless"):
        noise_over(planned, 40, 40)


def test_drawn_noise_has_the_expected_error(planned):
    rng, survivors = np.random.default_rng(3), 30
    rate = float(planned.local_variance) / 2
    noise = rng.poisson(rate, (survivors, 20_000)) - rng.poisson(rate, (survivors, 20_000))
    mean = noise.sum(axis=0) / survivors / float(planned.scale)
    found = noise_over(planned, survivors)
    assert np.sqrt(np.mean(mean**2)) == pytest.approx(found.rms_noise, rel=0.03)
    assert found.rms_noise < found.rms_error < 1.1 * found.rms_noise


def test_dropouts_leave_what_draws_leave(planned):
    rng = np.random.default_rng(5)
    stay = rng.binomial(30, 0.7, 200_000)
    opened = stay[stay >= 20]
    found = noise_after_dropout(planned, 30, 0.3)
    assert found.opens == pytest.approx(opened.size / stay.size, abs=0.005)
    square = float(planned.local_variance / planned.scale**2)
    assert found.rms_noise == pytest.approx(math.sqrt(np.mean(square / opened)), rel=0.01)
    assert (found.worst.contributions, found.typical.contributions) == (20, 21)
    assert noise_after_dropout(planned, 10, 0.3).opens == 0
