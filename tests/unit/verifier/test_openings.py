"""OPN: what the published answers must be, and every way to break each check alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from secagg.arith.shamir import SECRET_LIMBS, secret_to_limbs, share, share_to_bytes, uniform_elements
from secagg.crypto.sealing import SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.transcript.published import PairBox, PairPromise
from secagg.transcript.statements import RootShare, SelfMaskShare
from tests.support.forge import MAIN, Forge, key_of, write_record
from tests.support.rng import CountingRng
from tests.unit.verifier.session_checks import checked, failing, failing_after, found_of, reason
from verifier.checks import Level, Status

DROPPED, REJECTED, ABSENT = 4, 2, 7
LOWER, HIGHER = 3, 8
"""Contributors that masked with the dropped client: one with a lower index, one with a higher one."""


def other_secret():
    return Secret(hashlib.sha256(b"another secret").digest())


def dealing(session, owner, self_mask=None, root=None):
    """What ``owner`` would have dealt, had it shared other secrets; its commitments to them stay."""
    neighbours = session.graph.neighbours(owner)
    both = (self_mask or session.self_masks[owner], root or session.roots[owner])
    rng = CountingRng(b"dealt again")
    secrets = np.concatenate([secret_to_limbs(secret.expose()) for secret in both])
    coefficients = uniform_elements(rng.bytes, (session.threshold - 1, 2 * SECRET_LIMBS))
    rows = share(secrets, coefficients, np.array(neighbours, dtype=np.uint64) + np.uint64(1))
    return {
        other: replace(
            session.dealt[owner][other],
            self_mask_share=share_to_bytes(row[:SECRET_LIMBS]),
            root_share=share_to_bytes(row[SECRET_LIMBS:]),
        )
        for other, row in zip(neighbours, rows, strict=True)
    }


def with_share(statement, index, released):
    """An answer in which the share of one index is another."""
    shares = (released if share.index == index else share for share in statement.shares)
    return replace(statement, shares=tuple(shares))


class TestAnswers:
    def test_invented_by_the_coordinator_are_refused(self, tmp_path):
        """It knows what to write, having opened the sum, and lacks the contributor's key."""

        def invent(openings, session):
            forged = key_of("coordinator").sign_statement(openings[0].statement.to_bytes())
            return [replace(openings[0], signature=forged), *openings[1:]]

        found = found_of(tmp_path, openings=invent)
        assert failing(found) == ["OPN-1"]
        assert "signature" in reason(found, "OPN-1")

    def test_to_another_close_entry_are_refused(self, tmp_path):
        def redirect(answers, session):
            return answers | {0: replace(answers[0], close=hashlib.sha256(b"another close").digest())}

        assert failing_after(tmp_path, answers=redirect) == ["OPN-1"]

    def test_of_another_session_are_refused(self, tmp_path):
        def move(answers, session):
            return answers | {0: replace(answers[0], session=hashlib.sha256(b"another session").digest())}

        assert failing_after(tmp_path, answers=move) == ["OPN-1"]

    def test_of_a_client_that_is_not_in_the_sum_are_refused(self, tmp_path):
        def exchange(answers, session):
            others = {index: answer for index, answer in answers.items() if index != 1}
            return dict(sorted((others | {REJECTED: session._answer(REJECTED)}).items()))

        found = found_of(tmp_path, answers=exchange)
        assert failing(found) == ["OPN-1"]
        assert "closed set" in reason(found, "OPN-1")

    def test_too_few_for_one_secret_are_refused(self, tmp_path):
        plan = replace(MAIN, answering=frozenset(MAIN.accepted) - {0})
        found = checked(Forge(main=plan).run().write(tmp_path), Level.SUM)
        # Eight and nine miss each other: five of seven answers are left for either.
        assert failing(found) == ["OPN-1"]
        assert "5 shares of index 8, 6 are needed" in reason(found, "OPN-1")
        assert found["OPN-4"].status is found["RES-1"].status is Status.UNAVAILABLE

    def test_exactly_as_many_as_the_threshold_are_enough(self, tmp_path):
        missing = {6: frozenset({DROPPED})}
        plan = replace(MAIN, missing=missing, answering=frozenset(MAIN.accepted) - {0})
        assert failing(checked(Forge(main=plan).run().write(tmp_path), Level.SUM)) == []


class TestKindsOfShares:
    def test_a_root_of_a_contributor_is_refused(self, tmp_path):
        def open_root(answers, session):
            released = RootShare(5, session.dealt[5][0].root_share)
            return answers | {0: with_share(answers[0], 5, released)}

        found = found_of(tmp_path, answers=open_root)
        assert failing(found) == ["OPN-2"]
        assert "type root of index 5" in reason(found, "OPN-2")

    def test_a_self_mask_of_a_dropped_client_is_refused(self, tmp_path):
        def open_seed(answers, session):
            released = SelfMaskShare(DROPPED, session.dealt[DROPPED][0].self_mask_share)
            return answers | {0: with_share(answers[0], DROPPED, released)}

        assert failing_after(tmp_path, answers=open_seed) == ["OPN-2"]

    def test_a_share_that_is_left_out_is_missed(self, tmp_path):
        def shorten(answers, session):
            return answers | {0: replace(answers[0], shares=answers[0].shares[:-1])}

        assert failing_after(tmp_path, answers=shorten) == ["OPN-2"]

    def test_a_share_of_somebody_it_did_not_mask_with_is_refused(self, tmp_path):
        def extend(answers, session):
            more = RootShare(DROPPED, session.dealt[DROPPED][6].root_share)
            shares = tuple(sorted((*answers[6].shares, more), key=lambda one: one.index))
            return answers | {6: replace(answers[6], shares=shares)}

        assert failing_after(tmp_path, answers=extend) == ["OPN-2"]


class TestTheRootOfAnswers:
    def test_another_order_is_refused_although_the_root_is_over_it(self, tmp_path):
        found = found_of(tmp_path, openings=lambda openings, _: [openings[1], openings[0], *openings[2:]])
        assert failing(found) == ["OPN-3"]
        assert "index 0 after 1" in reason(found, "OPN-3")

    def test_an_answer_twice_is_refused(self, tmp_path):
        found = found_of(tmp_path, openings=lambda openings, _: [openings[0], openings[0], *openings[2:]])
        assert failing(found) == ["OPN-3"]
        assert "index 0 after 0" in reason(found, "OPN-3")

    def test_more_answers_than_contributors_are_not_read(self, tmp_path):
        found = found_of(tmp_path, openings=lambda openings, _: [*openings, openings[-1]])
        assert failing(found) == ["OPN-3"]
        assert "more than 8 lines" in reason(found, "OPN-3")

    def test_an_answer_taken_away_afterwards_is_missed(self, tmp_path):
        def drop(files, session):
            lines = files["openings.jsonl"].splitlines(keepends=True)
            return files | {"openings.jsonl": b"".join(lines[1:])}

        found = found_of(tmp_path, files=drop)
        assert failing(found) == ["OPN-3"]
        assert "root" in reason(found, "OPN-3")

    @pytest.mark.parametrize(
        "change", [lambda data: data[:-1], lambda data: data + b"\n", lambda data: b"x" + data[1:]]
    )
    def test_lines_that_cannot_be_read_are_refused(self, tmp_path, change):
        def edit(files, session):
            return files | {"openings.jsonl": change(files["openings.jsonl"])}

        assert failing_after(tmp_path, files=edit) == ["OPN-3"]

    def test_a_statement_of_another_kind_is_refused(self, tmp_path):
        def edit(openings, session):
            return [session.contributions[0], *openings[1:]]

        assert failing_after(tmp_path, openings=edit) == ["OPN-3"]

    def test_an_answer_of_somebody_outside_the_cohort_is_refused(self, tmp_path):
        def edit(openings, session):
            stranger = key_of("stranger")
            statement = replace(openings[0].statement, identity=stranger.public_bytes)
            return [replace(openings[0], statement=statement), *openings[1:]]

        assert failing_after(tmp_path, openings=edit) == ["OPN-3"]


class TestSeedsAndRoots:
    def test_another_self_mask_than_the_committed_one_is_found(self, tmp_path):
        """The owner, or as many contributors as the threshold, help the coordinator to choose a mask."""

        def reopen(answers, session):
            again = dealing(session, 5, self_mask=other_secret())
            return {
                index: with_share(one, 5, SelfMaskShare(5, again[index].self_mask_share)) if index != 5 else one
                for index, one in answers.items()
            }

        found = found_of(tmp_path, answers=reopen)
        assert failing(found) == ["OPN-4"]
        assert "index 5" in reason(found, "OPN-4")

    def test_another_root_than_the_committed_one_is_found(self, tmp_path):
        def reopen(answers, session):
            again = dealing(session, DROPPED, root=other_secret())
            return {
                index: with_share(one, DROPPED, RootShare(DROPPED, again[index].root_share)) if index != 6 else one
                for index, one in answers.items()
            }

        found = found_of(tmp_path, answers=reopen)
        assert failing(found) == ["OPN-4"]
        assert f"index {DROPPED}" in reason(found, "OPN-4")

    @pytest.mark.parametrize("member", ["self_mask_commitment", "root_commitment"])
    def test_another_commitment_than_that_of_what_was_dealt_is_found(self, tmp_path, member):
        index = 5 if member == "self_mask_commitment" else DROPPED

        def lie(statements, session):
            return statements | {index: replace(statements[index], **{member: bytes(32)})}

        assert failing_after(tmp_path, share=lie) == ["OPN-4"]

    def test_a_mask_key_that_does_not_follow_from_the_root_is_found(self, tmp_path):
        def lie(statements, session):
            return statements | {DROPPED: replace(statements[DROPPED], mask_key=bytes(32))}

        found = found_of(tmp_path, advertise=lie)
        assert failing(found) == ["OPN-4"]
        assert "mask key" in reason(found, "OPN-4")

    def test_one_wrong_share_does_not_spoil_the_audit(self, tmp_path):
        def spoil(answers, session):
            return answers | {0: with_share(answers[0], 5, SelfMaskShare(5, bytes(36)))}

        assert failing_after(tmp_path, answers=spoil) == []

    def test_shares_that_are_no_field_elements_do_not_count(self, tmp_path):
        def spoil(answers, session):
            return {
                index: with_share(one, 5, SelfMaskShare(5, b"\xff" * 36)) if index in {0, 1, 3} else one
                for index, one in answers.items()
            }

        assert failing_after(tmp_path, answers=spoil) == ["OPN-4"]


class TestPairs:
    def test_both_kinds_are_in_the_forged_record(self, tmp_path):
        kinds = {type(pair) for pair in Forge().run().main.pairs}
        assert kinds == {PairBox, PairPromise}

    @pytest.mark.parametrize("kind", [PairBox, PairPromise])
    def test_one_left_out_is_missed(self, tmp_path, kind):
        def drop(pairs, session):
            first = next(pair for pair in pairs if isinstance(pair, kind))
            return [pair for pair in pairs if pair is not first]

        assert failing_after(tmp_path, pairs=drop) == ["OPN-5"]

    def test_the_last_one_left_out_is_missed(self, tmp_path):
        assert failing_after(tmp_path, pairs=lambda pairs, _: pairs[:-1]) == ["OPN-5"]

    def test_one_too_many_is_refused(self, tmp_path):
        assert failing_after(tmp_path, pairs=lambda pairs, _: [*pairs, pairs[-1]]) == ["OPN-5"]

    def test_a_pair_of_two_contributors_is_refused(self, tmp_path):
        def show(pairs, session):
            dealt = session.dealt[0][1]
            path = session.box_tree(0).inclusion_proof(0)
            digests = (hashlib.sha256(box).digest() for box in (dealt.share_box, dealt.pair_box))
            return [PairPromise(0, 1, *digests, dealt.commitments, path), *pairs[1:]]

        assert failing_after(tmp_path, pairs=show) == ["OPN-5"]

    def test_another_order_is_refused(self, tmp_path):
        found = found_of(tmp_path, pairs=lambda pairs, _: [pairs[1], pairs[0], *pairs[2:]])
        assert failing(found) == ["OPN-5"]
        assert "pair-box of 0 and 4, expected pair-box of (0, 2)" in reason(found, "OPN-5")

    @pytest.mark.parametrize("kind", [PairBox, PairPromise])
    @pytest.mark.parametrize("member", ["commitments", "share_box"])
    def test_what_its_sender_did_not_sign_is_refused(self, tmp_path, kind, member):
        def alter(pairs, session):
            at = next(number for number, pair in enumerate(pairs) if isinstance(pair, kind))
            value = bytearray(getattr(pairs[at], member))
            value[-1] ^= 1
            return [*pairs[:at], replace(pairs[at], **{member: bytes(value)}), *pairs[at + 1 :]]

        found = found_of(tmp_path, pairs=alter)
        assert failing(found) == ["OPN-5"]
        assert "root of boxes" in reason(found, "OPN-5")

    def test_an_exchanged_box_is_refused(self, tmp_path):
        """Anybody can seal a box to the dropped client; the root over the boxes says which one was sent."""

        def exchange(pairs, session):
            at = next(number for number, pair in enumerate(pairs) if isinstance(pair, PairBox))
            pair = pairs[at]
            info = boxes.pair_box_info(session.digest, session.advertised.root, pair.sender, pair.recipient)
            box = seal(session.mask_keys[pair.recipient].public_bytes, info, other_secret())
            return [*pairs[:at], replace(pair, box=box), *pairs[at + 1 :]]

        assert failing_after(tmp_path, pairs=exchange) == ["OPN-5"]

    def test_a_promise_in_the_place_of_a_box_is_refused(self, tmp_path):
        def promise(pairs, session):
            at = next(number for number, pair in enumerate(pairs) if isinstance(pair, PairBox))
            pair = pairs[at]
            digest = hashlib.sha256(pair.box).digest()
            told = PairPromise(pair.sender, pair.recipient, pair.share_box, digest, pair.commitments, pair.path)
            return [*pairs[:at], told, *pairs[at + 1 :]]

        found = found_of(tmp_path, pairs=promise)
        assert failing(found) == ["OPN-5"]
        assert "pair-promise of 0 and 2, expected pair-box" in reason(found, "OPN-5")

    @pytest.mark.parametrize(("sender", "recipient"), [(LOWER, DROPPED), (DROPPED, HIGHER)])
    def test_another_seed_than_the_promised_one_is_found(self, tmp_path, sender, recipient):
        def lie(dealt, session):
            one = dealt[sender][recipient]
            promised = one.commitments[:64] + boxes.commit_pair_seed(session.digest, sender, recipient, other_secret())
            return dealt | {sender: dealt[sender] | {recipient: replace(one, commitments=promised)}}

        found = found_of(tmp_path, dealt=lie)
        assert failing(found) == ["OPN-5"]
        assert f"index {sender} promised index {recipient} another" in reason(found, "OPN-5")

    def test_a_box_that_the_dropped_client_cannot_open_is_found(self, tmp_path):
        def lie(dealt, session):
            one = dealt[LOWER][DROPPED]
            stranger = SealingKey(other_secret())
            info = boxes.pair_box_info(session.digest, session.advertised.root, LOWER, DROPPED)
            sealed = seal(stranger.public_bytes, info, other_secret())
            return dealt | {LOWER: dealt[LOWER] | {DROPPED: replace(one, pair_box=sealed)}}

        found = found_of(tmp_path, dealt=lie)
        assert failing(found) == ["OPN-5"]
        assert "does not open" in reason(found, "OPN-5")

    def test_a_missing_file_is_no_failure_and_no_pass(self, tmp_path):
        written = write_record(tmp_path)
        (written.session / "pair-boxes.jsonl").unlink()
        found = checked(written, Level.SUM)
        assert failing(found) == []
        assert found["OPN-5"].status is found["RES-4"].status is Status.UNAVAILABLE
        assert found["OPN-2"].status is Status.PASS
