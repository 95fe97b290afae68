"""The rules of a witness: which checkpoints it cosigns, and what it answers to the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.crypto.notes import Witnessed, cosign, open_checkpoint
from secagg.runtime.memory import MemoryWitnessState
from secagg.runtime.ports import StoreError, VersionConflictError
from secagg.runtime.witness import CLOCK_TOLERANCE_S, SIZE_TYPE, Outcome, Response, Witness, origin_hash
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteError, NoteSignature, parse_signatures
from secagg.transcript.witness_request import AddCheckpoint
from tests.support.witnessed_log import NOW_S, ORIGIN, FixedClock, History, key_of

LOG = History.of(20)
NAME = "witness.example/w1"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def state() -> MemoryWitnessState:
    return MemoryWitnessState()


@pytest.fixture
def witness(state: MemoryWitnessState, clock: FixedClock) -> Witness:
    return witness_of(state, clock)


def witness_of(state: MemoryWitnessState, clock: FixedClock) -> Witness:
    return Witness(NAME, key_of("w1"), [LOG.key, History.of(1, "other.example").key], state, clock)


def cosigned(witness: Witness, history: History, size: int, response: Response) -> Witnessed:
    """What the cosignature in a response vouches for; it must be for that very checkpoint."""
    assert response.outcome is Outcome.COSIGNED, response
    assert response.status == 200
    note = Note.parse(history.note(size)).with_signatures(parse_signatures(response.body))
    witnessed = open_checkpoint(note.to_bytes(), history.key, [witness.verifier_key])
    assert witnessed.public_keys == {witness.verifier_key.public_key}
    assert witnessed.checkpoint == history.checkpoint(size)
    return witnessed


def test_a_log_is_cosigned_from_its_first_checkpoint_on(witness, clock):
    for old, new in [(0, 3), (3, 4), (4, 16), (16, 20)]:
        witnessed = cosigned(witness, LOG, new, witness.add_checkpoint(LOG.request(old, new)))
        assert witnessed.cosigned[0].timestamp_s == clock.now_s()
        clock.time_s += 7


def test_the_empty_log_is_cosigned_and_grows(witness):
    cosigned(witness, LOG, 0, witness.add_checkpoint(LOG.request(0, 0)))
    cosigned(witness, LOG, 0, witness.add_checkpoint(LOG.request(0, 0)))
    cosigned(witness, LOG, 5, witness.add_checkpoint(LOG.request(0, 5)))


def test_an_empty_log_has_one_root(witness):
    note = signed(Checkpoint(ORIGIN, 0, bytes(32)))
    assert witness.add_checkpoint(AddCheckpoint(0, (), note).to_bytes()).outcome is Outcome.BAD_PROOF
    assert witness.checkpoint(origin_hash(ORIGIN)).status == 404


def test_the_same_checkpoint_is_cosigned_again_at_the_time_of_asking(witness, clock):
    witness.add_checkpoint(LOG.request(0, 5))
    clock.time_s += 1000
    again = cosigned(witness, LOG, 5, witness.add_checkpoint(LOG.request(5, 5)))
    assert again.cosigned[0].timestamp_s == NOW_S + 1000


def test_logs_are_independent_of_each_other(witness):
    other = History.of(9, "other.example")
    witness.add_checkpoint(LOG.request(0, 5))
    cosigned(witness, other, 9, witness.add_checkpoint(other.request(0, 9)))
    cosigned(witness, LOG, 6, witness.add_checkpoint(LOG.request(5, 6)))


# Refusals, in the order of the text.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 00\n\n" + LOG.note(3),
        b"old -1\n\n" + LOG.note(3),
        b"old 9223372036854775808\n\n" + LOG.note(3),
        b"old 0\n\n" + LOG.note(3) + b"\n",
        b"old 0\nnot base64\n\n" + LOG.note(3),
        b"old 0\n" + b"AAAA\n" + b"\n" + LOG.note(3),
        b"old 0\n\n" + LOG.note(3)[:-1],
        LOG.request(0, 3) * 2000,
        b"\xff" * 100,
    ],
    ids=range(11),
)
def test_what_is_no_request_is_refused_as_malformed(witness, body):
    response = witness.add_checkpoint(body)
    assert (response.outcome, response.status) == (Outcome.MALFORMED, 400)


def test_an_unknown_log_is_not_found(witness):
    response = witness.add_checkpoint(History.of(3, "unknown.example").request(0, 3))
    assert (response.outcome, response.status) == (Outcome.UNKNOWN_ORIGIN, 404)


def test_a_checkpoint_that_the_log_did_not_sign_is_forbidden_whatever_its_sizes(witness):
    stranger = History(LOG.entries, ORIGIN, "stranger")
    for old, new in [(0, 3), (5, 3), (9, 12)]:
        request = AddCheckpoint(old, (), stranger.note(new)).to_bytes()
        response = witness.add_checkpoint(request)
        assert (response.outcome, response.status) == (Outcome.BAD_LOG_SIGNATURE, 403)


def test_a_signature_of_the_log_over_another_checkpoint_is_forbidden(witness):
    line = Note.parse(LOG.note(3)).signatures[0]
    request = AddCheckpoint(0, (), Note(LOG.checkpoint(4).to_text(), (line,)).to_bytes()).to_bytes()
    assert witness.add_checkpoint(request).outcome is Outcome.BAD_LOG_SIGNATURE


def test_an_old_size_above_the_new_one_is_a_bad_request_even_where_it_is_the_last_size(witness):
    witness.add_checkpoint(LOG.request(0, 5))
    response = witness.add_checkpoint(AddCheckpoint(5, (), LOG.note(3)).to_bytes())
    assert (response.outcome, response.status) == (Outcome.OLD_ABOVE_NEW, 400)


@pytest.mark.parametrize(("old", "new"), [(0, 7), (4, 7), (6, 7), (0, 5), (3, 4), (0, 3)])
def test_another_old_size_is_a_conflict_that_names_the_last_one(witness, old, new):
    witness.add_checkpoint(LOG.request(0, 5))
    response = witness.add_checkpoint(LOG.request(old, new))
    assert (response.outcome, response.status) == (Outcome.OTHER_SIZE, 409)
    assert (response.body, response.content_type) == (b"5\n", SIZE_TYPE)


def test_a_witness_that_has_seen_nothing_names_size_zero(witness):
    assert witness.add_checkpoint(LOG.request(4, 7)).body == b"0\n"


def test_another_root_for_the_same_size_is_a_fork(witness):
    witness.add_checkpoint(LOG.request(0, 5))
    response = witness.add_checkpoint(LOG.fork(2).request(5, 5))
    assert (response.outcome, response.status) == (Outcome.FORK, 422)
    assert witness.checkpoint(origin_hash(ORIGIN)).body.startswith(LOG.checkpoint(5).to_text().encode())


def test_a_fork_that_grows_is_refused_with_either_history_s_proof(witness):
    witness.add_checkpoint(LOG.request(0, 5))
    fork = LOG.fork(2)
    for proof in (LOG.proof(5, 9), fork.proof(5, 9), (), (bytes(32),) * 4):
        response = witness.add_checkpoint(AddCheckpoint(5, proof, fork.note(9)).to_bytes())
        assert (response.outcome, response.status) == (Outcome.BAD_PROOF, 422)
    cosigned(witness, LOG, 9, witness.add_checkpoint(LOG.request(5, 9)))


def test_a_proof_where_none_is_needed_is_refused(witness):
    request = AddCheckpoint(0, (bytes(32),), LOG.note(5)).to_bytes()
    assert witness.add_checkpoint(request).outcome is Outcome.BAD_PROOF
    witness.add_checkpoint(LOG.request(0, 5))
    request = AddCheckpoint(5, (bytes(32),), LOG.note(5)).to_bytes()
    assert witness.add_checkpoint(request).outcome is Outcome.BAD_PROOF


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0, 1]), st.integers(0, 12), st.integers(0, 12)),
        min_size=1,
        max_size=25,
    )
)
def test_no_order_of_requests_gets_two_roots_of_one_size_or_an_older_size_cosigned(requests):
    histories = [History.of(12), History.of(12).fork(3)]
    witness = witness_of(MemoryWitnessState(), FixedClock())
    signed: list[Checkpoint] = []
    for follow, branch, drawn, new in requests:
        history = histories[branch]
        # Half of the draws are plausible: they begin where the witness stands.
        old = min(signed[-1].size if follow and signed else drawn, new)
        if witness.add_checkpoint(history.request(old, new)).outcome is Outcome.COSIGNED:
            signed.append(history.checkpoint(new))
    sizes = [checkpoint.size for checkpoint in signed]
    assert sizes == sorted(sizes)
    assert len({(checkpoint.size, checkpoint.root) for checkpoint in signed}) == len(set(sizes))
    # Every one is a prefix of the last, in one of the two histories.
    assert any(all(checkpoint == history.checkpoint(checkpoint.size) for checkpoint in signed) for history in histories)


# State and time.


class Losing(MemoryWitnessState):
    """Before a write takes place, somebody else's does, so often."""

    def __init__(self, others: Iterator[bytes]) -> None:
        super().__init__()
        self._others = others

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        for other in self._others:
            super().advance(origin, self.latest(origin), other)
            break
        super().advance(origin, expected, new)


def kept_note(history: History, size: int, time_s: int = NOW_S) -> bytes:
    note = Note.parse(history.note(size))
    return note.with_signatures([cosign(key_of("w1"), NAME, note.text, time_s)]).to_bytes()


def test_who_loses_a_race_against_a_fork_gets_nothing_signed(clock):
    witness = witness_of(Losing(iter([kept_note(LOG.fork(1), 5)])), clock)
    assert witness.add_checkpoint(LOG.request(0, 5)).body == b"5\n"
    assert witness.add_checkpoint(LOG.request(5, 5)).outcome is Outcome.FORK


def test_who_loses_a_race_against_the_same_checkpoint_is_served_all_the_same(clock):
    state = Losing(iter([kept_note(LOG, 5, NOW_S + 3)]))
    MemoryWitnessState.advance(state, ORIGIN, None, kept_note(LOG, 5))
    witness = witness_of(state, clock)
    again = cosigned(witness, LOG, 5, witness.add_checkpoint(LOG.request(5, 5)))
    assert again.cosigned[0].timestamp_s == NOW_S + 3


def test_who_loses_every_race_gets_the_size_that_won(clock):
    state = Losing(iter(kept_note(LOG, 5, NOW_S + second) for second in range(1, 100)))
    MemoryWitnessState.advance(state, ORIGIN, None, kept_note(LOG, 5))
    response = witness_of(state, clock).add_checkpoint(LOG.request(5, 6))
    assert (response.outcome, response.body) == (Outcome.OTHER_SIZE, b"5\n")


class Failing(MemoryWitnessState):
    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        raise StoreError("the disk is full")


def test_nothing_is_signed_that_could_not_be_kept(clock):
    witness = witness_of(Failing(), clock)
    with pytest.raises(StoreError):
        witness.add_checkpoint(LOG.request(0, 5))


def test_the_note_is_kept_before_it_is_answered_and_holds_no_stranger_s_line(witness, state):
    line = NoteSignature("stranger", b"abcd", b"x")
    note = Note.parse(LOG.note(5)).with_signatures([line]).to_bytes()
    response = witness.add_checkpoint(AddCheckpoint(0, (), note).to_bytes())
    kept = Note.parse(state.latest(ORIGIN))
    assert kept.signatures == (Note.parse(LOG.note(5)).signatures[0], *parse_signatures(response.body))


def test_the_time_of_a_log_s_cosignatures_never_decreases(witness, clock):
    witness.add_checkpoint(LOG.request(0, 5))
    clock.time_s = NOW_S - CLOCK_TOLERANCE_S
    witnessed = cosigned(witness, LOG, 6, witness.add_checkpoint(LOG.request(5, 6)))
    assert witnessed.cosigned[0].timestamp_s == NOW_S


def test_a_clock_far_behind_the_last_cosignature_is_not_used(witness, clock):
    witness.add_checkpoint(LOG.request(0, 5))
    clock.time_s = NOW_S - CLOCK_TOLERANCE_S - 1
    response = witness.add_checkpoint(LOG.request(5, 6))
    assert (response.outcome, response.status) == (Outcome.CLOCK_BEHIND, 503)
    clock.time_s = NOW_S
    cosigned(witness, LOG, 6, witness.add_checkpoint(LOG.request(5, 6)))


def test_a_clock_that_was_never_set_is_not_used(witness, clock):
    clock.time_s = 0
    assert witness.add_checkpoint(LOG.request(0, 5)).outcome is Outcome.CLOCK_BEHIND


def test_a_restarted_witness_goes_on_where_it_was(state, clock):
    witness_of(state, clock).add_checkpoint(LOG.request(0, 5))
    witness = witness_of(state, clock)
    witness.check_state()
    assert witness.add_checkpoint(LOG.request(0, 5)).body == b"5\n"
    assert witness.add_checkpoint(LOG.fork(2).request(5, 5)).outcome is Outcome.FORK
    cosigned(witness, LOG, 8, witness.add_checkpoint(LOG.request(5, 8)))


def signed(checkpoint: Checkpoint, signer: str = "log") -> bytes:
    text = checkpoint.to_text()
    line = NoteSignature(ORIGIN, LOG.key.key_id, key_of(signer).sign_note_text(text.encode()))
    return Note(text, (line,)).to_bytes()


def _other_witness() -> bytes:
    note = Note.parse(LOG.note(5))
    return note.with_signatures([cosign(key_of("w2"), NAME, note.text, NOW_S)]).to_bytes()


def _other_log() -> bytes:
    note = Note.parse(History.of(5, "other.example").note(5))
    return note.with_signatures([cosign(key_of("w1"), NAME, note.text, NOW_S)]).to_bytes()


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        LOG.note(5),
        kept_note(LOG, 5).replace(b"\n5\n", b"\n3\n", 1),
        kept_note(LOG, 5)[:-1],
        _other_witness(),
        _other_log(),
    ],
    ids=["empty", "not cosigned", "another size", "cut off", "another witness", "another log"],
)
def test_a_state_that_this_witness_did_not_sign_is_refused_and_never_taken_for_none(state, clock, kept):
    state.advance(ORIGIN, None, kept)
    witness = witness_of(state, clock)
    with pytest.raises(StoreError):
        witness.check_state()
    for request in (LOG.request(0, 5), LOG.request(5, 6), LOG.request(3, 5)):
        with pytest.raises(StoreError):
            witness.add_checkpoint(request)
    assert state.latest(ORIGIN) == kept


# Monitoring.


def test_monitors_get_the_last_note_with_the_signatures_of_log_and_witness(witness):
    path = hashlib.sha256(ORIGIN.encode()).hexdigest()
    assert witness.checkpoint(path).status == 404
    witness.add_checkpoint(LOG.request(0, 5))
    response = witness.add_checkpoint(LOG.request(5, 8))
    shown = witness.checkpoint(path)
    assert (shown.status, shown.body) == (200, LOG.note(8) + response.body)
    assert witness.checkpoint("0" * 64).status == 404


# Construction.


def test_an_origin_has_one_key(state, clock):
    with pytest.raises(ValueError, match="two keys"):
        Witness(NAME, key_of("w1"), [LOG.key, History((), ORIGIN, "stranger").key], state, clock)


def test_a_witness_s_key_is_no_log_s_key(state, clock):
    witness = witness_of(state, clock)
    with pytest.raises(ValueError, match="sign checkpoints"):
        Witness(NAME, key_of("w1"), [witness.verifier_key], state, clock)


def test_a_name_that_cannot_stand_on_a_line_is_refused(state, clock):
    with pytest.raises(NoteError):
        Witness("two words", key_of("w1"), [], state, clock)


def test_the_memory_state_compares_before_it_sets(state):
    state.advance(ORIGIN, None, b"first")
    with pytest.raises(VersionConflictError):
        state.advance(ORIGIN, None, b"second")
    with pytest.raises(VersionConflictError):
        state.advance(ORIGIN, b"third", b"second")
    assert state.latest(ORIGIN) == b"first"
