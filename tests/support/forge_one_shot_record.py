"""Whole records of one-shot sessions: one with a committee, one with a key authority, one that was aborted.

``write_one_shot_record(directory, edits)`` is all that most tests need. Edits are named as in ``forge``: by their name
alone what the session with the committee makes, as ``authority.close`` or ``aborted.open`` what the others make.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.forge import POLICY, Forge, Written
from tests.support.forge_one_shot import (
    AUTHORITY_PLAN,
    COMMITTEE_PLAN,
    MAX_CORRUPT_MEMBERS,
    MEMBERS,
    OneShotForge,
    OneShotPlan,
    attestor_keys,
    key_of,
    member_key,
)
from tests.support.forge_session import Edit, Plan

ABORTED_PLAN = OneShotPlan((0, 1, 2), opened_at_s=1_700_000_109)


def openers_table() -> str:
    """The policy's table of who may open: all members but as many as may be corrupt, the authority, two attestors."""
    keys = [member_key(place) for place in range(MEMBERS - MAX_CORRUPT_MEMBERS)] + [key_of("authority")]
    attestors = attestor_keys()[:2]
    listed = (", ".join(f'"{key.public_bytes.hex()}"' for key in part) for part in (keys, attestors))
    return "\n[openers]\nkeys = [{}]\nattestors = [{}]\n".format(*listed)


class OneShotRecord(Forge):
    """A record in the making; ``run`` plays its sessions, interleaved."""

    policy_text = POLICY + openers_table()

    def __init__(
        self,
        edits: Mapping[str, Edit] | None = None,
        committee_plan: OneShotPlan = COMMITTEE_PLAN,
        authority_plan: OneShotPlan = AUTHORITY_PLAN,
    ) -> None:
        self._plans = {"main": committee_plan, "second": authority_plan, "aborted": ABORTED_PLAN}
        super().__init__({key.replace("authority.", "second."): edit for key, edit in (edits or {}).items()})

    @property
    def authority(self) -> OneShotForge:
        """The session with a key authority."""
        return self.second

    def run(self) -> OneShotRecord:
        """Play all sessions, their entries interleaved."""
        main, authority, aborted = self.sessions
        self.append(self.roster_entry())
        for step in (
            main.open,
            authority.open,
            authority.commit,
            aborted.open,
            main.close,
            aborted.abort,
            authority.close,
            authority.result,
            main.result,
        ):
            self.append(step())
        return self

    def append(self, entry: Any) -> None:
        """Log an entry; a session is told where its open entry stands."""
        for session in self.sessions:
            if getattr(session, "parameters", None) is entry:
                session.opened_at = len(self.entries)
        super().append(entry)

    def play(self, session: OneShotForge, *steps: str) -> OneShotRecord:
        """The roster, and so many steps of one session."""
        self.append(self.roster_entry())
        for step in steps:
            self.append(getattr(session, step)())
        return self

    def _session_forge(self, around: Any, name: str, _plan: Plan, edits: Mapping[str, Edit]) -> Any:
        return OneShotForge(around, name, self._plans[name], edits)


def write_one_shot_record(directory: Path, edits: Mapping[str, Edit] | None = None) -> Written:
    """A complete record in ``directory``, edited on the way."""
    return OneShotRecord(edits).run().write(directory)
