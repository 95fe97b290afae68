"""SUM, OPN, RES, RCP of one-shot sessions: every way to break one of these checks alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from secagg.arith import linear_hash
from secagg.arith.keystream import Keystream
from secagg.arith.prime_field import PRIME
from secagg.arith.ring_product import RingMultiplier
from secagg.arith.seeded_shamir import shares_from_bytes
from secagg.arith.shamir import reconstruct
from secagg.derive.ring_opening import MaskedSum, open_with_shares, public_polynomials_key
from secagg.transcript.openers import SummedCiphertext
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed
from tests.support.forge import key_of
from tests.support.forge_one_shot import (
    AUTHORITY_PLAN,
    COEFFICIENTS,
    COMMITTEE_PLAN,
    MEMBERS,
    NEEDED,
    attestor_keys,
    committee,
    member_key,
)
from tests.support.forge_one_shot_record import OneShotRecord, write_one_shot_record
from tests.support.forge_session import sha256
from tests.support.rng import CountingRng
from tests.unit.verifier.one_shot_edits import (
    DAMAGES,
    changed,
    damaged,
    failing_after,
    found_of,
    other_file,
    set_fields,
)
from tests.unit.verifier.session_checks import audit_of, checked, failing, reason, unclean
from verifier.audit import Brought
from verifier.checks import Level, Status
from verifier.run import run_audit

FIRST = COMMITTEE_PLAN.accepted[0]
"""Position in the roster of the first contributor to the session with the committee."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return write_one_shot_record(tmp_path_factory.mktemp("one-shot"))


def shifted(limb_sum, session):
    """The sum of the first coordinate is one higher, under the mask."""
    out = limb_sum.copy()
    position = session.mask.shift + session.parameters.encoding.field_layout().field_bits
    out[position // 16] += np.uint64(1 << position % 16)
    return out


class TestTheMaskedSum:
    @pytest.mark.parametrize("name", ["limb_sum", "authority_limb_sum"])
    def test_a_shift_by_the_coordinator_is_found_by_the_hash_alone(self, tmp_path, name):
        found = found_of(tmp_path, **{name: shifted})
        assert failing(found) == ["SUM-2"]

    def test_a_contributor_that_fits_its_hash_to_the_coordinators_sum_is_found_by_the_inputs(self, tmp_path):
        def fitted(hashes, session):
            difference = np.zeros(session.lanes, dtype=np.uint64)
            position = session.mask.shift + session.parameters.encoding.field_layout().field_bits
            difference[0] = np.uint64(1 << position)
            return hashes | {FIRST: hashes[FIRST] + linear_hash.hash_lanes(difference)}

        written = write_one_shot_record(tmp_path, {"limb_sum": shifted, "hashes": fitted})
        assert failing(checked(written, Level.SUM)) == []
        assert failing(checked(written, Level.FULL)) == ["SUM-6"]

    @pytest.mark.parametrize("size", [-1, 1, -32, 32])
    def test_a_limb_sum_has_32_bytes_for_every_lane_padding_included(self, tmp_path, size):
        edit = other_file("masked-limb-sum.bin", lambda data: data[:size] if size < 0 else data + bytes(size))
        assert failing_after(tmp_path, files=edit) == ["SUM-3"]

    def test_another_limb_sum_than_the_close_names_is_refused(self, tmp_path):
        edit = other_file("masked-limb-sum.bin", lambda data: b"\1" + data[1:])
        assert failing_after(tmp_path, files=edit) == ["SUM-4"]

    def test_an_upload_that_is_not_the_signed_one_is_found(self, tmp_path):
        written = write_one_shot_record(tmp_path)
        path = written.masked_inputs / f"{written.forge.main.headers[FIRST].upload.hex()}.bin"
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        assert failing(checked(written)) == ["SUM-5"]


class TestCiphertexts:
    def name_of(self, session, index):
        (part,) = session.headers[index].parts
        return f"ciphertexts/{part.hex()}.bin"

    @pytest.mark.parametrize("position", [0, 16, 30_000, -1])
    def test_one_that_is_not_the_signed_one_is_found(self, tmp_path, position):
        written = write_one_shot_record(tmp_path)
        directory = written.record / "sessions" / written.forge.authority.session_id.hex()
        path = directory / self.name_of(written.forge.authority, 3)
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        found = checked(written, Level.PREOPEN)
        assert failing(found) == ["SUM-7"]
        assert found["SUM-8"].status is Status.UNAVAILABLE

    def test_one_of_another_length_or_that_is_missing_is_noticed(self, tmp_path):
        written = write_one_shot_record(tmp_path)
        directory = written.record / "sessions" / written.forge.authority.session_id.hex()
        path = directory / self.name_of(written.forge.authority, 3)
        path.write_bytes(path.read_bytes() + b"\0")
        assert failing(checked(written, Level.PREOPEN)) == ["SUM-7"]
        path.unlink()
        found = checked(written, Level.PREOPEN)
        assert failing(found) == []
        assert found["SUM-7"].status is found["SUM-8"].status is Status.UNAVAILABLE

    def test_what_a_client_signed_and_is_no_ciphertext_is_found(self, tmp_path):
        """A coordinator must refute it, as it would spoil the sum."""
        written = write_one_shot_record(tmp_path, {"authority.headers": renamed_part, "authority.files": strange_part})
        assert failing(checked(written, Level.PREOPEN)) == ["SUM-7"]

    def test_the_ciphertext_of_a_rejected_or_dropped_client_is_not_asked_for(self, honest):
        session = honest.forge.authority
        directory = honest.record / "sessions" / session.session_id.hex()
        assert len(list((directory / "ciphertexts").iterdir())) == len(AUTHORITY_PLAN.accepted)
        assert not (directory / self.name_of(session, 6)).exists()
        assert checked(honest, Level.PREOPEN)["SUM-7"].status is Status.PASS

    def test_a_sum_of_other_ciphertexts_is_found_although_the_close_names_it(self, tmp_path):
        """The naive attack: the authority is asked to decrypt one contribution."""

        def of_one(_, session):
            (victim,) = session.parts[session.accepted[0]]
            return victim

        found = found_of(tmp_path, authority_ciphertext_sum=of_one)
        assert failing(found) == ["SUM-8"]
        assert "not the sum of the ciphertexts" in reason(found, "SUM-8")

    def test_a_sum_that_the_close_does_not_name_is_found(self, tmp_path):
        found = found_of(tmp_path, authority_close=set_fields(opener=SummedCiphertext(bytes(32))))
        # The attestations are to the sum that there is, and the close names another.
        assert failing(found) == ["SUM-8", "OPN-9"]

    @pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[::-1]])
    def test_another_file_than_the_sum_is_found(self, tmp_path, change):
        assert failing_after(tmp_path, authority_files=other_file("ciphertext-sum.bin", change)) == ["SUM-8"]

    def test_are_added_without_tenseal(self, honest):
        code = (
            "import sys; sys.modules['tenseal'] = None\n"
            "from verifier import cli\n"
            f"print(cli.run(['check', {str(honest.record)!r}, '--policy', {str(honest.policy)!r}]))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("\n0\n")


OTHER_PART = b"signed by a client, and no ciphertext"


def renamed_part(headers, _):
    return headers | {3: replace(headers[3], parts=(sha256(OTHER_PART),))}


def strange_part(files, _):
    return files | {f"ciphertexts/{sha256(OTHER_PART).hex()}.bin": OTHER_PART}


class TestTheRootOfAnswers:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_list_that_is_not_the_logged_one_is_refused(self, tmp_path, damage):
        assert failing_after(tmp_path, files=damaged("openings.jsonl", damage)) == ["OPN-3"]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda openings, _: [openings[1], openings[0], *openings[2:]],
            lambda openings, _: [openings[0], *openings],
            lambda openings, session: [session.contributions[FIRST], *openings[1:]],
            lambda openings, _: [answer_of(openings[0], key_of("stranger")), *openings[1:]],
        ],
        ids=["out of order", "one twice", "another statement", "of a stranger"],
    )
    def test_answers_are_those_of_members_in_their_order(self, tmp_path, edit):
        assert failing_after(tmp_path, openings=edit) == ["OPN-3"]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda openings, _: [openings[0], openings[0]],
            lambda openings, _: [answer_of(openings[0], member_key(0))],
            lambda openings, session: [session.contributions[0]],
        ],
        ids=["twice", "of a stranger", "another statement"],
    )
    def test_an_authority_gives_one_answer(self, tmp_path, edit):
        assert failing_after(tmp_path, authority_openings=edit) == ["OPN-3"]

    def test_one_member_that_answers_twice_in_the_place_of_another_is_refused(self, tmp_path):
        found = found_of(tmp_path, openings=lambda openings, _: [openings[0], openings[1], openings[1], openings[3]])
        assert failing(found) == ["OPN-3"]
        assert "member 1 after 1" in reason(found, "OPN-3")

    @pytest.mark.parametrize("name", ["result", "authority_result"])
    def test_another_root_in_the_log_is_refused(self, tmp_path, name):
        assert failing_after(tmp_path, **{name: set_fields(openings=bytes(32))}) == ["OPN-3"]


def answer_of(signed, key, **fields):
    """The answer, of somebody else, signed by this key."""
    statement = replace(signed.statement, identity=key.public_bytes, **fields)
    return Signed(statement, key.sign_statement(statement.to_bytes()))


def changed_answer(place, **fields):
    """An edit of answers: a member signs something else."""
    return changed(place, lambda item, _: (item[0], replace(item[1], **fields)))


class TestMembers:
    def test_an_answer_that_its_member_did_not_sign_is_refused(self, tmp_path):
        """The coordinator knows what to write, having opened the sum, and lacks the member's key."""

        def invent(openings, _):
            forged = key_of("coordinator").sign_statement(openings[3].statement.to_bytes())
            return [*openings[:3], Signed(openings[3].statement, forged)]

        found = found_of(tmp_path, openings=invent)
        assert failing(found) == ["OPN-6"]
        assert found["OPN-7"].status is found["OPN-10"].status is found["RES-1"].status is Status.UNAVAILABLE

    @pytest.mark.parametrize("field", ["session", "close"])
    def test_an_answer_to_another_close_or_session_is_refused(self, tmp_path, field):
        found = found_of(tmp_path, answers=changed_answer(3, **{field: hashlib.sha256(b"another").digest()}))
        assert failing(found) == ["OPN-6"]
        assert "another" in reason(found, "OPN-6")

    def test_an_answer_of_a_member_that_the_close_does_not_name_is_refused(self, tmp_path):
        """It lacks the share of a contribution, so that its answer is over another set."""
        plan = replace(COMMITTEE_PLAN, named=(0, 1, 2), answering=(0, 1, 3))
        found = checked(OneShotRecord(committee_plan=plan).run().write(tmp_path), Level.SUM)
        assert failing(found) == ["OPN-6"]
        assert "member 3 is not named in the close entry" in reason(found, "OPN-6")

    def test_too_few_answers_are_refused(self, tmp_path):
        plan = replace(COMMITTEE_PLAN, answering=(0, 2))
        found = checked(OneShotRecord(committee_plan=plan).run().write(tmp_path), Level.SUM)
        assert failing(found) == ["OPN-6"]
        assert "2 answers, 3 are needed" in reason(found, "OPN-6")

    @pytest.mark.parametrize("answering", [(0, 1, 2), (1, 2, 3), (0, 2, 3)])
    def test_any_three_of_four_are_enough(self, tmp_path, answering):
        plan = replace(COMMITTEE_PLAN, answering=answering)
        assert unclean(checked(OneShotRecord(committee_plan=plan).run().write(tmp_path), Level.SUM)) == {}


def lying(place):
    """An edit of share sums: this member gives another vector than its own."""

    def apply(share_sums, _):
        return share_sums | {place: (share_sums[place] + np.uint64(1)) % np.uint64(PRIME)}

    return apply


class TestTheSecretSum:
    def test_another_one_than_the_members_opened_is_refused(self, tmp_path):
        def other(secret_sum, _):
            out = secret_sum.copy()
            out[5] += 1
            return out

        found = found_of(tmp_path, secret_sum=other)
        assert failing(found) == ["OPN-7"]
        assert "not what the share sums" in reason(found, "OPN-7")
        assert found["OPN-10"].status is Status.UNAVAILABLE

    def test_another_file_than_the_logged_one_is_refused(self, tmp_path):
        found = found_of(tmp_path, files=other_file("secret-sum.bin", lambda data: b"\1" + data[1:]))
        assert failing(found) == ["OPN-10"]
        assert found["OPN-7"].status is Status.UNAVAILABLE

    @pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
    def test_a_file_of_another_length_is_refused(self, tmp_path, change):
        assert failing_after(tmp_path, files=other_file("secret-sum.bin", change)) == ["OPN-10"]

    @pytest.mark.parametrize(
        "fields",
        [{"used": (0, 1)}, {"used": (0, 1, 2, 3)}, {"used": ()}, {"used": (0, 1, 7)}, {"dissenting": (3,)}],
    )
    def test_is_interpolated_from_as_many_members_as_are_needed_of_those_who_answered(self, tmp_path, fields):
        assert failing_after(tmp_path, result=set_fields(**fields)) == ["OPN-7"]

    def test_may_be_interpolated_from_any_of_those_who_answered(self, tmp_path):
        assert failing_after(tmp_path, result=set_fields(used=(1, 2, 3))) == []

    def test_a_member_that_lies_and_is_named_as_dissenting_spoils_nothing(self, tmp_path):
        edits = {"share_sums": lying(3), "result": set_fields(dissenting=(3,))}
        assert unclean(checked(write_one_shot_record(tmp_path, edits), Level.SUM)) == {}

    @pytest.mark.parametrize(("liar", "dissenting"), [(3, ()), (3, (2,))])
    def test_a_member_that_dissents_is_named_and_no_other(self, tmp_path, liar, dissenting):
        used = (0, 1, 2) if 2 not in dissenting else (0, 1, 3)
        edits = {"share_sums": lying(liar), "result": set_fields(dissenting=dissenting, used=used)}
        assert failing(checked(write_one_shot_record(tmp_path, edits), Level.SUM)) == ["OPN-7"]

    def test_of_a_lying_member_among_the_used_is_refused_for_what_it_opens(self, tmp_path):
        """The coordinator takes the lie for the sum, consistently: it is no small vector."""
        bent = {"share_sums": lying(0), "secret_sum": interpolated, "result": set_fields(dissenting=(3,))}
        found = checked(write_one_shot_record(tmp_path, bent), Level.SUM)
        assert failing(found) == ["OPN-10"]
        assert "secret: " in reason(found, "OPN-10")

    def test_is_as_small_as_so_many_contributors_can_make_it(self, tmp_path):
        """Five secrets of at most 2 make at most 10; a bound for sixteen, the most there can be, would be 32."""

        def large(secrets, _):
            out = secrets[FIRST].copy()
            out[0] = 20
            return secrets | {FIRST: out}

        forge = OneShotRecord({"secrets": large})
        forge.main.masked = lambda index, packed: masked_without_bound(forge.main, index, packed)
        found = checked(forge.run().write(tmp_path), Level.SUM)
        assert failing(found) == ["OPN-10"]
        assert "1 coefficients of the secret are beyond 10" in reason(found, "OPN-10")

    def test_a_share_sum_that_is_not_of_the_field_is_refused(self, tmp_path):
        words = np.full(COEFFICIENTS, PRIME, dtype="<u4").tobytes()
        found = found_of(tmp_path, answers=changed_answer(3, share_sum=words))
        assert failing(found) == ["OPN-7"]

    def test_of_shares_that_a_client_dealt_to_another_secret_is_refused_for_its_errors(self, tmp_path):
        """Small, and what the members opened, and not what the upload was masked with."""

        def other_secret(shares, session):
            # All members' shares of X^7: one polynomial, so that everybody agrees.
            moved = shares[FIRST].copy()
            moved[:, 7] = (moved[:, 7] + np.uint64(1)) % np.uint64(PRIME)
            return shares | {FIRST: moved}

        def follows(secret_sum, _):
            out = secret_sum.copy()
            out[7] += 1
            return out

        found = found_of(tmp_path, shares=other_secret, secret_sum=follows)
        assert failing(found) == ["OPN-10"]
        assert "remainder: " in reason(found, "OPN-10")

    @pytest.mark.parametrize("lane", [0, -1])
    def test_an_error_beyond_the_bound_is_found_in_every_lane_padding_included(self, tmp_path, lane):
        def large(uploads, session):
            lanes = uploads[FIRST].copy()
            lanes[lane] += np.uint64(1 << session.mask.shift - 1)
            return uploads | {FIRST: lanes}

        found = found_of(tmp_path, uploads=large)
        assert failing(found) == ["OPN-10"]
        assert "remainder: 1 lanes" in reason(found, "OPN-10")

    def test_is_what_the_coordinator_computes_from_the_same_answers(self, honest):
        session = honest.forge.main
        masked = MaskedSum(
            session.mask,
            public_polynomials_key(session.digest),
            sum(session.uploads[index] for index in session.accepted),
            session.count,
        )
        answers = {place: shares_from_bytes(one.share_sum) for place, one in session.answers}
        opening, lanes = open_with_shares(committee(), answers, masked)
        assert opening.used == session.finished.used == tuple(range(NEEDED))
        assert opening.dissenting == session.finished.dissenting == ()
        assert np.array_equal(opening.secret_sum, session.secret_sum)
        assert np.array_equal(lanes[: session.lanes_sum.size], session.lanes_sum)
        assert MEMBERS > NEEDED


def masked_without_bound(session, index, packed):
    """What a client would send that draws any secret it likes; without errors, which nobody misses."""
    lanes, public = np.zeros((2, session.lanes), dtype=np.uint64)
    lanes[: packed.size] = packed << np.uint64(session.mask.shift)
    Keystream(public_polynomials_key(session.digest)).read_into(public)
    RingMultiplier(session.secrets[index], 32).add_products(public, lanes)
    return lanes.copy()


def interpolated(_, session):
    """What the first members' share sums determine, whatever it is."""
    points = np.arange(1, NEEDED + 1, dtype=np.uint64)
    lifted = reconstruct(points, np.stack([session.share_sums[place] for place in range(NEEDED)])).view(np.int64)
    return np.where(lifted > PRIME // 2, lifted - PRIME, lifted)


class TestTheAuthority:
    def test_an_answer_that_it_did_not_sign_is_refused(self, tmp_path):
        def invent(openings, _):
            return [
                Signed(openings[0].statement, key_of("coordinator").sign_statement(openings[0].statement.to_bytes()))
            ]

        found = found_of(tmp_path, authority_openings=invent)
        assert failing(found) == ["OPN-8"]
        assert found["OPN-10"].status is Status.UNAVAILABLE

    @pytest.mark.parametrize("field", ["session", "close"])
    def test_an_answer_to_another_close_or_session_is_refused(self, tmp_path, field):
        edit = changed_answer(0, **{field: hashlib.sha256(b"another").digest()})
        assert failing_after(tmp_path, authority_answers=edit) == ["OPN-8"]

    def test_no_answer_is_refused(self, tmp_path):
        found = found_of(tmp_path, authority_openings=lambda _, __: [])
        assert failing(found) == ["OPN-8"]
        assert "no answer" in reason(found, "OPN-8")

    def test_another_secret_sum_than_it_answered_is_refused(self, tmp_path):
        def other(answers, session):
            values = session.secret_sum.astype("<i4").copy()
            values[0] += 1
            return [(0, replace(answers[0][1], secret_sum=values.tobytes()))]

        assert failing_after(tmp_path, authority_answers=other) == ["OPN-8"]

    @pytest.mark.parametrize(("size", "condition"), [(1 << 20, "secret: "), (1, "remainder: ")])
    def test_a_decryption_that_is_not_the_sum_is_refused(self, tmp_path, size, condition):
        """A malformed ciphertext makes it anything; an authority that certifies never signs that."""

        def other(secret_sum, _):
            out = secret_sum.copy()
            out[0] += size
            return out

        found = found_of(tmp_path, authority_secret_sum=other)
        assert failing(found) == ["OPN-10"]
        assert condition in reason(found, "OPN-10")


def attested(*keys, **fields):
    """An edit of attestations: those of these keys, saying something else where it is named."""

    def apply(attestations, _):
        found = [answer_of(attestations[0], key, **fields) for key in keys]
        return sorted(found, key=lambda signed: signed.statement.identity)

    return apply


class TestAttestations:
    @pytest.mark.parametrize("numbers", [(0, 1), (0, 2), (0, 1, 2)])
    def test_of_enough_attestors_pass(self, tmp_path, numbers):
        keys = [attestor_keys()[number] for number in numbers]
        assert failing_after(tmp_path, authority_attestations=attested(*keys)) == []

    @pytest.mark.parametrize("keys", [[], attestor_keys()[:1]])
    def test_of_too_few_attestors_are_refused(self, tmp_path, keys):
        found = found_of(tmp_path, authority_attestations=attested(*keys))
        assert failing(found) == ["OPN-9"]
        assert f"{len(keys)} attestations, 2 are needed" in reason(found, "OPN-9")

    def test_of_one_attestor_count_once(self, tmp_path):
        found = found_of(tmp_path, authority_attestations=attested(attestor_keys()[0], attestor_keys()[0]))
        assert failing(found) == ["OPN-9"]
        assert "ascending" in reason(found, "OPN-9")

    def test_of_somebody_whom_the_open_entry_does_not_name_are_refused(self, tmp_path):
        found = found_of(tmp_path, authority_attestations=attested(attestor_keys()[0], key_of("registrar")))
        assert failing(found) == ["OPN-9"]

    @pytest.mark.parametrize("field", ["session", "close", "ciphertext_sum"])
    def test_to_something_else_are_refused(self, tmp_path, field):
        edit = attested(*attestor_keys()[:2], **{field: hashlib.sha256(b"another").digest()})
        found = found_of(tmp_path, authority_attestations=edit)
        assert failing(found) == ["OPN-9"]
        assert "another" in reason(found, "OPN-9")

    def test_that_nobody_signed_are_refused(self, tmp_path):
        edit = changed(0, lambda signed, _: Signed(signed.statement, bytes(64)))
        assert failing_after(tmp_path, authority_attestations=edit) == ["OPN-9"]

    def test_are_no_other_statements(self, tmp_path):
        edit = changed(0, lambda _, session: session.openings[0])
        # An answer is too long a line for an attestation already.
        assert failing_after(tmp_path, authority_attestations=edit) == ["OPN-9"]
        edit = changed(0, lambda _, session: session.commitments[0])
        assert failing_after(tmp_path / "again", authority_attestations=edit) == ["OPN-9"]

    def test_are_not_asked_for_before_the_opening(self, tmp_path):
        forge = OneShotRecord()
        written = forge.play(forge.authority, "open", "commit", "close").write(tmp_path)
        found = checked(written, Level.PREOPEN)
        assert unclean(found) == {}
        assert found["SUM-8"].status is Status.PASS
        assert "OPN-9" not in found


class TestTheResult:
    def test_a_shift_by_the_coordinator_is_found(self, tmp_path):
        def shift(integer_sum, _):
            out = integer_sum.copy()
            out[17] += 1
            return out

        assert failing_after(tmp_path, integer_sum=shift) == ["RES-1"]
        assert failing_after(tmp_path / "authority", authority_integer_sum=shift) == ["RES-1"]

    def test_a_contribution_that_counts_twice_is_found(self, tmp_path):
        def twice(packed, _):
            lanes = packed[FIRST].copy()
            lanes[0] += np.uint64(1)
            return packed | {FIRST: lanes}

        found = found_of(tmp_path, packed=twice)
        assert failing(found) == ["RES-2"]
        assert "shows 6, expected 5" in reason(found, "RES-2")

    @pytest.mark.parametrize("last", [True, False])
    def test_a_lane_of_padding_that_is_not_zero_is_found(self, tmp_path, last):
        def smuggle(packed, session):
            own = session.parameters.encoding.field_layout().lanes
            lanes = np.zeros(session.lanes if last else own + 1, dtype=np.uint64)
            lanes[:own] = packed[FIRST]
            lanes[-1] = 1
            return packed | {FIRST: lanes}

        found = found_of(tmp_path, packed=smuggle)
        assert failing(found) == ["RES-2"]
        assert "padding" in reason(found, "RES-2")

    def test_one_unit_in_the_last_place_of_the_mean_is_found(self, tmp_path):
        def nudge(mean, _):
            out = mean.copy()
            out[7] = np.nextafter(out[7], np.float32(np.inf))
            return out

        assert failing_after(tmp_path, mean=nudge) == ["RES-3"]

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
    def test_another_adapter_is_found(self, tmp_path, name):
        def alter(files, _):
            return files | {name: files[name][:-2] + b" " + files[name][-1:]}

        assert failing_after(tmp_path, aggregate=alter) == ["RES-4"]


class TestReceipts:
    def found(self, written, receipt):
        audit = replace(audit_of(written, Level.META), brought=Brought(None, receipt))
        return {one.check.identifier: one for one in run_audit(audit).checks}

    def test_every_contributor_finds_its_contribution(self, honest):
        note = (honest.record / "checkpoint").read_bytes()
        for index in honest.forge.main.accepted:
            assert self.found(honest, honest.forge.receipt(index, note))["RCP-1"].status is Status.PASS

    def test_and_so_does_one_of_a_session_with_an_authority(self, honest):
        note = (honest.record / "checkpoint").read_bytes()
        forge = OneShotRecord()
        forge.main, forge.entries = honest.forge.authority, honest.forge.entries
        (said,) = self.found(honest, forge.receipt(AUTHORITY_PLAN.accepted[2], note))["RCP-1"].notes
        assert "at position 2 (from 0) of 4" in said

    def test_one_for_what_its_holder_never_signed_does_not_pass(self, tmp_path):
        def unsigned(contributions, _):
            return contributions | {FIRST: Signed(contributions[FIRST].statement, bytes(64))}

        assert failing_after(tmp_path, contributions=unsigned) == ["CON-1", "RCP-1"]

    def test_one_that_mixes_the_protocols_is_none(self, honest):
        proof = ContributionProof.from_bytes(LogProof.parse(honest.receipt.read_bytes()).extra)
        proof.verify()
        with pytest.raises(RecordError, match="not of a contribution"):
            replace(proof, contribution=honest.forge.main.openings[0])
        with pytest.raises(RecordError, match="one-shot-result"):
            replace(proof, close=honest.forge.main.finished.to_bytes().decode())
        pairwise = proof.close.replace('"one-shot-close"', '"session-close"')
        with pytest.raises(RecordError):
            replace(proof, close=pairwise)


class TestRealCiphertexts:
    def test_of_tenseal_decrypt_to_the_secret_sum_of_the_record(self, tmp_path):
        bfv = pytest.importorskip("secagg.he.bfv")
        rng = CountingRng(b"authority")
        key = bfv.DecryptionKey.generate(rng)
        context = bfv.EncryptionContext.from_bytes(key.public_context())

        def encrypted(parts, session):
            return {index: (context.encrypt(session.secrets[index], rng),) for index in parts}

        edits = {
            "authority.opening": lambda _, session: session.authority(context.to_bytes()),
            "authority.parts": encrypted,
            "authority.files": lambda files, _: files | {"context.bin": context.to_bytes()},
        }
        written = write_one_shot_record(tmp_path, edits)
        session = written.forge.authority
        assert unclean(checked(written, Level.FULL)) == {}
        assert np.array_equal(key.decrypt(session.files["ciphertext-sum.bin"]), session.secret_sum)
