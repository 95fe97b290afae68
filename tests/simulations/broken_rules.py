"""Rules of the machines that tests of attacks switch off: an attack that they stop must succeed then."""

from __future__ import annotations

import pytest

from secagg.protocol import log
from secagg.protocol.one_shot import member
from secagg.protocol.one_shot.member_states import SESSION_ROW, Holding, LogShown, OpenAsked, SessionRow, row_key
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.member_session import MemberSession


def any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log may have two closes, and the last one counts."""
    monkeypatch.setattr(log, "_check_entry", lambda *_: None)
    monkeypatch.setattr(
        log.LogView,
        "_entry",
        lambda view, kind: next(
            (each for each in map(log.decode_entry, reversed(view.entries)) if isinstance(each, kind)), None
        ),
    )
    monkeypatch.setattr(log.LogView, "close_entry", property(lambda view: view.close.to_bytes()))


def members_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member takes every request for the first one, and every log for the first that it sees."""
    step = member.step

    def forgetful(context, rows, state, event):
        if not isinstance(event, OpenAsked | LogShown):
            return step(context, rows, state, event)
        row = rows[row_key(SESSION_ROW)]
        evidence = event.evidence
        view = log.LogView(evidence.start, evidence.prefix, evidence.entries[:1], evidence.entries[:1])
        rows = {**rows, row_key(SESSION_ROW): SessionRow(view, row.joined_at_s)}
        return step(context, rows, Holding(), event)

    monkeypatch.setattr(member, "step", forgetful)
    monkeypatch.setattr(LogTrust, "check", lambda *_: None)
    monkeypatch.setattr(LogTrust, "remember", lambda *_: None)

    async def keep(_: MemberSession) -> None:
        return

    monkeypatch.setattr(MemberSession, "forget_boxes", keep)
