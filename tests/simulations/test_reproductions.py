"""What was found once, as the minimal script that showed it: each has to stay fine.

A finding of ``python -m simulations explore`` is pasted here with a sentence that says what was wrong.
"""

from __future__ import annotations

import pytest

from simulations.explore import Fine, run_script
from simulations.scripts import Script

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
}


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_stays_fine(name):
    text, ended = REPRODUCTIONS[name]
    script = Script.parse(text)
    assert script.to_text() == text
    assert run_script(script) == Fine(ended)
