"""What a client remembers of a log: it only ever grows, and whatever contradicts it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from secagg.crypto.notes import sign_checkpoint
from secagg.protocol import log
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.log import LogView
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.runtime.log_trust import ForgetfulMemory, LogTrust, Seen
from secagg.runtime.ports import StoreError
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import KeysAdvertised
from secagg.transcript.evidence import LogEvidence
from tests.support.cohort import key_of, session_of
from tests.support.published import NO_WITNESSES, evidence_of
from tests.support.stage import sorted_keys

KEY = key_of("coordinator")
FIRST = session_of(sorted_keys(5))


def session_named(name: bytes, **changes: object) -> PairwiseSession:
    parameters = dataclasses.replace(FIRST.parameters, session=name * 16, **changes)
    return PairwiseSession(parameters, FIRST.roster)


SECOND, THIRD = session_named(b"2"), session_named(b"3")


def filler(count: int, label: bytes = b"honest") -> list[bytes]:
    """Entries of sessions that this client has no part in."""
    roots = (merkle.leaf_hash(label + b" %d" % number) for number in range(count))
    return [KeysAdvertised(b"o" * 16, 2, root).to_bytes() for root in roots]


HONEST = [*filler(3), FIRST.entry, *filler(2, b"more"), SECOND.entry, *filler(2, b"still more"), THIRD.entry]


def shown(session: PairwiseSession, size: int, entries: Sequence[bytes] = HONEST) -> LogEvidence:
    """The first ``size`` entries, from the session's open entry on."""
    start = entries.index(session.entry)
    return evidence_of(KEY, entries[start:size], before=entries[:start])


def proof(old_size: int, size: int, entries: Sequence[bytes] = HONEST) -> tuple[bytes, ...]:
    return merkle.Tree([merkle.leaf_hash(entry) for entry in entries[:size]]).consistency_proof(old_size)


def view_of(session: PairwiseSession, evidence: LogEvidence) -> LogView:
    return log.join(session.parameters, NO_WITNESSES, evidence)


def accept(trust: LogTrust, session: PairwiseSession, evidence: LogEvidence, consistency: tuple[bytes, ...]) -> None:
    trust.accept(trust.seen(), view_of(session, evidence), evidence, consistency)


def pinned(size: int = 4, entries: Sequence[bytes] = HONEST) -> LogTrust:
    """Whoever saw the log at this size in the first session."""
    trust = LogTrust.nobody()
    accept(trust, FIRST, shown(FIRST, size, entries), ())
    return trust


def refusal(call: object, trust: LogTrust) -> RejectReason:
    """Why ``call`` is refused; whatever was remembered stays."""
    before = trust.memory.load()
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    assert trust.memory.load() == before
    return caught.value.reason


def refused(
    trust: LogTrust, session: PairwiseSession, evidence: LogEvidence, consistency: tuple[bytes, ...]
) -> RejectReason:
    view = view_of(session, evidence)
    return refusal(lambda: trust.accept(trust.seen(), view, evidence, consistency), trust)


def test_before_the_first_session_nothing_was_seen():
    trust = LogTrust.nobody()
    assert trust.seen() == Seen(None)
    assert trust.seen().size == 0


def test_what_is_shown_first_is_remembered_as_the_note_it_came_in():
    trust = pinned()
    assert trust.memory.load() == shown(FIRST, 4).checkpoint
    assert trust.seen().checkpoint == Checkpoint(FIRST.parameters.log, 4, merkle.root(HONEST[:4]))
    assert trust.seen().size == 4


def test_a_log_that_has_grown_is_remembered_at_its_new_size():
    trust = pinned()
    accept(trust, SECOND, shown(SECOND, 7), proof(4, 7))
    assert trust.seen().size == 7
    accept(trust, THIRD, shown(THIRD, 10), proof(7, 10))
    assert trust.seen().size == 10


def test_a_log_that_stands_still_needs_no_proof():
    trust = pinned(7)
    accept(trust, SECOND, shown(SECOND, 7), ())
    assert trust.seen().size == 7


# Another history.


def test_without_a_proof_or_with_another_one_a_longer_log_is_refused():
    for consistency in ((), proof(3, 7), proof(5, 7), proof(4, 6), proof(4, 7)[:-1], (*proof(4, 7), bytes(32))):
        assert refused(pinned(), SECOND, shown(SECOND, 7), consistency) is RejectReason.LOG_FORKED


def test_a_fork_before_what_was_seen_is_refused_whatever_proof_comes_with_it():
    fork = [*filler(3, b"other"), FIRST.entry, *HONEST[4:]]
    evidence = shown(SECOND, 7, fork)
    for consistency in (proof(4, 7), proof(4, 7, fork), ()):
        assert refused(pinned(), SECOND, evidence, consistency) is RejectReason.LOG_FORKED


def test_a_fork_of_the_same_size_is_refused():
    fork = [*HONEST[:4], *filler(2, b"other"), SECOND.entry]
    assert refused(pinned(7), SECOND, shown(SECOND, 7, fork), ()) is RejectReason.LOG_FORKED


def test_a_log_that_was_rolled_back_is_refused():
    shorter = [SECOND.entry]
    for trust, session, evidence in [
        (pinned(7), SECOND, shown(SECOND, 1, shorter)),
        (pinned(10), SECOND, shown(SECOND, 7)),  # although it is the same history
    ]:
        for consistency in ((), proof(1, 4), (bytes(32),)):
            assert refused(trust, session, evidence, consistency) is RejectReason.LOG_FORKED


def test_a_coordinator_that_moves_to_another_log_is_refused():
    moved = session_named(b"2", log="log.example/another")
    entries = [*HONEST[:6], moved.entry]
    root = merkle.root(entries)
    note = sign_checkpoint(KEY, Checkpoint("log.example/another", 7, root))
    honest = shown(SECOND, 7, [*HONEST[:6], SECOND.entry])
    evidence = dataclasses.replace(honest, entries=(moved.entry,), checkpoint=note.to_bytes())
    trust = pinned()
    assert refused(trust, moved, evidence, proof(4, 7, entries)) is RejectReason.LOG_FORKED
    assert refusal(lambda: trust.remember(evidence), trust) is RejectReason.LOG_FORKED
    newcomer = LogTrust.nobody()
    accept(newcomer, moved, evidence, ())
    assert newcomer.seen().size == 7


# While a session runs.


def test_evidence_has_to_contain_what_was_seen_before_it_was_asked_for():
    trust = pinned()
    seen = trust.seen()
    trust.check(seen, shown(FIRST, 4))
    trust.check(seen, shown(FIRST, 9))
    forked = [*HONEST[:2], *filler(1, b"other"), FIRST.entry, *HONEST[4:]]
    assert refusal(lambda: trust.check(seen, shown(FIRST, 9, forked)), trust) is RejectReason.LOG_FORKED


def test_evidence_that_is_shorter_than_what_was_seen_before_it_was_asked_for_is_refused():
    trust = pinned(7)
    assert refusal(lambda: trust.check(trust.seen(), shown(FIRST, 6)), trust) is RejectReason.LOG_FORKED


def test_evidence_that_begins_behind_what_was_seen_says_nothing_about_it():
    """Its open entry stands behind the pinned checkpoint: that they belong together was proved when it was joined."""
    trust = pinned()
    fork = [*filler(3, b"other"), FIRST.entry, *HONEST[4:]]
    for entries in (HONEST, fork):
        trust.check(trust.seen(), shown(SECOND, 8, entries))


def test_evidence_that_another_session_has_overtaken_changes_nothing():
    trust = pinned()
    seen = trust.seen()
    accept(trust, SECOND, shown(SECOND, 8), proof(4, 8))  # while the first session waited for its answer
    before = trust.memory.load()
    trust.check(seen, shown(FIRST, 6))
    trust.remember(shown(FIRST, 6))
    assert trust.memory.load() == before


def test_what_a_session_verified_is_remembered_unless_it_contradicts_what_another_one_brought():
    trust = pinned()
    trust.remember(shown(FIRST, 6))
    assert trust.seen().size == 6
    accept(trust, SECOND, shown(SECOND, 8), proof(6, 8))
    fork = [*HONEST[:6], *filler(1, b"other"), *HONEST[7:]]
    # Nobody looked at the memory since the answer was asked for: remembering finds it.
    assert refusal(lambda: trust.remember(shown(FIRST, 9, fork)), trust) is RejectReason.LOG_FORKED
    trust.remember(shown(FIRST, 9))
    assert trust.seen().size == 9


# What is kept cannot be read.


@pytest.mark.parametrize(
    "kept", [b"", b"\n", b"nothing", shown(FIRST, 4).checkpoint[:-20], b"not a checkpoint\n\n\xe2\x80\x94 x AAAAAAA=\n"]
)
def test_what_cannot_be_read_is_an_error_and_never_taken_for_nothing(kept):
    memory = ForgetfulMemory()
    memory._note = kept
    trust = LogTrust(NO_WITNESSES, memory)
    with pytest.raises(StoreError, match="cannot be read"):
        trust.seen()
    with pytest.raises(StoreError, match="cannot be read"):
        trust.remember(shown(FIRST, 4))
    evidence = shown(FIRST, 4)
    with pytest.raises(StoreError, match="cannot be read"):
        trust.accept(Seen(None), view_of(FIRST, evidence), evidence, ())
    assert memory.load() == kept
