"""SES, ELG, CON of one-shot sessions: every way to break one of these checks alone."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from fractions import Fraction

import pytest

from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.derive.openers import member_of
from secagg.transcript.encoding import Flattening, NoFlattening
from secagg.transcript.entries import SessionClose, decode_entry
from secagg.transcript.openers import MemberKeys, NamedMembers, PreparedKey, SummedCiphertext
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Accepted, Attestation, Dropped, Rejected
from tests.support.forge import key_of
from tests.support.forge_one_shot import (
    AUTHORITY_PLAN,
    COMMITTEE_PLAN,
    attestor_keys,
    context_of,
    member_key,
    ring_encoding,
)
from tests.support.forge_one_shot_record import OneShotRecord, write_one_shot_record
from tests.support.one_shot_record_rules import broken_rules, files_of
from tests.unit.verifier.one_shot_edits import (
    DAMAGES,
    changed,
    damaged,
    failing_after,
    found_of,
    other_file,
    resigned,
    set_fields,
    unsigned,
    without,
)
from tests.unit.verifier.session_checks import IDLE, audit_of, checked, failing, reason, unclean
from verifier.checks import Level, Mode, Stage, Status
from verifier.run import run_audit

FIRST, SECOND, REJECTED, DROPPED = 1, 2, 5, 9
"""Positions in the roster of the session with the committee."""
ROSTER_SIZE = 13


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return write_one_shot_record(tmp_path_factory.mktemp("one-shot"))


def with_policy(written, old, new):
    text = written.policy.read_text()
    assert old in text
    written.policy.write_text(text.replace(old, new))
    return written


# The frame


@pytest.mark.parametrize("level", Level)
def test_an_honest_record_is_clean_at_every_level(honest, level):
    assert unclean(checked(honest, level)) == {}


def test_the_files_of_every_entry_are_as_the_documentation_says(honest):
    found = []
    for session in honest.forge.sessions:
        directory = honest.record / "sessions" / session.session_id.hex()

        def read(name, directory=directory):
            return (directory / name).read_bytes() if (directory / name).exists() else None

        entries = [decode_entry(entry) for entry in honest.forge.entries]
        own = [entry for entry in entries if getattr(entry, "session", b"") == session.session_id]
        assert [name for entry in own for name in broken_rules(entry, session.parameters, read)] == []
        names = {name for entry in own for name in files_of(entry, session.parameters, read)}
        assert names == {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
        found.append(len(names))
    assert found == [12, 20, 3]


def test_the_sessions_are_of_the_modes_and_stages_that_they_should_be(honest):
    sessions = run_audit(audit_of(honest, Level.SUM)).sessions
    assert [(each.mode, each.stage) for each in sessions] == [
        (Mode.COMMITTEE, Stage.FINISHED),
        (Mode.AUTHORITY, Stage.FINISHED),
        (Mode.COMMITTEE, Stage.OPENED),
    ]


def test_checks_of_another_mode_neither_pass_nor_fail(honest):
    found = checked(honest, Level.FULL)
    for identifier in ("SES-4", "CON-4", "OPN-1", "OPN-2", "OPN-4", "OPN-5"):
        assert found[identifier].status is Status.NOT_APPLICABLE
        assert found[identifier].examined == 0
    report = run_audit(audit_of(honest, Level.FULL), {honest.forge.main.session_id})
    alone = {each.check.identifier: each.status for each in report.checks}
    assert report.verdict.exit_code == 0
    for identifier in ("SES-10", "SUM-7", "SUM-8", "OPN-8", "OPN-9"):
        assert alone[identifier] is Status.NOT_APPLICABLE
    assert alone["OPN-6"] is alone["OPN-7"] is alone["OPN-10"] is Status.PASS


def test_every_check_of_a_mode_examines_its_session(honest):
    for session, mode in ((honest.forge.main, Mode.COMMITTEE), (honest.forge.authority, Mode.AUTHORITY)):
        report = run_audit(audit_of(honest, Level.FULL), {session.session_id})
        for each in report.checks:
            if each.check.family not in {"LOG", "RCP"} and each.check.identifier not in {"SES-1", "SES-2"} | IDLE:
                assert (each.status is Status.PASS) == (mode in each.check.modes), each.check.identifier
                assert (each.examined > 0) == (mode in each.check.modes), each.check.identifier


# SES-1


def test_ses_1_fails_for_a_vector_that_is_too_long_for_ring_masks(tmp_path):
    """It fits the encoding, and no mask: the entry is refused, and nothing is raised."""
    opened = OneShotRecord().main.open()
    encoding = replace(opened.encoding, dimension=2**31, value_bits=32, max_contributors=3, flatten=NoFlattening())
    with pytest.raises(RecordError, match="lanes"):
        replace(opened, encoding=replace(encoding, usable_bits=40))
    forge = OneShotRecord().run()
    text = f'"dimension":{2**31}'.encode()
    entries = [
        entry.replace(b'"dimension":60', text, 1).replace(b'"value_bits":15', b'"value_bits":32')
        for entry in forge.entries
    ]
    forge.entries = entries
    assert failing(checked(forge.write(tmp_path), Level.SUM)) == ["SES-1"]


# SES-2


def test_ses_2_fails_for_a_close_of_the_other_protocol(tmp_path):
    forge = OneShotRecord().run()
    ours = forge.main.closing
    theirs = SessionClose(*(getattr(ours, each.name) for each in fields(SessionClose)))
    forge.entries = [theirs.to_bytes() if entry == ours.to_bytes() else entry for entry in forge.entries]
    del forge.main.closing
    found = checked(forge.write(tmp_path), Level.SUM)
    assert failing(found) == ["SES-2"]
    assert "open committee, close, one shot result" in reason(found, "SES-2")


@pytest.mark.parametrize("name", ["closing", "committed", "finished"])
def test_ses_2_fails_for_a_second_entry_of_any_kind(tmp_path, name):
    def twice(entries, forge):
        return [*entries, getattr(forge.authority, name).to_bytes()]

    assert failing_after(tmp_path, entries=twice) == ["SES-2"]


def test_ses_2_fails_for_a_close_with_an_authority_that_nothing_was_committed_to(tmp_path):
    def left_out(entries, forge):
        return [entry for entry in entries if entry != forge.authority.committed.to_bytes()]

    assert failing_after(tmp_path, entries=left_out) == ["SES-2"]


# SES-3


@pytest.mark.parametrize(("most", "cohort"), [(16, 13), (13, 13), (12, 12)])
@pytest.mark.parametrize("session", ["main", "authority"])
def test_ses_3_asks_for_the_fraction_of_the_most_that_may_contribute(tmp_path, session, most, cohort):
    """Of thirteen in the roster, or as many as there may be: the coordinator chooses who of them is in the sum."""
    encoding = ring_encoding(60, most)
    plans = (replace(plan, encoding=encoding) for plan in (COMMITTEE_PLAN, AUTHORITY_PLAN))
    forge = OneShotRecord(None, *plans)
    steps = ["open", "commit", "close", "result"] if session == "authority" else ["open", "close", "result"]
    written = forge.play(getattr(forge, session), *steps).write(tmp_path)
    written.receipt.unlink(missing_ok=True)
    assert failing(checked(with_policy(written, '"1/20"', f'"1/{cohort}"'), Level.SUM)) == []
    found = checked(with_policy(written, f'"1/{cohort}"', f'"1/{cohort - 1}"'), Level.SUM)
    assert failing(found) == ["SES-3"]
    assert f"1 of {cohort}, the policy asks for a fraction of 1/{cohort - 1}" in reason(found, "SES-3")


# SES-5


@pytest.mark.parametrize(
    ("edits", "file"),
    [
        ({"headers": resigned(FIRST, session=bytes(32))}, "contributions.jsonl"),
        ({"authority_headers": resigned(10, session=bytes(32))}, "commitments.jsonl"),
    ],
)
def test_ses_5_fails_for_a_header_of_another_session(tmp_path, edits, file):
    found = found_of(tmp_path, **edits)
    assert failing(found) == ["SES-5"]
    assert found["SES-5"].failures[0].place.file.endswith(file)


@pytest.mark.parametrize(
    ("edits", "file"),
    [
        ({"headers": resigned(FIRST, opened_at=7)}, "contributions.jsonl"),
        ({"authority_headers": resigned(10, opened_at=7)}, "commitments.jsonl"),
    ],
)
def test_ses_5_fails_for_a_header_of_another_copy_of_the_open_entry(tmp_path, edits, file):
    found = found_of(tmp_path, **edits)
    assert failing(found) == ["SES-5"]
    place = found["SES-5"].failures[0].place
    assert (place.file.endswith(file), place.field) == (True, "statement.opened_at")


# SES-6


@pytest.mark.parametrize("level", [Level.META, Level.PREOPEN, Level.SUM])
@pytest.mark.parametrize(
    ("session", "steps"),
    [
        ("main", ["open"]),
        ("main", ["open", "close"]),
        ("main", ["open", "close", "result"]),
        ("main", ["open", "close", "abort"]),
        ("authority", ["open", "commit"]),
        ("authority", ["open", "commit", "close"]),
        ("authority", ["open", "commit", "abort"]),
        ("authority", ["open", "commit", "close", "result"]),
    ],
)
def test_ses_6_lets_only_a_session_pass_that_has_come_to_an_end(tmp_path, session, steps, level):
    forge = OneShotRecord()
    written = forge.play(getattr(forge, session), *steps).write(tmp_path)
    written.receipt.unlink(missing_ok=True)
    found = checked(written, level)
    enough = steps[-1] in {"result", "abort"} or (steps[-1] == "close" and level is Level.PREOPEN)
    assert unclean(found) == ({} if enough else {"SES-6": Status.UNAVAILABLE})


@pytest.mark.parametrize(
    ("session", "steps", "name"),
    [
        ("main", ["open"], "contributions.jsonl"),
        ("main", ["open", "close"], "secret-sum.bin"),
        ("main", ["open", "close"], "openings.jsonl"),
        ("authority", ["open"], "commitments.jsonl"),
        ("authority", ["open", "commit"], "ciphertext-sum.bin"),
        ("authority", ["open", "commit"], "ciphertexts/00.bin"),
        ("authority", ["open", "commit", "close"], "attestations.jsonl"),
    ],
)
def test_ses_6_fails_for_a_file_of_a_step_that_an_aborted_session_did_not_come_to(tmp_path, session, steps, name):
    edits = {f"{session}.files": lambda files, _: files | {name: b""}}
    forge = OneShotRecord(edits)
    written = forge.play(getattr(forge, session), *steps, "abort").write(tmp_path)
    written.receipt.unlink(missing_ok=True)
    assert failing(checked(written, Level.SUM)) == ["SES-6"]


# SES-8


def unpinned(written, key):
    return with_policy(written, key.public_bytes.hex(), key_of("somebody else").public_bytes.hex())


def test_ses_8_takes_as_many_unknown_members_as_may_be_corrupt_and_no_more(tmp_path):
    written = write_one_shot_record(tmp_path)
    assert member_key(3).public_bytes.hex() not in written.policy.read_text()
    found = checked(unpinned(written, member_key(0)), Level.SUM)
    assert failing(found) == ["SES-8"]
    # Of the session with the committee and of the one that was aborted.
    assert found["SES-8"].failed == 2
    assert "2 of 4 members are not pinned, or did not sign" in reason(found, "SES-8")
    assert "at most 1 may be corrupt" in reason(found, "SES-8")


COORDINATORS = SealingKey(Secret(b"coordinator's sealing key".ljust(32))).public_bytes
"""A key that the coordinator can open boxes with."""


def with_members(*changes):
    """An edit of the committee: of each place in turn, a member made from the honest one, or that one itself."""

    def apply(committee, _):
        members = [change(member) for change, member in zip(changes, committee.members, strict=True)]
        return replace(committee, members=tuple(members))

    return apply


def itself(member):
    return member


def under_the_coordinators_key(member):
    return replace(member, sealing_key=COORDINATORS)


def under_the_coordinators_key_and_signature(member):
    """The coordinator says for itself what the member did not."""
    keys = MemberKeys(member.identity, COORDINATORS)
    return replace(member, sealing_key=COORDINATORS, binding=key_of("coordinator").sign_statement(keys.to_bytes()))


def bound_by_the_member_of_place_1(member):
    return replace(member, binding=member_of(member.name, member_key(1), member.sealing_key).binding)


def unbound(member):
    return replace(member, binding=bytes(64))


@pytest.mark.parametrize(
    "change",
    [
        under_the_coordinators_key,
        under_the_coordinators_key_and_signature,
        bound_by_the_member_of_place_1,
        unbound,
    ],
)
@pytest.mark.parametrize("name", ["opening", "aborted_opening"])
def test_ses_8_counts_a_pinned_member_that_did_not_sign_its_sealing_key_as_unknown(tmp_path, name, change):
    """Everything else of the record agrees: the members answer, and what they answer opens the sum."""
    found = found_of(tmp_path, **{name: with_members(change, itself, itself, itself)})
    assert failing(found) == ["SES-8"]
    assert found["SES-8"].failed == 1
    assert "2 of 4 members are not pinned, or did not sign" in reason(found, "SES-8")


def test_ses_8_takes_an_unbound_member_in_the_place_of_the_unknown_one_and_counts_nobody_twice(tmp_path):
    exchanged = with_members(itself, itself, itself, under_the_coordinators_key)
    assert failing_after(tmp_path / "unknown", opening=exchanged) == []
    exchanged = with_members(under_the_coordinators_key, itself, itself, itself)
    written = write_one_shot_record(tmp_path / "another unknown", {"opening": exchanged})
    written = with_policy(written, member_key(0).public_bytes.hex(), member_key(3).public_bytes.hex())
    assert failing(checked(written, Level.SUM)) == []


def prepared_by(key, **fields):
    """An edit of the authority: the signature of some key over what the authority should have signed, or nearly."""

    def apply(authority, session):
        coordinator = session.around.coordinator.public_bytes
        prepared = PreparedKey(session.session_id, coordinator, authority.identity, authority.context)
        signature = key_of(key).sign_statement(replace(prepared, **fields).to_bytes())
        return replace(authority, prepared=signature)

    return apply


@pytest.mark.parametrize(
    "edit",
    [
        prepared_by("another authority"),
        prepared_by("another authority", identity=key_of("another authority").public_bytes),
        prepared_by("authority", session=bytes(16)),
        prepared_by("authority", coordinator=bytes(32)),
        prepared_by("authority", context=bytes(32)),
        set_fields(prepared=bytes(64)),
    ],
    ids=["another authority", "about itself", "another session", "another coordinator", "another context", "nobody"],
)
def test_ses_8_fails_for_a_context_that_the_pinned_authority_did_not_sign_for_this_session(tmp_path, edit):
    found = found_of(tmp_path, authority_opening=edit)
    assert failing(found) == ["SES-8"]
    assert "did not sign that it made this context" in reason(found, "SES-8")


def test_ses_8_fails_for_a_context_of_the_coordinators_own_beside_the_name_of_the_authority(tmp_path):
    """Its digest is the logged one, and it is a public key: nothing else shows whose."""
    theirs = context_of("coordinator")
    found = found_of(
        tmp_path,
        authority_opening=set_fields(context=hashlib.sha256(theirs).digest()),
        authority_files=lambda files, _: files | {"context.bin": theirs},
    )
    assert failing(found) == ["SES-8"]


def test_ses_8_fails_for_an_authority_that_the_policy_does_not_pin(tmp_path):
    found = checked(unpinned(write_one_shot_record(tmp_path), key_of("authority")), Level.SUM)
    assert failing(found) == ["SES-8"]
    assert "does not pin the key authority" in reason(found, "SES-8")


def test_ses_8_fails_where_attestors_that_nobody_knows_are_enough(tmp_path):
    written = write_one_shot_record(tmp_path)
    assert attestor_keys()[2].public_bytes.hex() not in written.policy.read_text()
    found = checked(unpinned(written, attestor_keys()[0]), Level.SUM)
    assert failing(found) == ["SES-8"]
    assert "2 of 3 attestors are not pinned, and 2 attestations are enough" in reason(found, "SES-8")


def test_ses_8_fails_for_every_one_shot_session_under_a_policy_that_pins_nobody(tmp_path):
    written = write_one_shot_record(tmp_path)
    written.policy.write_text(written.policy.read_text().split("[openers]")[0])
    found = checked(written, Level.META)
    assert failing(found) == ["SES-8"]
    # The authority's session in two ways: by its key and by its attestors.
    assert found["SES-8"].failed == 4


# SES-9


@pytest.mark.parametrize("damage", DAMAGES)
def test_ses_9_fails_for_commitments_that_are_not_the_logged_ones(tmp_path, damage):
    assert failing_after(tmp_path, authority_files=damaged("commitments.jsonl", damage)) == ["SES-9"]


@pytest.mark.parametrize(
    "edits",
    [
        {"authority_committed": set_fields(root=bytes(32))},
        {"authority_committed": set_fields(count=7)},
        {"authority_commitments": lambda leaves, _: [leaves[1], leaves[0], *leaves[2:]]},
        {"authority_commitments": lambda leaves, forge: [attestation(forge), *leaves[1:]]},
        {"authority_open": set_fields(min_contributors=5)},
        {"open": set_fields(min_contributors=6)},
        {"open": set_fields(encoding=ring_encoding(60, 4))},
        {"authority_open": set_fields(encoding=ring_encoding(60, 5))},
        {"result": set_fields(count=4)},
        {"aborted_abort": set_fields(answers=1)},
        {"close": set_fields(opener=SummedCiphertext(bytes(32)))},
        {"authority_close": set_fields(opener=NamedMembers((0, 1, 2)))},
        {"close": set_fields(opener=NamedMembers((0, 1)))},
        {"close": set_fields(opener=NamedMembers((0, 1, 2, 4)))},
        {"close": set_fields(opener=NamedMembers(()))},
    ],
    ids=[
        "another root of commitments",
        "another number of commitments",
        "commitments out of order",
        "another statement",
        "fewer contributors than there have to be (authority)",
        "fewer contributors than there have to be (committee)",
        "more contributors than there can be",
        "more commitments than there can be",
        "another count in the result",
        "answers before a close",
        "a ciphertext where a committee opens",
        "members where an authority opens",
        "too few members",
        "a member that does not exist",
        "no members",
    ],
)
def test_ses_9_fails_for_sets_that_are_not_what_they_should_be(tmp_path, edits):
    assert failing_after(tmp_path, **edits) == ["SES-9"]


def attestation(forge):
    """A signed statement of another kind, by somebody who committed."""
    return forge.signed(0, statement_of_another_kind(forge))


def statement_of_another_kind(forge):
    return Attestation(forge.digest, bytes(32), forge.around.identities[0].public_bytes, bytes(32))


def test_ses_9_fails_for_a_contribution_that_is_not_what_was_committed_to(tmp_path):
    """A corrupt client sees what others send, and then exchanges what it had committed to for something that fits."""

    def exchanged(commitments, forge):
        header = replace(forge.headers[0], upload=bytes(32))
        return [forge.signed(0, header), *commitments[1:]]

    found = found_of(tmp_path, authority_commitments=exchanged)
    assert failing(found) == ["SES-9"]
    assert "not what its identity had committed to" in reason(found, "SES-9")
    assert found["SUM-1"].status is found["SUM-7"].status is Status.UNAVAILABLE


@pytest.mark.parametrize(("answers", "fails"), [(4, []), (5, ["SES-9"])])
def test_ses_9_counts_no_more_answers_before_an_abort_than_members_were_named(tmp_path, answers, fails):
    forge = OneShotRecord({"abort": set_fields(answers=answers)})
    written = forge.play(forge.main, "open", "close", "abort").write(tmp_path)
    written.receipt.unlink()
    assert failing(checked(written, Level.SUM)) == fails


# SES-10


@pytest.mark.parametrize("position", [0, 15, 16, 40_000, -1])
def test_ses_10_fails_for_another_context_than_the_open_entry_names(tmp_path, position):
    def flip(data):
        changed_data = bytearray(data)
        changed_data[position] ^= 1
        return bytes(changed_data)

    found = found_of(tmp_path, authority_files=other_file("context.bin", flip))
    assert failing(found) == ["SES-10"]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_ses_10_fails_for_a_context_of_another_length(tmp_path, change):
    assert failing_after(tmp_path, authority_files=other_file("context.bin", change)) == ["SES-10"]


def test_ses_10_fails_for_a_logged_context_that_is_no_public_key(tmp_path):
    broken = b"no public key of any kind".ljust(len(context_of("any")), b"\0")

    edits = {
        "authority_opening": lambda _, session: session.authority(broken),
        "authority_files": lambda files, _: files | {"context.bin": broken},
    }
    assert failing_after(tmp_path, **edits) == ["SES-10"]


# Files that are not there


@pytest.mark.parametrize(
    "name",
    [
        "roster.jsonl",
        "layout.json",
        "adapter.json",
        "dispositions.jsonl",
        "contributions.jsonl",
        "linear-hashes.bin",
        "masked-limb-sum.bin",
        "openings.jsonl",
        "secret-sum.bin",
        "integer-sum.bin",
    ],
)
def test_a_file_that_is_missing_leaves_the_verdict_open(tmp_path, name):
    found = found_of(tmp_path, files=without(name))
    assert failing(found) == []
    assert Status.UNAVAILABLE in unclean(found).values()


@pytest.mark.parametrize("name", ["commitments.jsonl", "context.bin", "ciphertext-sum.bin", "attestations.jsonl"])
def test_a_file_of_the_authority_that_is_missing_leaves_the_verdict_open(tmp_path, name):
    found = found_of(tmp_path, authority_files=without(name))
    assert failing(found) == []
    assert Status.UNAVAILABLE in unclean(found).values()


# ELG-1


def exchanged_member(position):
    """An edit of the roster: in the place of one member stands somebody else, whose identity is the next number."""

    def apply(members, _):
        other = (int.from_bytes(members[position].identity, "big") + 1).to_bytes(32, "big")
        return [*members[:position], replace(members[position], identity=other), *members[position + 1 :]]

    return apply


@pytest.mark.parametrize("gone", [1, 2, 11])
def test_elg_1_fails_for_a_contributor_who_is_not_in_the_roster(tmp_path, gone):
    found = found_of(tmp_path, roster=exchanged_member(gone))
    assert failing(found) == ["ELG-1"]
    assert found["ELG-1"].failures[0].place.file.endswith("contributions.jsonl")
    assert found["ELG-1"].failures[0].place.line == COMMITTEE_PLAN.accepted.index(gone) + 1
    assert found["ELG-2"].status is Status.UNAVAILABLE


def test_elg_1_fails_for_somebody_who_only_committed_and_is_not_in_the_roster(tmp_path):
    found = found_of(tmp_path, roster=exchanged_member(10))
    assert failing(found) == ["ELG-1"]
    assert found["ELG-1"].failures[0].place.file.endswith("commitments.jsonl")


# ELG-2


def test_elg_2_fails_for_an_identity_at_another_place_than_its_own(tmp_path):
    found = found_of(tmp_path, dispositions=at_another_index(11, 12))
    assert failing(found) == ["ELG-2"]
    assert "at index 12, and number 11 of the roster" in reason(found, "ELG-2")


def at_another_index(index, other):
    def apply(leaves, _):
        return [replace(leaf, index=other) if leaf.index == index else leaf for leaf in leaves]

    return apply


def test_elg_2_fails_for_one_identity_that_contributes_twice(tmp_path):
    """The client signs two headers, and the coordinator counts one of them at the place of somebody who dropped."""

    def twice(leaves, forge):
        again = replace(forge.headers[DROPPED], identity=forge.headers[FIRST].identity)
        extra = Accepted(DROPPED, forge.signed(FIRST, again))
        return [extra if leaf.index == DROPPED else leaf for leaf in leaves]

    found = found_of(tmp_path, dispositions=twice)
    assert failing(found) == ["ELG-2"]


def test_elg_2_fails_for_one_identity_that_commits_twice(tmp_path):
    def twice(leaves, forge):
        last = forge.plan.signing[-1]
        other = {"upload": bytes(32), "linear_hash": bytes(32), "parts": (bytes(32),)}
        return [*leaves, forge.signed(last, replace(forge.headers[last], **other))]

    found = found_of(tmp_path, authority_commitments=twice, authority_dispositions=drop_last)
    assert failing(found) == ["ELG-2"]
    assert "again" in reason(found, "ELG-2")


def drop_last(dispositions, forge):
    last = forge.plan.signing[-1]
    return [Dropped(last, "masked-input") if leaf.index == last else leaf for leaf in dispositions]


# CON-1


@pytest.mark.parametrize(
    ("edits", "files"),
    [
        ({"contributions": unsigned(SECOND)}, ["contributions.jsonl"]),
        ({"authority_contributions": unsigned(6)}, ["commitments.jsonl"]),
        ({"authority_contributions": unsigned(3)}, ["commitments.jsonl", "contributions.jsonl"]),
    ],
)
def test_con_1_fails_for_a_header_that_its_client_did_not_sign(tmp_path, edits, files):
    found = found_of(tmp_path, **edits)
    assert failing(found) == ["CON-1"]
    assert [each.place.file.split("/")[-1] for each in found["CON-1"].failures] == files


@pytest.mark.parametrize(
    ("edits", "field"),
    [
        ({"headers": resigned(SECOND, lanes=8192)}, "statement.lanes"),
        ({"headers": resigned(SECOND, lanes=40)}, "statement.lanes"),
        ({"authority_headers": resigned(6, lanes=40)}, "statement.lanes"),
        ({"headers": changed(SECOND, lambda header, _: replace(header, parts=header.parts[:-1]))}, "statement.parts"),
        ({"headers": changed(SECOND, lambda header, _: replace(header, parts=()))}, "statement.parts"),
        ({"authority_headers": changed(6, lambda header, _: replace(header, parts=()))}, "statement.parts"),
        (
            {"authority_headers": changed(6, lambda header, _: replace(header, parts=(*header.parts, bytes(32))))},
            "statement.parts",
        ),
    ],
)
def test_con_1_fails_for_a_header_of_another_length_or_number_of_parts(tmp_path, edits, field):
    found = found_of(tmp_path, **edits)
    assert failing(found) == ["CON-1"]
    assert found["CON-1"].failures[0].place.field == field


# CON-2


@pytest.mark.parametrize("field", ["upload", "linear_hash"])
def test_con_2_fails_for_a_digest_that_is_there_twice(tmp_path, field):
    def copied(headers, _):
        return headers | {SECOND: replace(headers[SECOND], **{field: getattr(headers[FIRST], field)})}

    assert "CON-2" in failing_after(tmp_path, headers=copied)


@pytest.mark.parametrize(("mine", "theirs"), [(0, 0), (1, 3)])
def test_con_2_fails_for_a_sealed_part_that_two_contributions_have(tmp_path, mine, theirs):
    def copied(headers, _):
        parts = list(headers[SECOND].parts)
        parts[mine] = headers[FIRST].parts[theirs]
        return headers | {SECOND: replace(headers[SECOND], parts=tuple(parts))}

    found = found_of(tmp_path, headers=copied)
    assert failing(found) == ["CON-2"]
    assert f"statement.parts[{mine}]: the same as in line 1" in reason(found, "CON-2")


def test_con_2_fails_for_a_copy_that_was_committed_to_and_does_not_count(tmp_path):
    """Whoever commits to what another committed to has seen it, or works for who has."""

    def copied(headers, _):
        return headers | {10: replace(headers[10], parts=headers[0].parts)}

    found = found_of(tmp_path, authority_headers=copied)
    assert failing(found) == ["CON-2"]
    assert found["CON-2"].failures[0].place.file.endswith("commitments.jsonl")


def test_con_2_fails_for_a_sealed_part_that_one_contribution_has_twice(tmp_path):
    def copied(headers, _):
        parts = headers[FIRST].parts
        return headers | {FIRST: replace(headers[FIRST], parts=(parts[0], parts[0], *parts[2:]))}

    found = found_of(tmp_path, headers=copied)
    assert failing(found) == ["CON-2"]
    assert "the same part twice" in reason(found, "CON-2")


# CON-3


def relabelled(index, make):
    return lambda leaves, forge: [make(leaf, forge) if leaf.index == index else leaf for leaf in leaves]


@pytest.mark.parametrize(
    "edit",
    [
        relabelled(DROPPED, lambda leaf, _: Dropped(DROPPED, "share-keys")),
        lambda leaves, _: [leaves[1], leaves[0], *leaves[2:]],
        lambda leaves, _: [leaves[0], leaves[0], *leaves[1:]],
        lambda leaves, _: [*leaves[:4], leaves[3], *leaves[4:]],
        lambda leaves, _: [*leaves, Rejected(ROSTER_SIZE, "LATE")],
    ],
    ids=["in a phase that there is not", "out of order", "accepted twice", "rejected twice", "beyond the roster"],
)
def test_con_3_fails_for_dispositions_that_are_not_one_for_each_place(tmp_path, edit):
    assert failing_after(tmp_path, dispositions=edit) == ["CON-3"]


def test_con_3_fails_for_dispositions_with_another_reason_than_was_logged(tmp_path):
    edit = other_file("dispositions.jsonl", lambda data: data.replace(b"SHARE_NOT_HELD", b"SHARE_WAS_LATE"))
    found = found_of(tmp_path, files=edit)
    assert failing(found) == ["CON-3"]
    assert "another root" in reason(found, "CON-3")


def test_con_3_fails_for_an_accepted_statement_that_is_no_header(tmp_path):
    edit = relabelled(
        SECOND, lambda leaf, forge: Accepted(SECOND, forge.signed(SECOND, statement_of_another_kind(forge)))
    )
    assert failing_after(tmp_path, dispositions=edit) == ["CON-3"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda leaves, _: [leaf for leaf in leaves if leaf.index != 10], "index 10 committed and is left out"),
        (lambda leaves, _: [leaf for leaf in leaves if leaf.index != 6], "index 6 committed and is left out"),
        (lambda leaves, _: [leaves[0], Rejected(1, "LATE"), *leaves[1:]], "index 1 did not commit"),
        (relabelled(10, lambda leaf, _: Dropped(11, "masked-input")), "index 10 committed and is left out"),
    ],
)
def test_con_3_fails_where_somebody_who_committed_is_left_out_or_somebody_else_is_there(tmp_path, edit, said):
    found = found_of(tmp_path, authority_dispositions=edit)
    assert failing(found) == ["CON-3"]
    assert said in reason(found, "CON-3")


@pytest.mark.parametrize("field", ["count", "rejected", "dropped", "contributions", "dispositions"])
def test_con_3_fails_for_a_close_entry_with_another_count_or_root(tmp_path, field):
    def edit(closing, _):
        value = getattr(closing, field)
        return replace(closing, **{field: value + 1 if isinstance(value, int) else bytes(32)})

    forge = OneShotRecord({"close": edit})
    written = forge.play(forge.main, "open", "close").write(tmp_path)
    written.receipt.unlink()
    assert failing(checked(written, Level.META)) == ["CON-3"]


@pytest.mark.parametrize("name", ["dispositions.jsonl", "contributions.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_con_3_fails_for_a_file_that_the_close_entry_does_not_name(tmp_path, name, damage):
    assert failing_after(tmp_path, files=damaged(name, damage)) == ["CON-3"]


# Sizes


def test_sessions_in_which_exactly_as_many_came_as_there_have_to_be_or_can_be_are_clean(tmp_path):
    smallest = replace(COMMITTEE_PLAN, accepted=(1, 2, 4), encoding=ring_encoding(60, 3))
    committed = replace(AUTHORITY_PLAN, encoding=ring_encoding(60, 6))
    forge = OneShotRecord(committee_plan=smallest, authority_plan=committed)
    assert unclean(checked(forge.run().write(tmp_path), Level.FULL)) == {}


def test_vectors_of_more_than_one_ring_element_that_are_not_flattened_are_clean(tmp_path):
    encoding = replace(ring_encoding(), flatten=NoFlattening(), clip_norm=Fraction(1, 2))
    assert isinstance(ring_encoding().flatten, Flattening)
    forge = OneShotRecord(committee_plan=replace(COMMITTEE_PLAN, encoding=encoding))
    assert unclean(checked(forge.run().write(tmp_path), Level.FULL)) == {}
