"""Quorums: how few witnesses make one, and how few two of them share, compared with trying all sets."""

from __future__ import annotations

import itertools

import pytest

from secagg.crypto.notes import witness_key
from secagg.transcript.policy import NO_QUORUM, GroupRule, LogPolicy, WitnessRule
from tests.support.forge import key_of
from verifier.quorums import smallest_overlap, smallest_quorum


def policy_of(witnesses, groups, quorum):
    names = [f"w{number}" for number in range(witnesses)]
    rules = tuple(WitnessRule(name, witness_key(name, key_of(name).public_bytes)) for name in names)
    return LogPolicy(
        (), rules, tuple(GroupRule(name, k, tuple(members.split())) for name, k, members in groups), quorum
    )


POLICIES = [
    policy_of(0, [], NO_QUORUM),
    policy_of(3, [], NO_QUORUM),
    policy_of(3, [], "w1"),
    policy_of(3, [("g", 1, "w0 w1 w2")], "g"),
    policy_of(3, [("g", 2, "w0 w1 w2")], "g"),
    policy_of(3, [("g", 3, "w0 w1 w2")], "g"),
    policy_of(4, [("g", 2, "w0 w1 w2 w3")], "g"),
    policy_of(5, [("g", 4, "w0 w1 w2 w3 w4")], "g"),
    policy_of(7, [("a", 2, "w0 w1 w2"), ("b", 2, "w3 w4"), ("g", 2, "a b w5")], "g"),
    policy_of(7, [("a", 1, "w0 w1"), ("b", 3, "w2 w3 w4 w5"), ("g", 2, "a b")], "g"),
    policy_of(8, [("a", 3, "w0 w1 w2"), ("b", 2, "w3 w4 w5"), ("c", 2, "w6 w7"), ("g", 2, "a b c")], "g"),
    policy_of(6, [("a", 2, "w0 w1 w2"), ("b", 2, "w3 w4 w5"), ("g", 1, "a b")], "g"),
]


def quorums(policy):
    """All sets of names that meet the policy."""
    for size in range(len(policy.witnesses) + 1):
        for chosen in itertools.combinations(policy.witnesses, size):
            if policy.is_met_by([witness.key.public_key for witness in chosen]):
                yield {witness.name for witness in chosen}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.to_text().split("\n", 1)[1][-30:])
def test_what_the_rules_give_is_what_trying_all_sets_gives(policy):
    found = list(quorums(policy))
    assert smallest_quorum(policy) == min(map(len, found))
    assert smallest_overlap(policy) == min(len(one & other) for one in found for other in found)


def test_two_majorities_share_a_witness_and_two_halves_need_not():
    assert [smallest_overlap(policy) for policy in POLICIES[4:8]] == [1, 3, 0, 3]
