"""Clients that deviate or vanish, against the real coordinator: refused with a reason, or survived, or named."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import zlib
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.secret import Secret
from secagg.derive.opening import Removal
from secagg.protocol.errors import ProtocolError, RejectReason
from secagg.protocol.messages import (
    AdvertiseKeys,
    ClientMessage,
    ConfirmClose,
    Contribution,
    OutgoingBoxes,
    ShareKeys,
    UnmaskAnswer,
)
from secagg.protocol.pairwise import recovery
from secagg.protocol.pairwise.coordinator_states import Aborted, AnswerRow, Row, Unmasking
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, UploadStaged, row_key
from secagg.runtime.ports import UploadError
from secagg.services.uploads import Chunk, UploadDesk
from secagg.transcript.statements import ConfirmStatement, ContributionHeader, RootShare, UnmaskStatement
from tests.support.cohort import Client, Cohort, key_of
from tests.support.liars import (
    WRONG_SHARE,
    advance,
    answering,
    claiming_missing,
    cohort_of,
    contribute,
    dealt,
    garbage_for,
    settled,
    stop,
    uploading,
    wrong_share,
)
from tests.support.stage import UNIT, signed_by

PHASES = [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT, Phase.CONSISTENCY_CHECK, Phase.UNMASK]


def play(script: Callable[[Cohort], Awaitable[object]], size: int = 5, **parameters: int) -> object:
    """Run a script over a fresh cohort."""

    async def run() -> object:
        cohort = await cohort_of(size, **parameters)
        try:
            return await script(cohort)
        finally:
            await stop(cohort.host)

    return asyncio.run(run())


async def refused(cohort: Cohort, sender: Client, message: ClientMessage) -> RejectReason:
    """Why the coordinator refuses a message; it must, and no row may come of it."""
    before = dict(cohort.host.rows)
    with pytest.raises(ProtocolError) as caught:
        await cohort.send(sender, message)
    assert dict(cohort.host.rows) == before
    return caught.value.reason


def indicator(cohort: Cohort) -> list[int]:
    """What the sum must be: one unit for each client in U3."""
    state = cohort.host.driver.state
    accepted = {state.cohort.positions[index] for index in state.accepted}
    return [UNIT * (number in accepted) for number in range(len(cohort.clients))]


async def finish(cohort: Cohort, among: list[Client]) -> str:
    """Confirm and answer honestly; the reason of an abort, empty where there is a sum."""
    if cohort.host.status().phase is Phase.MASKED_INPUT:
        await settled(cohort, Phase.MASKED_INPUT)
    for act, phase in ((cohort.confirm, Phase.CONSISTENCY_CHECK), (cohort.answer, Phase.UNMASK)):
        if cohort.host.status().phase is phase:
            await act(among)
            await settled(cohort, phase)
    state = cohort.host.driver.state
    return state.reason if isinstance(state, Aborted) else ""


class TestWrongShares:
    @pytest.mark.parametrize("value", [WRONG_SHARE, b"\xff" * 36], ids=["a field element", "no field element"])
    def test_are_refused_by_name_and_the_sum_comes_without_them(self, value: bytes) -> None:
        async def script(cohort: Cohort) -> None:
            await advance(cohort, Phase.UNMASK)
            liar = cohort.clients[2]
            liar.feed(cohort.host.confirmations(liar.identity))
            message = answering(
                liar, lambda share: dataclasses.replace(share, share=value) if share.index == 5 else share
            )
            with pytest.raises(ProtocolError, match="not the share that index 5 dealt") as caught:
                await cohort.send(liar, message)
            assert caught.value.reason is RejectReason.WRONG_SHARES
            await cohort.answer([one for one in cohort.clients if one is not liar])
            await settled(cohort, Phase.UNMASK)
            assert cohort.integer_sum().tolist() == [UNIT] * 9

        play(script, 9)

    def test_that_were_stored_all_the_same_are_corrected_and_named(self) -> None:
        """What admission lets through by mistake, decoding with errors still finds."""

        async def script(cohort: Cohort) -> None:
            await advance(cohort, Phase.UNMASK)
            rows = {}
            for number, one in enumerate(cohort.clients):
                one.feed(cohort.host.confirmations(one.identity))
                message = answering(one, wrong_share) if number == 2 else one.outbox.pop()
                position = cohort.host.driver.state.cohort.positions[number]
                rows[row_key(position, RowKind.ANSWER)] = AnswerRow(message.signed.to_bytes())
            disagreed = recovered(cohort, rows).disagreed
            assert set(disagreed) == {(2, owner) for owner in range(9) if owner != 2}

        play(script, 9)

    def test_of_the_other_kind_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.UNMASK)
            one = cohort.clients[0]
            one.feed(cohort.host.confirmations(one.identity))
            message = answering(one, lambda share: RootShare(share.index, share.share) if share.index == 3 else share)
            return await refused(cohort, one, message)

        assert play(script) is RejectReason.WRONG_SHARES

    def test_for_fewer_neighbours_than_held_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.UNMASK)
            one = cohort.clients[0]
            one.feed(cohort.host.confirmations(one.identity))
            statement = one.outbox[0].signed.statement
            assert isinstance(statement, UnmaskStatement)
            fewer = dataclasses.replace(statement, shares=statement.shares[1:])
            return await refused(cohort, one, UnmaskAnswer(signed_by(one.context.identity, fewer)))

        assert play(script) is RejectReason.WRONG_SHARES

    def test_about_another_close_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.UNMASK)
            one = cohort.clients[0]
            one.feed(cohort.host.confirmations(one.identity))
            statement = one.outbox[0].signed.statement
            assert isinstance(statement, UnmaskStatement)
            other = dataclasses.replace(statement, close=bytes(32))
            return await refused(cohort, one, UnmaskAnswer(signed_by(one.context.identity, other)))

        assert play(script) is RejectReason.WRONG_LOG_ROOT

    def test_without_a_confirmation_first_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.CONSISTENCY_CHECK)
            await cohort.confirm(cohort.clients[:4])
            await settled(cohort, Phase.CONSISTENCY_CHECK)
            silent = cohort.clients[4]
            silent.feed(cohort.host.closed_list())
            silent.outbox.clear()
            silent.feed(cohort.host.confirmations(silent.identity))
            return await refused(cohort, silent, silent.outbox[0])

        assert play(script) is RejectReason.WRONG_PHASE


class TestADealer:
    def wrongly(self, liar: int, spoilt: set[int], stays: bool) -> Callable[[Cohort], Awaitable[str]]:
        """A script in which ``liar`` deals shares of nothing to some, in boxes that open."""

        async def script(cohort: Cohort) -> str:
            await advance(cohort, Phase.SHARE_KEYS)
            for one in cohort.clients:
                one.feed(cohort.host.advertised_list(one.identity))
            dealer = cohort.clients[liar]
            public = {keys.index: keys.share_public for keys in cohort.host.advertised_list(dealer.identity).keys}
            root = cohort.host.driver.state.cohort.root

            def alter(box: OutgoingBoxes) -> OutgoingBoxes:
                if box.recipient not in spoilt:
                    return box
                return garbage_for(cohort.session, root, liar, box, public[box.recipient])

            await cohort.send(dealer, dealt(dealer, alter))
            rest = [one for one in cohort.clients if one is not dealer]
            for one in rest:
                await cohort.deliver(one)
            await cohort.reach(Phase.MASKED_INPUT)
            present = cohort.clients if stays else rest
            await cohort.upload(present)
            await settled(cohort, Phase.MASKED_INPUT)
            return await finish(cohort, present)

        return script

    @pytest.mark.parametrize("stays", [True, False])
    def test_of_wrong_shares_to_everybody_is_named_in_the_abort(self, stays: bool) -> None:
        reason = play(self.wrongly(1, {0, 2, 3, 4, 5, 6}, stays), 7)
        assert "index 1" in str(reason)

    @pytest.mark.parametrize("stays", [True, False])
    def test_of_a_few_wrong_shares_stops_nobody(self, stays: bool) -> None:
        assert play(self.wrongly(1, {4}, stays), 7) == ""

    @pytest.mark.parametrize("broken", ["share_box", "pair_box", "commitments"])
    @pytest.mark.parametrize("liar", [0, 1])
    def test_of_boxes_that_do_not_open_to_what_was_promised_is_left_out_alone(self, liar: int, broken: str) -> None:
        async def script(cohort: Cohort) -> None:
            await advance(cohort, Phase.SHARE_KEYS)
            for one in cohort.clients:
                one.feed(cohort.host.advertised_list(one.identity))
            dealer = cohort.clients[liar]
            spoilt = [2, 3]

            def alter(box: OutgoingBoxes) -> OutgoingBoxes:
                if box.recipient not in spoilt:
                    return box
                return dataclasses.replace(box, **{broken: bytes(len(getattr(box, broken)))})

            await cohort.send(dealer, dealt(dealer, alter))
            for one in cohort.clients:
                if one is not dealer:
                    await cohort.deliver(one)
            await cohort.reach(Phase.MASKED_INPUT)
            await cohort.upload(cohort.clients)
            await settled(cohort, Phase.MASKED_INPUT)
            assert cohort.host.driver.state.accepted == tuple(index for index in range(7) if index != liar)
            rest = [one for one in cohort.clients if one is not dealer]
            assert await finish(cohort, rest) == ""
            assert cohort.integer_sum().tolist() == indicator(cohort)

        play(script, 7)

    def test_of_a_box_that_does_not_open_who_admits_it_stays(self) -> None:
        """Both ends list the other: no edge is left, nobody is rejected, the sum is exact."""

        async def script(cohort: Cohort) -> None:
            await advance(cohort, Phase.SHARE_KEYS)
            for one in cohort.clients:
                one.feed(cohort.host.advertised_list(one.identity))
            dealer = cohort.clients[0]

            def alter(box: OutgoingBoxes) -> OutgoingBoxes:
                return dataclasses.replace(box, share_box=bytes(len(box.share_box))) if box.recipient == 2 else box

            await cohort.send(dealer, dealt(dealer, alter))
            for one in cohort.clients[1:]:
                await cohort.deliver(one)
            await cohort.reach(Phase.MASKED_INPUT)
            for one in cohort.clients:
                one.feed(await cohort.host.shared_list(one.identity))
            await contribute(cohort, dealer, claiming_missing(dealer, cohort.host.driver.state.shared, [2]))
            for one in cohort.clients[1:]:
                await cohort.deliver(one)
            await settled(cohort, Phase.MASKED_INPUT)
            assert cohort.host.driver.state.accepted == tuple(range(7))
            assert await finish(cohort, cohort.clients) == ""
            assert cohort.integer_sum().tolist() == [UNIT] * 7

        play(script, 7)

    @pytest.mark.parametrize(
        ("alter", "reason"),
        [
            (lambda box: dataclasses.replace(box, recipient=box.recipient + 1), RejectReason.WRONG_RECIPIENTS),
            (lambda box: dataclasses.replace(box, share_box=box.share_box + b"x"), RejectReason.WRONG_BOX_LENGTH),
            (lambda box: dataclasses.replace(box, pair_box=b"x"), RejectReason.WRONG_BOX_LENGTH),
            (lambda box: dataclasses.replace(box, pair_box=b""), RejectReason.WRONG_BOX_LENGTH),
            (lambda box: dataclasses.replace(box, commitments=bytes(64)), RejectReason.WRONG_BOX_LENGTH),
        ],
    )
    def test_of_boxes_of_another_form_is_refused(
        self, alter: Callable[[OutgoingBoxes], OutgoingBoxes], reason: RejectReason
    ) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.SHARE_KEYS)
            one = cohort.clients[0]
            one.feed(cohort.host.advertised_list(one.identity))
            return await refused(cohort, one, dealt(one, alter))

        assert play(script) is reason

    def test_of_boxes_that_are_not_the_signed_ones_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.SHARE_KEYS)
            one = cohort.clients[0]
            one.feed(cohort.host.advertised_list(one.identity))
            (message,) = one.outbox
            assert isinstance(message, ShareKeys)
            swapped = (
                dataclasses.replace(message.boxes[0], share_box=message.boxes[1].share_box),
                *message.boxes[1:],
            )
            return await refused(cohort, one, ShareKeys(message.signed, swapped))

        assert play(script) is RejectReason.WRONG_BOX_ROOT

    def test_over_another_u1_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.SHARE_KEYS)
            one = cohort.clients[0]
            one.feed(cohort.host.advertised_list(one.identity))
            (message,) = one.outbox
            assert isinstance(message, ShareKeys)
            other = dataclasses.replace(message.signed.statement, advertised=bytes(32))
            return await refused(cohort, one, ShareKeys(signed_by(one.context.identity, other), message.boxes))

        assert play(script) is RejectReason.WRONG_LOG_ROOT


class TestKeys:
    async def message(self, cohort: Cohort) -> tuple[Client, AdvertiseKeys]:
        one = cohort.clients[0]
        message = one.outbox[0]
        assert isinstance(message, AdvertiseKeys)
        return one, message

    def test_of_a_stranger_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.message(cohort)
            stranger = key_of("stranger")
            statement = dataclasses.replace(message.signed.statement, identity=stranger.public_bytes)
            return await refused(cohort, one, dataclasses.replace(message, signed=signed_by(stranger, statement)))

        assert play(script) is RejectReason.UNKNOWN_IDENTITY

    def test_in_the_name_of_another_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.message(cohort)
            statement = dataclasses.replace(message.signed.statement, identity=cohort.clients[1].identity)
            signed = signed_by(one.context.identity, statement)
            return await refused(cohort, one, dataclasses.replace(message, signed=signed))

        assert play(script) is RejectReason.BAD_SIGNATURE

    def test_that_are_not_the_signed_ones_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.message(cohort)
            return await refused(cohort, one, dataclasses.replace(message, mask_public=message.share_public))

        assert play(script) is RejectReason.BAD_KEY

    def test_that_nobody_could_seal_to_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.message(cohort)
            zero = bytes(len(message.mask_public))
            statement = dataclasses.replace(message.signed.statement, mask_key=_sha256(zero))
            signed = signed_by(one.context.identity, statement)
            return await refused(cohort, one, AdvertiseKeys(signed, zero, message.share_public))

        assert play(script) is RejectReason.BAD_KEY

    def test_that_change_are_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.message(cohort)
            await cohort.send(one, message)
            await cohort.send(one, message)
            statement = dataclasses.replace(message.signed.statement, mask_key=message.signed.statement.share_key)
            signed = signed_by(one.context.identity, statement)
            return await refused(cohort, one, AdvertiseKeys(signed, message.share_public, message.share_public))

        assert play(script) is RejectReason.EQUIVOCATION

    def test_that_come_late_are_refused_and_a_late_repetition_is_not(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            first, late = cohort.clients[0].outbox[0], cohort.clients[4].outbox[0]
            await cohort.advertise(cohort.clients[:4])
            await cohort.end_phase(Phase.SHARE_KEYS)
            await cohort.send(cohort.clients[0], first)
            return await refused(cohort, cohort.clients[4], late)

        assert play(script) is RejectReason.WRONG_PHASE


class TestAContribution:
    async def ready(self, cohort: Cohort) -> tuple[Client, Contribution]:
        await advance(cohort, Phase.MASKED_INPUT)
        one = cohort.clients[1]
        one.feed(await cohort.host.shared_list(one.identity))
        (message,) = one.outbox
        assert isinstance(message, Contribution)
        return one, message

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            pytest.param({"lanes": 1}, RejectReason.WRONG_LENGTH, id="wrong vector length"),
            pytest.param({"session": bytes(32)}, RejectReason.WRONG_SESSION, id="another session's header"),
            pytest.param({"shared": bytes(32)}, RejectReason.WRONG_LOG_ROOT, id="another list of shared keys"),
            pytest.param({"missing": (1,)}, RejectReason.WRONG_MISSING, id="misses itself"),
            pytest.param({"missing": (9,)}, RejectReason.WRONG_MISSING, id="misses nobody"),
            pytest.param({"missing": (0, 2, 3)}, RejectReason.TOO_FEW_NEIGHBOURS, id="misses too many"),
        ],
    )
    def test_with_a_wrong_header_is_refused(self, change: dict[str, object], reason: RejectReason) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.ready(cohort)
            statement = dataclasses.replace(message.signed.statement, **change)
            return await refused(
                cohort, one, Contribution(signed_by(one.context.identity, statement), message.linear_hash)
            )

        assert play(script) is reason

    @pytest.mark.parametrize("length", [0, 8, 81])
    def test_of_another_length_than_announced_never_becomes_an_upload(self, length: int) -> None:
        async def script(cohort: Cohort) -> None:
            one, message = await self.ready(cohort)
            statement = dataclasses.replace(message.signed.statement, upload=_sha256(bytes(length)))
            desk = UploadDesk(cohort.blobs, Secret(bytes(32)))
            signed = signed_by(one.context.identity, statement)
            token, committed, receipt = await desk.begin(cohort.host, Contribution(signed, message.linear_hash))
            assert (committed, receipt) == (0, None)
            data = bytes(length)

            async def upload() -> None:
                await desk.write(token, Chunk(0, data, zlib.crc32(data)))
                await desk.finish(token)

            with pytest.raises(UploadError):
                await upload()
            assert not cohort.host.is_staged(one.identity)

        assert play(script) is None

    def test_of_other_bytes_than_signed_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.ready(cohort)
            await cohort.host.submit(message)
            with pytest.raises(ProtocolError) as caught:
                await cohort.host.submit(UploadStaged(one.identity, cohort.blobs.put(bytes(80))))
            return caught.value.reason

        assert play(script) is RejectReason.WRONG_UPLOAD

    def test_before_its_header_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, _ = await self.ready(cohort)
            with pytest.raises(ProtocolError) as caught:
                await cohort.host.submit(UploadStaged(one.identity, cohort.blobs.put(one.upload)))
            return caught.value.reason

        assert play(script) is RejectReason.WRONG_UPLOAD

    def test_that_differs_from_an_earlier_one_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one, message = await self.ready(cohort)
            await cohort.send(one, message)
            await cohort.send(one, message)
            other = dataclasses.replace(message.signed.statement, upload=cohort.blobs.put(bytes(80)))
            return await refused(cohort, one, Contribution(signed_by(one.context.identity, other), message.linear_hash))

        assert play(script) is RejectReason.EQUIVOCATION

    def test_without_shared_keys_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.SHARE_KEYS)
            await cohort.share(cohort.clients[:4])
            await cohort.end_phase(Phase.MASKED_INPUT)
            absent = cohort.clients[4]
            header = ContributionHeader(
                cohort.session.digest,
                cohort.host.driver.state.shared,
                absent.identity,
                bytes(32),
                _sha256(bytes(HASH_BYTES)),
                cohort.session.field_layout.lanes,
                (),
            )
            return await refused(
                cohort, absent, Contribution(signed_by(absent.context.identity, header), bytes(HASH_BYTES))
            )

        assert play(script) is RejectReason.NOT_IN_COHORT

    def test_of_noise_is_never_published_as_a_sum(self) -> None:
        async def script(cohort: Cohort) -> str:
            one, _ = await self.ready(cohort)
            noise = np.full(cohort.session.field_layout.lanes, 0x0123456789ABCDEF, dtype=np.uint64)
            await contribute(cohort, one, uploading(one, noise))
            await cohort.upload([other for other in cohort.clients if other is not one])
            await settled(cohort, Phase.MASKED_INPUT)
            return await finish(cohort, cohort.clients)

        assert str(play(script)).startswith("the sum does not decode")


class TestAConfirmation:
    def test_of_another_close_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.CONSISTENCY_CHECK)
            one = cohort.clients[0]
            statement = ConfirmStatement(cohort.session.digest, bytes(32), one.identity)
            return await refused(cohort, one, ConfirmClose(signed_by(one.context.identity, statement)))

        assert play(script) is RejectReason.WRONG_LOG_ROOT

    def test_of_who_is_not_in_the_sum_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.MASKED_INPUT)
            await cohort.upload(cohort.clients[:4])
            await cohort.end_phase(Phase.CONSISTENCY_CHECK)
            late = cohort.clients[4]
            statement = ConfirmStatement(cohort.session.digest, cohort.host.driver.state.close, late.identity)
            return await refused(cohort, late, ConfirmClose(signed_by(late.context.identity, statement)))

        assert play(script) is RejectReason.NOT_IN_COHORT

    def test_with_another_statement_inside_is_refused(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            await advance(cohort, Phase.CONSISTENCY_CHECK)
            one = cohort.clients[0]
            return await refused(cohort, one, ConfirmClose(one.state.sent))

        assert play(script) is RejectReason.MALFORMED_MESSAGE


class TestDrops:
    @pytest.mark.parametrize("gone", [(0,), (3,), (5,), (0, 5)])
    @pytest.mark.parametrize("handled", [False, True], ids=["before its message", "after its message"])
    @pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.value)
    def test_at_every_boundary_leave_an_exact_sum(self, phase: Phase, handled: bool, gone: tuple[int, ...]) -> None:
        async def script(cohort: Cohort) -> None:
            acts = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer]
            rest = [one for number, one in enumerate(cohort.clients) if number not in gone]
            for now, act in zip(PHASES, acts, strict=True):
                early = PHASES.index(now) < PHASES.index(phase) or (now is phase and handled)
                if cohort.host.status().phase is now:
                    await act(cohort.clients if early else rest)
                    await settled(cohort, now)
            assert cohort.host.status().phase is Phase.FINISHED
            last = Phase.MASKED_INPUT
            counted = PHASES.index(phase) > PHASES.index(last) or (phase is last and handled)
            expected = [UNIT * (counted or number not in gone) for number in range(7)]
            assert cohort.integer_sum().tolist() == expected == indicator(cohort)

        play(script, 7)

    @pytest.mark.parametrize("gone", [0, 3, 6])
    def test_between_header_and_upload_leave_an_exact_sum(self, gone: int) -> None:
        async def script(cohort: Cohort) -> None:
            await advance(cohort, Phase.MASKED_INPUT)
            lost = cohort.clients[gone]
            lost.feed(await cohort.host.shared_list(lost.identity))
            await cohort.host.submit(lost.outbox[0])
            rest = [one for one in cohort.clients if one is not lost]
            await cohort.upload(rest)
            await settled(cohort, Phase.MASKED_INPUT)
            assert await finish(cohort, rest) == ""
            assert cohort.integer_sum().tolist() == [UNIT * (index != gone) for index in range(7)]

        play(script, 7)

    @pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.value)
    def test_of_too_many_abort_and_open_nothing(self, phase: Phase) -> None:
        async def script(cohort: Cohort) -> None:
            acts = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer]
            for now, act in zip(PHASES, acts, strict=True):
                early = PHASES.index(now) < PHASES.index(phase)
                if cohort.host.status().phase is now:
                    among = cohort.clients if early else cohort.clients[:2]
                    if now is Phase.UNMASK and phase is Phase.CONSISTENCY_CHECK:
                        # Nobody answers to a close that two of five confirmed.
                        with pytest.raises(ProtocolError, match="TOO_FEW_CONFIRMATIONS"):
                            await act(among)
                    else:
                        await act(among)
                    await settled(cohort, now)
            assert cohort.host.status().phase is Phase.ABORTED
            with pytest.raises(ProtocolError):
                cohort.host.integer_sum()

        play(script, 5)


def recovered(cohort: Cohort, answers: dict[int, Row]) -> Removal:
    """The removal that these answers give."""
    state = cohort.host.driver.state
    rows = dict(cohort.host.rows) | answers
    last = Unmasking(0, state.cohort, state.present, state.accepted, bytes(32), 0, 0, 0)
    return recovery.recover(cohort.session, rows, last, cohort.blobs.read)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
