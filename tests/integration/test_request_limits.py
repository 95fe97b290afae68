"""Requests are as long as the service lets them be: what a session needs has to fit, or the session is not opened."""

from __future__ import annotations

import asyncio
import dataclasses
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secagg.derive import boxes
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import OutgoingBoxes, ShareKeys
from secagg.services.operator import check_boxes
from secagg.services.server import SMALL_REQUEST_BYTES
from secagg.transcript.entries import PairwiseOpen
from secagg.transcript.statements import ShareStatement, Signed
from secagg.wire import convert
from tests.support import one_shot
from tests.support.cohort import key_of, session_of
from tests.support.service import open_example_session, serving, tiny_adapter


def strangers(count: int) -> list[Any]:
    """Identities that stand in a roster and never sign."""
    return [SimpleNamespace(public_bytes=number.to_bytes(32, "big")) for number in range(count)]


def heavy(parameters: PairwiseOpen) -> PairwiseOpen:
    """A quarter may be corrupt and three tenths drop out: a safe degree of 1978 exists for 3000."""
    encoding = dataclasses.replace(parameters.encoding, max_contributors=3000)
    return dataclasses.replace(
        parameters, encoding=encoding, min_contributors=760, max_corrupt=750, expected_dropout=Fraction(3, 10)
    )


def test_no_session_is_opened_whose_boxes_are_longer_than_a_request_may_be(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path / "state") as service:
            with pytest.raises(RemoteProtocolError, match=r"boxes for 1978 neighbours") as caught:
                await open_example_session(
                    service, strangers(3000), tiny_adapter(tmp_path / "adapter", 1), change=heavy
                )
            assert caught.value.reason is RejectReason.WRONG_LENGTH

    asyncio.run(run())


def test_whatever_passes_the_check_of_boxes_fits_a_request() -> None:
    session = session_of([key_of(f"client {number}") for number in range(100)])
    digest = bytes(32)
    statement = ShareStatement(digest, digest, digest, digest, digest, digest)
    sent = tuple(
        OutgoingBoxes(
            other,
            bytes(boxes.SHARE_BOX_BYTES),
            bytes(boxes.pair_box_bytes(0, other)),
            bytes(boxes.commitments_bytes(0, other)),
        )
        for other in range(1, 100)
    )
    request = convert.share_keys_to_pb(bytes(16), ShareKeys(Signed(statement, bytes(64)), sent))
    check_boxes(session, SMALL_REQUEST_BYTES)
    with pytest.raises(RemoteProtocolError, match="boxes for 99 neighbours"):
        check_boxes(session, request.ByteSize())
    check_boxes(session, request.ByteSize() + (8 << 10))
    check_boxes(one_shot.session_of([key_of(f"client {number}") for number in range(4)]), 0)


def test_a_roster_is_opened_that_takes_more_than_a_request_of_a_client_may(tmp_path: Path) -> None:
    count = 40_000

    async def run() -> None:
        async with serving(tmp_path / "state") as service:
            opened = await open_example_session(service, strangers(count), tiny_adapter(tmp_path / "adapter", 1))
            assert opened.roster_size == count

    asyncio.run(run())
