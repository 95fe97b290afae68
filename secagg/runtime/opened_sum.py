"""Opening a one-shot session at the coordinator: from the answers in the rows to the sum and what is published of it.

Everything blocks; it runs in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.seeded_shamir import shares_from_bytes
from secagg.derive.result import decode
from secagg.derive.ring_opening import (
    Lanes,
    MaskedSum,
    RingOpening,
    RingOpeningError,
    open_with_shares,
    without_padding,
)
from secagg.lora.errors import AdapterError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.coordinator_states import Opening, RecoveryFailed, Rows, SumRecovered
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.rows import SetupRow
from secagg.runtime import vectors
from secagg.runtime.adapters import AdapterMerge
from secagg.runtime.limb_sums import masked_sum
from secagg.runtime.ports import BlobStore
from secagg.transcript import merkle
from secagg.transcript.openers import Committee
from secagg.transcript.statements import AuthorityAnswer, MemberAnswer, Signed


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """What recovery works on: the session, its rows as they were when it began, its setup, the blobs."""

    session: OneShotSession
    rows: Rows
    setup: SetupRow
    blobs: BlobStore


def recover(opened: OpenedSession, state: Opening) -> SumRecovered | RecoveryFailed:
    """Open the sum of ``state.accepted``, keep it, and say what came of it.

    Raises:
        StoreError, OSError: a blob cannot be read or written; to be tried again.
    """
    session, blobs = opened.session, opened.blobs
    parameters, count = session.parameters, len(state.accepted)
    answers = tables.answers(opened.rows)
    close = tables.close_entry(opened.rows)
    masked = MaskedSum(
        session.ring_mask, session.public_key, masked_sum(blobs, close.limb_sum, count, session.upload_lanes), count
    )
    try:
        opening, lanes = _open(session, answers, masked)
        decoded = decode(
            parameters.encoding, parameters.noise, without_padding(lanes, session.field_layout.lanes), count
        )
        aggregate = AdapterMerge(parameters, opened.setup, blobs).keep(decoded.mean, count)
    except RingOpeningError as error:
        return RecoveryFailed(f"{error}")
    except CertificationError:
        return RecoveryFailed("what the authority answered does not open the sum")
    except ArithmeticInputError as error:
        # The mask is out, so some upload was not an encoding: nothing wrong is published.
        return RecoveryFailed(f"the sum does not decode: {error.field}")
    except AdapterError as error:
        return RecoveryFailed(f"the mean is no adapter: {error.reason.name}")
    leaves = [signed.to_bytes() for signed in answers.values()]
    attestations = [signed.to_bytes() for signed in tables.attestations(opened.rows)]
    return SumRecovered(
        openings=merkle.root(leaves),
        integer_sum=blobs.put(vectors.as_bytes(decoded.integer_sum)),
        mean=blobs.put(vectors.as_bytes(decoded.mean)),
        aggregate=aggregate,
        secret_sum=blobs.put(vectors.as_bytes(opening.secret_sum)),
        used=opening.used,
        dissenting=opening.dissenting,
        openings_file=blobs.put(b"".join(leaf + b"\n" for leaf in leaves)),
        attestations_file=blobs.put(b"".join(leaf + b"\n" for leaf in attestations)),
    )


def _open(session: OneShotSession, answers: dict[int, Signed], masked: MaskedSum) -> tuple[RingOpening, Lanes]:
    if isinstance(session.opening, Committee):
        shares = {
            place: shares_from_bytes(signed.statement.share_sum)
            for place, signed in answers.items()
            if isinstance(signed.statement, MemberAnswer)
        }
        return open_with_shares(session.opening, shares, masked)
    for signed in answers.values():
        if isinstance(signed.statement, AuthorityAnswer):
            secret_sum = np.frombuffer(signed.statement.secret_sum, dtype="<i4").astype(np.int64)
            return RingOpening(secret_sum, (), ()), masked.certified(secret_sum)
    raise RingOpeningError("the authority has not answered")
