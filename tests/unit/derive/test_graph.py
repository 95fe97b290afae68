from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.derive.graph import GraphParameterError, MaskingGraph, masking_graph

SEED = bytes(range(32))


def ring(cohort: int, degree: int) -> MaskingGraph:
    """A graph whose order is the identity, so that indices are positions."""
    return MaskingGraph(tuple(range(cohort)), degree)


def connected(graph: MaskingGraph, alive: frozenset[int]) -> bool:
    """Breadth-first search among the clients that are alive."""
    if not alive:
        return True
    seen: set[int] = set()
    fringe = {min(alive)}
    while fringe:
        seen |= fringe
        fringe = {other for one in fringe for other in graph.neighbours(one)} & alive - seen
    return seen == alive


def subsets(cohort: int) -> Iterator[frozenset[int]]:
    for bits in range(1 << cohort):
        yield frozenset(i for i in range(cohort) if bits >> i & 1)


def runs_of_removed(cohort: int, alive: frozenset[int]) -> list[int]:
    """Lengths of the maximal runs of removed positions on the circle, including the empty ones."""
    ordered = sorted(alive)
    return [(after - before - 1) % cohort for before, after in zip(ordered, ordered[1:] + ordered[:1], strict=True)]


def window_pairs(cohort: int, half: int) -> list[tuple[frozenset[int], int, int]]:
    """All pairs of windows of ``half`` positions with room for somebody between them on either side."""
    pairs = []
    for first, second in itertools.combinations(range(cohort), 2):
        if half + 1 <= second - first <= cohort - half - 1:
            covered = {(start + step) % cohort for start in (first, second) for step in range(half)}
            pairs.append((frozenset(covered), first, second))
    return pairs


SMALL = [(cohort, degree) for cohort in range(3, 12) for degree in range(2, cohort, 2)]


@st.composite
def graph_arguments(draw: st.DrawFn) -> tuple[bytes, int, int]:
    cohort = draw(st.integers(3, 60))
    degree = draw(st.sampled_from([*range(2, cohort, 2), cohort - 1]))
    return draw(st.binary(min_size=32, max_size=32)), cohort, degree


@given(graph_arguments())
def test_everybody_has_as_many_neighbours_as_the_degree_and_neighbours_are_mutual(arguments):
    graph = masking_graph(*arguments)
    lists = [graph.neighbours(index) for index in range(graph.cohort)]
    for index, others in enumerate(lists):
        assert len(others) == graph.degree == arguments[2]
        assert list(others) == sorted(set(others))
        assert index not in others
        assert all(index in lists[other] for other in others)


@given(graph_arguments())
def test_the_order_is_the_one_that_hashes_of_seed_and_index_give(arguments):
    seed, cohort, degree = arguments
    ranked = sorted((hashlib.sha256(seed + i.to_bytes(4, "big")).digest(), i) for i in range(cohort))
    order = tuple(index for _, index in ranked)
    graph = masking_graph(seed, cohort, degree)
    assert graph.order == order
    for position, index in enumerate(order):
        near = {order[(position + s * d) % cohort] for d in range(1, degree // 2 + 1) for s in (1, -1)}
        assert near <= set(graph.neighbours(index))


def test_another_seed_gives_another_order():
    orders = {masking_graph(bytes([i]) * 32, 50, 6).order for i in range(20)}
    assert len(orders) == 20


def test_a_client_stands_anywhere_on_the_circle_equally_often():
    draws, cohort = 2000, 5
    for index in range(cohort):
        at_the_front = sum(
            masking_graph(hashlib.sha256(bytes([i >> 8, i & 255])).digest(), cohort, 2).order[0] == index
            for i in range(draws)
        )
        # 400 expected, standard deviation 18.
        assert abs(at_the_front - draws // cohort) < 90


def test_with_degree_one_below_the_cohort_everybody_is_a_neighbour_of_everybody():
    for cohort in (3, 4, 7, 8):
        graph = masking_graph(SEED, cohort, cohort - 1)
        for index in range(cohort):
            assert graph.neighbours(index) == tuple(i for i in range(cohort) if i != index)


@pytest.mark.parametrize(("cohort", "degree"), SMALL)
def test_the_graph_falls_apart_exactly_if_two_runs_of_half_the_degree_are_removed(cohort, degree):
    graph, half = ring(cohort, degree), degree // 2
    pairs = window_pairs(cohort, half)
    assert len(pairs) == cohort * (cohort - degree - 1) // 2
    for alive in subsets(cohort):
        separated = sum(run >= half for run in runs_of_removed(cohort, alive)) >= 2
        assert connected(graph, alive) is not separated
        # The event of the union bound: two windows without anybody, and on either side somebody between.
        hit = any(
            not covered & alive
            and any(first < i < second for i in alive)
            and any(i < first or i > second for i in alive)
            for covered, first, second in pairs
        )
        assert hit is separated


@pytest.mark.parametrize(("cohort", "degree"), [(7, 2), (8, 2), (8, 4), (9, 4), (9, 6)])
def test_who_may_remove_some_honest_clients_separates_only_around_a_poor_pair_of_windows(cohort, degree):
    graph = ring(cohort, degree)
    pairs = [covered for covered, _, _ in window_pairs(cohort, degree // 2)]
    split = {alive for alive in subsets(cohort) if not connected(graph, alive)}
    for honest in subsets(cohort):
        fewest = min(len(covered & honest) for covered in pairs)
        needed = min((len(honest) - len(alive) for alive in split if alive <= honest), default=None)
        # Whoever may remove `needed` can separate; the bound must count every such set of honest clients.
        if needed is not None:
            assert needed >= fewest


def test_two_halves_of_one_long_run_separate_nobody():
    graph = ring(12, 4)
    assert connected(graph, frozenset(range(5)) | {11})
    assert not connected(graph, frozenset(range(12)) - {11, 0, 5, 6})


@pytest.mark.parametrize(
    ("seed", "cohort", "degree", "field"),
    [
        (SEED[:-1], 10, 4, "seed"),
        (SEED + b"\0", 10, 4, "seed"),
        (bytearray(SEED), 10, 4, "seed"),
        (SEED.hex(), 10, 4, "seed"),
        (SEED, 2, 1, "cohort"),
        (SEED, 0, 2, "cohort"),
        (SEED, -5, 2, "cohort"),
        (SEED, 1 << 17, 2, "cohort"),
        (SEED, 10.0, 4, "cohort"),
        (SEED, True, 4, "cohort"),
        (SEED, 10, 0, "degree"),
        (SEED, 10, -2, "degree"),
        (SEED, 10, 3, "degree"),
        (SEED, 10, 10, "degree"),
        (SEED, 10, 4.0, "degree"),
        (SEED, 9, 7, "degree"),
    ],
)
def test_what_gives_no_graph_is_refused_and_the_field_named(seed, cohort, degree, field):
    with pytest.raises(GraphParameterError) as refused:
        masking_graph(seed, cohort, degree)
    assert refused.value.field == field
    assert field in str(refused.value)


@pytest.mark.parametrize("order", [(0, 1, 1), (0, 1, 3), (0, 1, -1), (0, 1, 2.0)])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(GraphParameterError) as refused:
        MaskingGraph(order, 2)
    assert refused.value.field == "order"


@pytest.mark.parametrize("index", [-1, 10, 1.0, True])
def test_an_index_of_nobody_is_refused(index):
    with pytest.raises(GraphParameterError) as refused:
        ring(10, 4).neighbours(index)
    assert refused.value.field == "index"


def test_a_refusal_can_be_copied_and_says_field_and_reason():
    refusal = copy.copy(GraphParameterError("seed", "short"))
    assert (refusal.field, refusal.reason, str(refusal)) == ("seed", "short", "seed: short")


def test_graphs_of_the_same_order_and_degree_are_equal():
    assert ring(6, 2) == ring(6, 2) != ring(6, 4)
    assert hash(ring(6, 2)) == hash(ring(6, 2))
