"""What the quorum of a policy is worth: how few witnesses make one, and how few two of them have in common.

Both follow exactly from the rules, without trying sets: a name is a member at most once, so groups form a tree, and
what is chosen below one member never meets what is chosen below another.
"""

from __future__ import annotations

from collections.abc import Callable

from secagg.transcript.policy import NO_QUORUM, GroupRule, LogPolicy


def smallest_quorum(policy: LogPolicy) -> int:
    """How many witnesses the smallest set has that meets the quorum; 0 where none is asked for."""
    return _of_quorum(policy, lambda group, sizes: sum(sorted(sizes)[: group.threshold]))


def smallest_overlap(policy: LogPolicy) -> int:
    """How many witnesses two sets that meet the quorum have in common at least; 0 where none is asked for.

    Two histories of a log can each have a quorum only if so many witnesses signed both.
    """
    return _of_quorum(policy, _overlap)


def _overlap(group: GroupRule, overlaps: list[int]) -> int:
    """Two choices of ``threshold`` members share this many members at least, and then the cheapest ones."""
    shared = max(0, 2 * group.threshold - len(group.members))
    return sum(sorted(overlaps)[:shared])


def _of_quorum(policy: LogPolicy, of_group: Callable[[GroupRule, list[int]], int]) -> int:
    if policy.quorum == NO_QUORUM:
        return 0
    known = {witness.name: 1 for witness in policy.witnesses}
    for group in policy.groups:
        known[group.name] = of_group(group, [known[member] for member in group.members])
    return known[policy.quorum]
