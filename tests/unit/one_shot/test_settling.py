"""How a coordinator counts the contributions of which every member has said whether it holds the share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from secagg.protocol.one_shot import coordinator, tables
from secagg.protocol.one_shot.coordinator_states import (
    ONE_SHOT_PERSISTENCE,
    HoldingsReported,
    Row,
    Settling,
)
from secagg.protocol.rows import RejectedRow, RowKind, StagedRow, row_key
from secagg.transcript.openers import Committee
from tests.support.cohort import key_of
from tests.support.one_shot import NOW_S, session_of

POSITIONS = range(6)
SESSION = session_of([key_of(f"client {number}") for number in POSITIONS])
assert isinstance(SESSION.opening, Committee)
MEMBERS = len(SESSION.opening.members)

some_positions = st.lists(st.sampled_from(POSITIONS), max_size=12).map(tuple)
reports = st.lists(st.builds(HoldingsReported, st.integers(0, MEMBERS - 1), some_positions, some_positions))


@given(staged=st.sets(st.sampled_from(POSITIONS)), rejected=st.sets(st.sampled_from(POSITIONS)), said=reports)
def test_counting_what_is_news_is_counting_everything(
    staged: set[int], rejected: set[int], said: Sequence[HoldingsReported]
) -> None:
    rows: dict[int, Row] = {row_key(at, RowKind.STAGED): StagedRow(bytes(32)) for at in staged}
    rows.update({row_key(at, RowKind.REJECTED): RejectedRow("ABORTED") for at in rejected})
    counted = tables.staged_positions(rows)
    state = Settling(NOW_S + 60, len(counted), 0)
    for report in said:
        after = coordinator.step(coordinator.Moment(SESSION, rows, NOW_S), state, report)
        rows.update(after.rows)
        settled = tables.settled(rows, counted, MEMBERS)
        if not isinstance(after.state, Settling):
            assert settled == len(counted)
            return
        assert after.state == dataclasses.replace(state, settled=settled)
        # A coordinator that comes back goes on with the number that it stored.
        restored = ONE_SHOT_PERSISTENCE.decode(ONE_SHOT_PERSISTENCE.encode(after.state))
        assert isinstance(restored, Settling)
        state = restored
