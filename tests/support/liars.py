"""Clients that lie: what a corrupt client would send instead, signed with its own key, through the real host."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterable

from secagg.crypto.sealing import seal
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.derive.result import Lanes
from secagg.protocol.messages import Contribution, OutgoingBoxes, ShareKeys, UnmaskAnswer
from secagg.protocol.pairwise.client_states import MaskInput
from secagg.protocol.pairwise.coordinator_states import Advertising, Collecting, Confirming, Sharing, Unmasking
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, UploadStaged
from secagg.runtime import vectors
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.transcript import merkle
from secagg.transcript.statements import ReleasedShare, ShareStatement, UnmaskStatement
from tests.support.cohort import Client, Cohort, one_hot, open_cohort, session_of
from tests.support.stage import LENIENT, signed_by, sorted_keys

WRONG_SHARE = b"\x01\x00\x00\x00" * 9
"""Nine field elements, and no share of anything."""


async def cohort_of(size: int, *, min_contributors: int = 3, max_corrupt: int = 1) -> Cohort:
    """A live cohort in which client number i gets index i and contributes the unit vector i."""
    keys = sorted_keys(size)
    session = session_of(keys, dimension=size, min_contributors=min_contributors, max_corrupt=max_corrupt)
    cohort = await open_cohort(session, keys, lambda number: one_hot(size, number), LENIENT)
    cohort.start_all()
    return cohort


async def stop(host: PairwiseHost) -> None:
    """Close a host once its timers have seen the last change of its state."""
    for _ in range(50):
        await asyncio.sleep(0)
    await host.close()


async def advance(cohort: Cohort, phase: Phase) -> None:
    """Let everybody do what is asked for, honestly, until the session is in ``phase``."""
    order = [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT, Phase.CONSISTENCY_CHECK, Phase.UNMASK]
    steps = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm]
    for now, act in zip(order, steps, strict=False):
        if now is phase:
            return
        await act(cohort.clients)
        await cohort.reach(order[order.index(now) + 1])


async def settled(cohort: Cohort, phase: Phase) -> None:
    """Wait until ``phase`` is over: by itself if everybody did their part, else by its deadline."""
    for _ in range(200):
        if cohort.host.status().phase is not phase:
            break
        await asyncio.sleep(0)
    for _ in range(10):
        if cohort.host.status().phase is not phase:
            return
        if isinstance(cohort.host.driver.state, Advertising | Sharing | Collecting | Confirming | Unmasking):
            cohort.clock.time_s += 61
            await cohort.host.driver.feed(DeadlinePassed())
        for _ in range(200):
            if cohort.host.status().phase is not phase:
                return
            await asyncio.sleep(0.001)
    raise AssertionError(f"still in {phase}: {cohort.host.driver.state}")


def dealt(liar: Client, alter: Callable[[OutgoingBoxes], OutgoingBoxes]) -> ShareKeys:
    """The boxes in the liar's outbox, altered and signed again."""
    (message,) = liar.outbox
    liar.outbox.clear()
    assert isinstance(message, ShareKeys)
    assert isinstance(message.signed.statement, ShareStatement)
    altered = tuple(alter(box) for box in message.boxes)
    root = merkle.root_of_hashes(boxes.box_hashes(altered))
    statement = dataclasses.replace(message.signed.statement, boxes=root)
    signed = signed_by(liar.context.identity, statement)
    liar.state = dataclasses.replace(liar.state, sent=signed)
    return ShareKeys(signed, altered)


def claiming_missing(liar: Client, shared_root: bytes, missing: Iterable[int]) -> Contribution:
    """The liar's contribution as if the boxes of ``missing`` had not opened: their masks left out, all signed."""
    assert liar.masks is not None
    session, names = liar.context.session, tuple(sorted(missing))
    plan = without(liar, names)
    lanes, _ = vectors.masked_input(session, liar.vector, plan)
    held = tuple(share for share in liar.state.shares if share.index not in names)
    liar.state = dataclasses.replace(liar.state, shares=held)
    return uploading(liar, lanes, shared=shared_root, missing=names)


def uploading(liar: Client, lanes: Lanes, linear_hash: bytes | None = None, **changes: object) -> Contribution:
    """The liar's contribution with these lanes and this hash (by default theirs), and other changes of its header."""
    liar.outbox.clear()
    liar.upload = bytes(vectors.as_bytes(lanes))
    if linear_hash is None:
        linear_hash = vectors.linear_hash_of(lanes)
    digests = {"upload": vectors.digest_of(lanes), "linear_hash": hashlib.sha256(linear_hash).digest()}
    header = dataclasses.replace(liar.state.sent.statement, **digests, lanes=lanes.size, **changes)
    signed = signed_by(liar.context.identity, header)
    liar.state = dataclasses.replace(liar.state, sent=signed)
    return Contribution(signed, linear_hash)


def without(liar: Client, names: tuple[int, ...]) -> MaskInput:
    """The liar's masks without those shared with ``names``; in a complete graph they stand in order of index."""
    assert liar.masks is not None
    own = liar.state.place.index
    others = [index for index in range(len(liar.state.place.members)) if index != own]
    higher = [index for index in others if index > own]
    lower = [index for index in others if index < own]
    assert (len(higher), len(lower)) == (len(liar.masks.add), len(liar.masks.subtract))
    add = tuple(key for index, key in zip(higher, liar.masks.add, strict=True) if index not in names)
    subtract = tuple(key for index, key in zip(lower, liar.masks.subtract, strict=True) if index not in names)
    return MaskInput(liar.masks.rounding, liar.masks.self_mask, add, subtract)


async def contribute(cohort: Cohort, liar: Client, message: Contribution) -> None:
    """Carry a header and the bytes that belong to it to the coordinator."""
    await cohort.host.submit(message)
    digest = cohort.blobs.put(liar.upload)
    await cohort.host.submit(UploadStaged(liar.identity, digest))


def answering(liar: Client, alter: Callable[[ReleasedShare], ReleasedShare]) -> UnmaskAnswer:
    """The answer in the liar's outbox, altered share by share and signed again."""
    (message,) = liar.outbox
    liar.outbox.clear()
    assert isinstance(message, UnmaskAnswer)
    assert isinstance(message.signed.statement, UnmaskStatement)
    shares = tuple(alter(share) for share in message.signed.statement.shares)
    statement = dataclasses.replace(message.signed.statement, shares=shares)
    return UnmaskAnswer(signed_by(liar.context.identity, statement))


def wrong_share(share: ReleasedShare) -> ReleasedShare:
    """A share of the right kind with a wrong value."""
    return dataclasses.replace(share, share=WRONG_SHARE)


def garbage_for(
    session: PairwiseSession, advertised: bytes, sender: int, box: OutgoingBoxes, share_public: bytes
) -> OutgoingBoxes:
    """Boxes with shares of nothing, which open and are what the sender promised."""
    info = boxes.share_box_info(session.digest, advertised, sender, box.recipient)
    promised = boxes.commit_self_mask_share(session.digest, sender, box.recipient, WRONG_SHARE)
    promised += boxes.commit_root_share(session.digest, sender, box.recipient, WRONG_SHARE)
    return dataclasses.replace(
        box, share_box=seal(share_public, info, Secret(2 * WRONG_SHARE)), commitments=promised + box.commitments[64:]
    )


def other_pair_seed(
    session: PairwiseSession, advertised: bytes, sender: int, box: OutgoingBoxes, mask_public: bytes
) -> OutgoingBoxes:
    """A pair box that opens to what was promised, which does not follow from the sender's root."""
    seed = Secret(b"\x07" * 32)
    info = boxes.pair_box_info(session.digest, advertised, sender, box.recipient)
    promised = boxes.commit_pair_seed(session.digest, sender, box.recipient, seed)
    return dataclasses.replace(box, pair_box=seal(mask_public, info, seed), commitments=box.commitments[:64] + promised)
