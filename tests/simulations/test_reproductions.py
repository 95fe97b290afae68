"""What was found once, as the minimal script that showed it: each has to stay fine.

A finding of ``python -m simulations explore`` is pasted here with a sentence that says what was wrong.
``SHOWS`` are the shortest scripts that show a mutant of ``simulations.exploring.mutants``, by its name.
"""

from __future__ import annotations

import pytest

from simulations.exploring.mutants import MUTANTS
from simulations.exploring.playing import Fine, run_script
from simulations.exploring.scripts import Script

REPRODUCTIONS = {
    # A caller that is cut off in the middle of a stream waited for ever: the simulated network had no keep-alive.
    "a client that is cut off while it watches hears of the end": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
join 2
advance 1
partition 120 client-2
""",
        "aborted: fewer than min_contributors advertised keys",
    ),
    # What was to happen to a call was taken back when the last operation had been done, so this client never dropped.
    "a client drops out although no time is said to pass": (
        """\
plan one-shot clients=4 dimension=8 seed=0 minimum=4 corrupt=1 dropout=1/10 phase=120 witnesses=0 committee=4/3/1
drop 2 masked-input before
join 0
join 1
join 2
join 3
""",
        "aborted: fewer than min_contributors contributed",
    ),
}

SHOWS = {
    "a client opens one less than the minimum": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=5 corrupt=1 dropout=1/10 phase=120 witnesses=0
forge tiny 0
join 0
join 1
join 2
join 3
join 4
""",
        "open",
    ),
    "a member opens less than the minimum": (
        """\
plan one-shot clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0 committee=4/3/1
forge tiny 0
join 0
join 1
join 2
join 3
join 4
""",
        "open",
    ),
    "another close is confirmed and nobody minds": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
forge mix 2
join 0
join 1
join 2
join 3
join 4
""",
        "open",
    ),
    "no witness need cosign": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=3
forge fork 2
join 0
join 1
join 2
join 3
join 4
""",
        "open",
    ),
    "an upload that comes twice counts twice": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
duplicate client-1 deliver 0
delay client-2 deliver 5
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "a message that comes twice counts twice": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
duplicate client-1 AdvertiseKeys 0
delay client-2 AdvertiseKeys 5
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "the sum need not have the signed hash": (
        """\
plan one-shot clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0 committee=4/3/1
lie 2 wrong-linear-hash
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "any bytes are the upload": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
lie 2 altered-upload
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "a member that complains holds the share": (
        """\
plan one-shot clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0 committee=4/3/1
lie 2 garbled-boxes
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "a sum opens that does not certify": (
        """\
plan one-shot clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0 committee=4/3/1
betray 0 wrong-sum
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "masks of who dropped out stay in the sum": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
drop 2 masked-input before
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "masks of who dropped out are taken away once more": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
drop 2 masked-input before
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "one end of an edge may go without its mask": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
lie 2 false-missing
join 0
join 1
join 2
join 3
join 4
""",
        "aborted: too few contributed to open a sum",
    ),
    "effects that were not carried out are forgotten in a crash": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
crash coordinator 1 after 0
join 0
join 1
join 2
join 3
join 4
""",
        "finished",
    ),
    "deadlines stop at a crash of the coordinator": (
        """\
plan pairwise clients=5 dimension=8 seed=0 minimum=3 corrupt=1 dropout=1/10 phase=120 witnesses=0
advance 1
kill coordinator
advance 1
restart coordinator
""",
        "aborted: fewer than min_contributors advertised keys",
    ),
}


def test_what_shows_a_mutant_is_named_as_the_mutant():
    assert set(SHOWS) <= {mutant.name for mutant in MUTANTS}


@pytest.mark.parametrize("name", [*REPRODUCTIONS, *SHOWS])
def test_stays_fine(name):
    text, ended = (REPRODUCTIONS | SHOWS)[name]
    script = Script.parse(text)
    assert script.to_text() == text
    assert run_script(script) == Fine(ended)
