"""Clients that sign another linear hash than their upload's, against the real coordinator: found, and left out."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from secagg.arith import linear_hash
from secagg.arith.linear_hash import HASH_BYTES, HASH_WORDS, LimbSum, hash_limb_sum, sum_of_hashes
from secagg.crypto.secret import Secret
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import Contribution
from secagg.protocol.pairwise import tables
from secagg.protocol.pairwise.client_states import Aborted as LeftOut
from secagg.protocol.pairwise.coordinator_states import Aborted, Folding
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RejectedRow, RowKind, UploadsRefuted, log_size, row_key
from secagg.runtime import limb_sums, vectors
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.ports import StoreError
from secagg.services.uploads import UploadDesk
from secagg.transcript import merkle
from secagg.transcript.entries import SessionAbort, SessionClose
from secagg.transcript.statements import ContributionHeader, Rejected
from tests.support.cohort import Client, Cohort
from tests.support.liars import advance, cohort_of, contribute, settled, stop, uploading
from tests.support.stage import UNIT, signed_by

OTHER_LANES = np.arange(1000, dtype=np.uint64)


def play(script: Callable[[Cohort], Awaitable[object]], size: int = 7, **parameters: int) -> object:
    """Run a script over a fresh cohort, whose clients are about to upload."""

    async def run() -> object:
        cohort = await cohort_of(size, **parameters)
        try:
            await advance(cohort, Phase.MASKED_INPUT)
            return await script(cohort)
        finally:
            await stop(cohort.host)

    return asyncio.run(run())


async def masked(cohort: Cohort, one: Client) -> tuple[Contribution, np.ndarray]:
    """What the client would send, and its lanes."""
    one.feed(await cohort.host.shared_list(one.identity))
    (message,) = one.outbox
    assert isinstance(message, Contribution)
    return message, np.frombuffer(one.upload, dtype=np.uint64)


def other_hash(lanes: np.ndarray) -> bytes:
    """A client that signs the hash of another vector."""
    return vectors.linear_hash_of(OTHER_LANES[: lanes.size] ^ lanes)


def no_hash(lanes: np.ndarray) -> bytes:
    """A client that signs the right digest of what is the hash of nothing known."""
    return hashlib.shake_256(b"noise" + lanes.tobytes()).digest(HASH_BYTES)


def one_off(lanes: np.ndarray) -> bytes:
    """A client whose hash is wrong by one in one of 2048 words."""
    return shifted(vectors.linear_hash_of(lanes), 1)


def shifted(data: bytes, by: int) -> bytes:
    word = (int.from_bytes(data[56:64], "little") + by) % 2**64
    return data[:56] + word.to_bytes(8, "little") + data[64:]


async def upload_with_liars(
    cohort: Cohort, liars: Sequence[int], lie: Callable[[np.ndarray], bytes] = other_hash
) -> None:
    """Everybody uploads what they masked, in order; the liars under a signed wrong hash."""
    for index, one in enumerate(cohort.clients):
        message, lanes = await masked(cohort, one)
        if index in liars:
            message = uploading(one, lanes, lie(lanes))
        one.outbox.clear()
        await contribute(cohort, one, message)
        one.feed(cohort.host.receipt(message.signed))


def rejected(cohort: Cohort) -> dict[int, str]:
    """Who is rejected, and why."""
    state = cohort.host.driver.state
    names = {}
    for index, position in enumerate(state.cohort.positions):
        row = cohort.host.rows.get(row_key(position, RowKind.REJECTED))
        if isinstance(row, RejectedRow):
            names[index] = row.reason
    return names


async def finish(cohort: Cohort, liars: Sequence[int]) -> SessionClose:
    """Let everybody who may go on to the end; the sum must be exact without the liars. The close entry."""
    await settled(cohort, Phase.MASKED_INPUT)
    await cohort.reach(Phase.CONSISTENCY_CHECK)
    close = tables.close_entry(cohort.host.rows)
    honest = [one for index, one in enumerate(cohort.clients) if index not in liars]
    for index in liars:
        cohort.clients[index].feed(cohort.host.closed_list())
        assert cohort.clients[index].state.reason is RejectReason.LEFT_OUT
        assert isinstance(cohort.clients[index].state, LeftOut)
    await cohort.confirm(honest)
    await settled(cohort, Phase.CONSISTENCY_CHECK)
    await cohort.answer(honest)
    await cohort.reach(Phase.FINISHED)
    assert cohort.host.status().phase is Phase.FINISHED
    expected = [UNIT * (index not in liars) for index in range(len(cohort.clients))]
    assert cohort.integer_sum().tolist() == expected
    return close


def audit(cohort: Cohort, close: SessionClose) -> None:
    """What anybody can check of the published hashes and limb sum: they are the accepted headers', and agree."""
    state = cohort.host.driver.state
    headers = tables.staged_headers(cohort.host.rows, state.cohort, state.accepted)
    assert len(headers) == close.count
    hashes = [cohort.blobs.get(headers[index].linear_hash) for index in sorted(headers)]
    entries = np.frombuffer(cohort.blobs.get(close.limb_sum), dtype="<u8")
    lanes = cohort.session.field_layout.lanes
    for row, places in zip(entries.reshape(-1, 4 * lanes), linear_hash.shard_ranges(close.count, lanes), strict=True):
        part = [np.frombuffer(hashes[place], dtype="<u8") for place in places]
        limb_sum = LimbSum.from_entries(row, len(places))
        assert (sum_of_hashes(part) == hash_limb_sum(limb_sum)).all()


class TestSignsAnotherHash:
    @pytest.mark.parametrize("lie", [other_hash, no_hash, one_off])
    @pytest.mark.parametrize("liar", [0, 3, 6])
    def test_a_liar_is_left_out_by_name_and_the_sum_and_the_audit_are_exact(
        self, liar: int, lie: Callable[[np.ndarray], bytes]
    ) -> None:
        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, [liar], lie)
            close = await finish(cohort, [liar])
            assert rejected(cohort) == {liar: "WRONG_LINEAR_HASH"}
            assert (close.count, close.rejected, close.dropped) == (6, 1, 0)
            state = cohort.host.driver.state
            dispositions = tables.dispositions(cohort.host.rows, state.cohort, state.present, state.accepted)
            assert dispositions[liar] == Rejected(liar, "WRONG_LINEAR_HASH")
            audit(cohort, close)

        play(script)

    @pytest.mark.parametrize("liars", [(0, 1), (0, 6), (1, 3), (2, 4), (5, 6)])
    def test_every_one_of_several_is_found_and_nobody_else(self, liars: tuple[int, ...]) -> None:
        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, liars, no_hash)
            close = await finish(cohort, liars)
            assert rejected(cohort) == dict.fromkeys(liars, "WRONG_LINEAR_HASH")
            audit(cohort, close)

        play(script)

    def test_many_among_many_are_found(self) -> None:
        liars = (0, 1, 2, 7, 11, 12, 19, 23, 30)

        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, liars, one_off)
            audit(cohort, await finish(cohort, liars))
            assert set(rejected(cohort)) == set(liars)

        play(script, 31, max_corrupt=0, min_contributors=3)

    @pytest.mark.parametrize(("liars", "sums"), [((2,), True), ((2, 4), False)])
    def test_so_many_that_the_minimum_is_missed_abort_and_nothing_is_opened(
        self, liars: tuple[int, ...], sums: bool
    ) -> None:
        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, liars)
            if sums:
                await finish(cohort, liars)
                return
            await cohort.reach(Phase.ABORTED)
            assert cohort.host.driver.state.reason == "fewer than min_contributors contributed"
            entry = SessionAbort.from_bytes(cohort.host.evidence().entries[-1])
            assert (entry.answers, entry.openings) == (0, merkle.root(()))
            assert log_size(cohort.host.rows) == 4

        play(script, 7, min_contributors=6)

    @pytest.mark.parametrize("copies_the_hash", [False, True])
    def test_a_copy_of_an_honest_upload_is_refused_and_frames_nobody(self, copies_the_hash: bool) -> None:
        async def script(cohort: Cohort) -> None:
            honest, liar = cohort.clients[0], cohort.clients[4]
            _, lanes = await masked(cohort, honest)
            _, own = await masked(cohort, liar)
            await cohort.deliver(honest)
            copied = vectors.linear_hash_of(lanes)
            message = uploading(liar, own, copied) if copies_the_hash else uploading(liar, lanes, other_hash(lanes))
            with pytest.raises(RemoteProtocolError) as refused:
                await contribute(cohort, liar, message)
            assert refused.value.reason is RejectReason.DOUBLED_UPLOAD
            await cohort.upload([one for one in cohort.clients if one not in (liar, honest)])
            await settled(cohort, Phase.MASKED_INPUT)
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            assert rejected(cohort) == {}
            assert set(cohort.host.driver.state.accepted) == {0, 1, 2, 3, 5, 6}

        play(script)

    @pytest.mark.parametrize(
        ("errors", "found"), [({1: 9, 5: -9}, ()), ({1: 9, 5: -9, 8: 4}, (1, 5, 8)), ({4: 9, 5: -9, 0: 1}, (0,))]
    )
    def test_errors_that_cancel_spoil_nothing(self, errors: dict[int, int], found: tuple[int, ...]) -> None:
        """The equation is about sums: clients that collude can sign hashes that are right together only.

        What is published agrees all the same. They are found if a set that bisection looks at parts them.
        """

        async def script(cohort: Cohort) -> None:
            for index, one in enumerate(cohort.clients):
                message, lanes = await masked(cohort, one)
                if index in errors:
                    message = uploading(one, lanes, shifted(vectors.linear_hash_of(lanes), errors[index]))
                one.outbox.clear()
                await contribute(cohort, one, message)
                one.feed(cohort.host.receipt(message.signed))
            close = await finish(cohort, found)
            assert tuple(rejected(cohort)) == found
            audit(cohort, close)

        play(script, 9)

    def test_what_the_disk_did_is_no_clients_fault(self) -> None:
        async def script(cohort: Cohort) -> None:
            await cohort.upload(cohort.clients[:6])
            last, rows = cohort.clients[6], cohort.host.rows
            await masked(cohort, last)
            header = tables.staged_headers(rows, cohort.host.driver.state.cohort, [3])[3]
            good, original = cohort.blobs.get(header.upload), cohort.blobs.get

            def checked(digest: bytes) -> bytes:
                data = original(digest)
                if hashlib.sha256(data).digest() != digest:
                    raise StoreError("the disk holds other bytes")
                return data

            cohort.blobs.get = checked
            cohort.blobs._blobs[header.upload] = bytes(len(good))
            await asyncio.to_thread(cohort.host._sum.forget)
            await cohort.deliver(last)
            for _ in range(2000):
                if cohort.reports:
                    break
                await asyncio.sleep(0.002)
            assert ("effect_failed", cohort.session.parameters.session, "StoreError") in cohort.reports
            assert isinstance(cohort.host.driver.state, Folding)
            cohort.blobs._blobs[header.upload] = good
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            assert rejected(cohort) == {}

        play(script)


class TestSendsAnotherHashThanSigned:
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(no_hash(OTHER_LANES), id="another"),
            pytest.param(b"", id="nothing"),
            pytest.param(bytes(HASH_BYTES - 1), id="too short"),
            pytest.param(bytes(HASH_BYTES + 8), id="too long"),
        ],
    )
    def test_it_is_refused_and_nothing_is_kept(self, sent: bytes) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one = cohort.clients[1]
            message, _ = await masked(cohort, one)
            rows, blobs = dict(cohort.host.rows), set(cohort.blobs._blobs)
            with pytest.raises(ProtocolError) as caught:
                await cohort.host.submit(Contribution(message.signed, sent))
            assert dict(cohort.host.rows) == rows
            assert set(cohort.blobs._blobs) == blobs
            return caught.value.reason

        assert play(script) is RejectReason.WRONG_LINEAR_HASH

    @pytest.mark.parametrize("length", [0, HASH_BYTES - 8, HASH_BYTES + 8])
    def test_a_signed_hash_of_another_length_is_refused(self, length: int) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one = cohort.clients[1]
            _, lanes = await masked(cohort, one)
            with pytest.raises(ProtocolError) as caught:
                await cohort.host.submit(uploading(one, lanes, bytes(length)))
            return caught.value.reason

        assert play(script) is RejectReason.WRONG_LINEAR_HASH

    def test_after_the_header_was_accepted_too(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one = cohort.clients[1]
            message, _ = await masked(cohort, one)
            await cohort.host.submit(message)
            blobs = set(cohort.blobs._blobs)
            assert message.signed.statement.linear_hash in blobs
            await cohort.host.submit(message)
            with pytest.raises(ProtocolError) as caught:
                await cohort.host.submit(Contribution(message.signed, no_hash(OTHER_LANES)))
            assert set(cohort.blobs._blobs) == blobs
            return caught.value.reason

        assert play(script) is RejectReason.WRONG_LINEAR_HASH

    def test_strangers_store_nothing(self) -> None:
        async def script(cohort: Cohort) -> RejectReason:
            one = cohort.clients[1]
            message, _ = await masked(cohort, one)
            forged = signed_by(cohort.clients[2].context.identity, message.signed.statement)
            blobs = set(cohort.blobs._blobs)
            with pytest.raises(ProtocolError) as caught:
                await UploadDesk(cohort.blobs, Secret(bytes(32))).begin(
                    cohort.host, Contribution(forged, message.linear_hash)
                )
            assert set(cohort.blobs._blobs) == blobs
            return caught.value.reason

        assert play(script) is RejectReason.BAD_SIGNATURE

    def test_the_hash_is_stored_before_the_header_counts(self) -> None:
        async def script(cohort: Cohort) -> None:
            one = cohort.clients[1]
            message, _ = await masked(cohort, one)

            def full(_: object) -> bytes:
                raise StoreError("no space left")

            put, cohort.blobs.put = cohort.blobs.put, full
            with pytest.raises(StoreError):
                await cohort.host.submit(message)
            position = cohort.session.positions[one.identity]
            assert row_key(position, RowKind.HEADER) not in cohort.host.rows
            cohort.blobs.put = put
            await cohort.host.submit(message)
            assert row_key(position, RowKind.HEADER) in cohort.host.rows

        play(script)


class TestAfterARestart:
    @pytest.mark.parametrize("liars", [(), (2,), (0, 6)])
    @pytest.mark.parametrize("before", [0, 1, 5, 6])
    def test_the_liar_is_found_all_the_same(self, before: int, liars: tuple[int, ...]) -> None:
        async def script(cohort: Cohort) -> None:
            messages = []
            for index, one in enumerate(cohort.clients):
                message, lanes = await masked(cohort, one)
                messages.append(uploading(one, lanes, other_hash(lanes)) if index in liars else message)
                one.outbox.clear()
            for one, message in list(zip(cohort.clients, messages, strict=True))[:before]:
                await contribute(cohort, one, message)
            await restart(cohort)
            for one, message in list(zip(cohort.clients, messages, strict=True))[before:]:
                await contribute(cohort, one, message)
            close = await finish(cohort, liars)
            assert set(rejected(cohort)) == set(liars)
            audit(cohort, close)

        play(script)

    @pytest.mark.parametrize("liars", [(), (3,)])
    def test_while_the_sum_is_checked(self, liars: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        async def script(cohort: Cohort) -> None:
            stopped = asyncio.Event()
            perform = PairwiseHost._perform

            async def stuck(host: PairwiseHost, effect: object) -> object:
                if "Fold" in type(effect).__name__ and not stopped.is_set():
                    stopped.set()
                    await asyncio.Event().wait()
                return await perform(host, effect)

            monkeypatch.setattr(PairwiseHost, "_perform", stuck)
            await upload_with_liars(cohort, liars)
            await asyncio.wait_for(stopped.wait(), 10)
            await restart(cohort)
            audit(cohort, await finish(cohort, liars))

        play(script)

    @pytest.mark.parametrize("phase", [Phase.CONSISTENCY_CHECK, Phase.UNMASK])
    def test_the_sum_is_opened_from_the_limb_sum_that_was_committed(self, phase: Phase) -> None:
        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, [])
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            if phase is Phase.CONSISTENCY_CHECK:
                await restart(cohort)
            await cohort.confirm(cohort.clients)
            await cohort.reach(Phase.UNMASK)
            if phase is Phase.UNMASK:
                await restart(cohort)
            headers = [one.state for one in cohort.clients]
            assert headers
            for row in list(cohort.host.rows.values()):
                statement = getattr(getattr(row, "signed", None), "statement", None)
                if isinstance(statement, ContributionHeader):
                    cohort.blobs.delete(statement.upload)
            await cohort.answer(cohort.clients)
            await cohort.reach(Phase.FINISHED)
            assert cohort.integer_sum().tolist() == [UNIT] * 7

        play(script)

    def test_a_refutation_that_is_reported_twice_changes_nothing(self) -> None:
        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, [5])
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            before = dict(cohort.host.rows), cohort.host.driver.state
            await cohort.host.driver.feed(UploadsRefuted((5, 0)))
            assert (dict(cohort.host.rows), cohort.host.driver.state) == before

        play(script)


async def restart(cohort: Cohort) -> None:
    """The coordinator stops and another process goes on from the stores."""
    await stop(cohort.host)
    cohort.host = PairwiseHost(cohort.session, cohort.host._ports)
    await cohort.host.resume()


class TestAsymmetricEdgesAndHashesTogether:
    def test_whoever_is_left_out_for_either_is_not_in_the_limb_sum(self) -> None:
        async def script(cohort: Cohort) -> None:
            for index, one in enumerate(cohort.clients):
                message, lanes = await masked(cohort, one)
                if index == 1:
                    header = dataclasses.replace(message.signed.statement, missing=(3,))
                    message = Contribution(signed_by(one.context.identity, header), message.linear_hash)
                if index == 6:
                    message = uploading(one, lanes, other_hash(lanes))
                one.outbox.clear()
                await contribute(cohort, one, message)
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            close = tables.close_entry(cohort.host.rows)
            assert rejected(cohort) == {
                1: "ASYMMETRIC_EDGE", 3: "ASYMMETRIC_EDGE", 6: "WRONG_LINEAR_HASH",
            }  # fmt: skip
            assert (close.count, close.rejected, close.dropped) == (6, 3, 0)
            audit(cohort, close)

        play(script, 9)


class TestShards:
    @pytest.mark.parametrize("most", [1, 2, 3, 6, 7, 8])
    @pytest.mark.parametrize("liars", [(), (0,), (2, 3)])
    def test_a_session_beyond_the_norm_bound_is_split_and_every_shard_checked(
        self, most: int, liars: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linear_hash, "max_contributors", lambda lanes: most)

        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, liars)
            close = await finish(cohort, liars)
            assert set(rejected(cohort)) == set(liars)
            count = 7 - len(liars)
            assert len(cohort.blobs.get(close.limb_sum)) == -(-count // most) * 32 * cohort.session.field_layout.lanes
            audit(cohort, close)

        play(script)

    def test_the_bound_itself_splits_a_session(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def script(cohort: Cohort) -> None:
            lanes = cohort.session.field_layout.lanes
            # n 2^16 sqrt(4 lanes) <= 2^bits
            bits = next(b for b in range(17, 50) if 3 <= _most(b, lanes) < 7)
            monkeypatch.setattr(linear_hash, "NORM_BOUND_BITS", bits)
            await upload_with_liars(cohort, [6])
            close = await finish(cohort, [6])
            shards = linear_hash.shard_ranges(6, lanes)
            assert len(shards) > 1
            assert len(cohort.blobs.get(close.limb_sum)) == 32 * lanes * len(shards)
            audit(cohort, close)

        play(script)


def _most(bits: int, lanes: int) -> int:
    return int(2**bits / 2**16 / (4 * lanes) ** 0.5)


class TestCostOfLying:
    def test_finding_liars_takes_a_bounded_number_of_hashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A liar costs about two hashes for each halving, however many honest uploads there are."""
        hashed = []
        original = linear_hash.hash_limb_sum
        monkeypatch.setattr(limb_sums.linear_hash, "hash_limb_sum", lambda total: hashed.append(1) or original(total))

        async def script(cohort: Cohort) -> None:
            await upload_with_liars(cohort, [17])
            before = time.monotonic()
            await cohort.reach(Phase.CONSISTENCY_CHECK)
            assert time.monotonic() - before < 5

        play(script, 31)
        # The whole, four halvings down to four suspects or fewer, and the rest again.
        assert len(hashed) <= 2 + 2 * 3

    def test_hashes_are_as_long_as_they_are_said_to_be(self) -> None:
        assert HASH_BYTES == 8 * HASH_WORDS == 16384


def test_uploads_are_added_as_they_come_and_again_after_a_restart_before_the_close() -> None:
    async def held(cohort: Cohort, count: int) -> None:
        found = 0
        for _ in range(1000):
            running = cohort.host._sum._sum
            found = 0 if running is None else len(running.held)
            if found == count:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"{found} of {count} are in the running sum")

    async def script(cohort: Cohort) -> None:
        for count, one in enumerate(cohort.clients[:5], start=1):
            await cohort.upload([one])
            await held(cohort, count)
        await restart(cohort)
        await held(cohort, 5)
        assert cohort.host.status().phase is Phase.MASKED_INPUT
        await cohort.upload(cohort.clients[5:])
        audit(cohort, await finish(cohort, ()))

    play(script)


def test_a_session_that_was_aborted_holds_no_limb_sum_in_memory() -> None:
    async def script(cohort: Cohort) -> None:
        await cohort.upload(cohort.clients[:2])
        for _ in range(500):
            if cohort.host._sum._sum is not None:
                break
            await asyncio.sleep(0.002)
        assert cohort.host._sum._sum is not None
        await settled(cohort, Phase.MASKED_INPUT)
        await cohort.reach(Phase.ABORTED)
        assert isinstance(cohort.host.driver.state, Aborted)
        for _ in range(500):
            if cohort.host._sum._sum is None:
                break
            await asyncio.sleep(0.002)
        assert cohort.host._sum._sum is None

    play(script)
