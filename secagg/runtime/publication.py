"""The files of a session in the published record, as they follow from the coordinator's rows.

Each is written before the log entry that names it (docs/record.md). What is written again after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secagg.lora.config import CONFIG_FILE
from secagg.lora.reader import TENSOR_FILE
from secagg.protocol.pairwise import recovery, tables
from secagg.protocol.pairwise.coordinator_states import Cohort, Confirming, Finished, Rows, SetupRow, Unmasking
from secagg.protocol.session import Session
from secagg.runtime.ports import BlobStore, RecordPort
from secagg.transcript import merkle
from secagg.transcript.entries import SessionClose, SessionResult
from secagg.transcript.published import PairBox, PairPromise, PublishedPair


class SessionFiles:
    """Writes what one session publishes. The methods block."""

    def __init__(self, session: Session, record: RecordPort, blobs: BlobStore) -> None:
        self._session = session
        self._record = record
        self._blobs = blobs

    def opened(self, setup: SetupRow) -> None:
        """Roster, layout and adapter template."""
        for name, blob in (
            ("roster.jsonl", setup.roster),
            ("layout.json", setup.layout),
            ("adapter.json", setup.adapter),
        ):
            self._write(name, [self._blobs.get(blob)])

    def advertised(self, rows: Rows, cohort: Cohort) -> None:
        """U1."""
        self._write("keys.jsonl", _lines(tables.advertised_leaves(rows, cohort.positions)))

    def shared(self, rows: Rows, cohort: Cohort) -> None:
        """U2."""
        self._write("u2.jsonl", _lines(tables.shared_leaves(rows, cohort)))

    def closed(self, close: SessionClose, rows: Rows, state: Confirming) -> None:
        """U3, what became of everybody, and what the masked sum is checked by."""
        dispositions = tables.disposition_leaves(rows, state.cohort, state.present, state.accepted)
        self._write("dispositions.jsonl", _lines(dispositions))
        self._write("contributions.jsonl", _lines(tables.contribution_leaves(rows, state.cohort, state.accepted)))
        headers = tables.staged_headers(rows, state.cohort, state.accepted)
        self._write("linear-hashes.bin", (self._blobs.get(headers[index].linear_hash) for index in state.accepted))
        self._write("masked-limb-sum.bin", [self._blobs.get(close.limb_sum)])

    def keep_openings(self, rows: Rows, state: Unmasking, answers: Iterable[bytes]) -> tuple[bytes, bytes]:
        """Keep the answers that opened the sum, and the boxes that it took beside them; names of the two blobs.

        They are published with the result: until then another attempt, with more answers, may take this one's place.
        """
        pairs = (pair.to_bytes() for pair in self._pairs(rows, state))
        return self._blobs.put(b"".join(_lines(answers))), self._blobs.put(b"".join(_lines(pairs)))

    def result(self, result: SessionResult, state: Finished) -> None:
        """How the sum was opened, the sum and the merged adapter."""
        for name, blob in (
            ("openings.jsonl", state.openings_file),
            ("pair-boxes.jsonl", state.pairs_file),
            ("integer-sum.bin", result.integer_sum),
            (f"aggregate/{TENSOR_FILE}", result.adapter_model),
            (f"aggregate/{CONFIG_FILE}", result.adapter_config),
        ):
            self._write(name, [self._blobs.get(blob)])

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        self._record.write(self._session.parameters.session, name, pieces)

    def _pairs(self, rows: Rows, state: Unmasking) -> Iterator[PublishedPair]:
        """Of each client that dropped and each contributor that masked with it, what the lower index dealt."""
        stored = recovery.StoredPairs(self._session, rows, state, self._blobs.read)
        cohort = recovery.closed_cohort(self._session, rows, state)
        pairs = sorted(
            (min(dropped, user), max(dropped, user), dropped)
            for dropped in cohort.dropped()
            for user in cohort.users(dropped)
        )
        for sender, recipient, dropped in pairs:
            place = cohort.graph.neighbours(sender).index(recipient)
            hashes = stored.row(sender).hashes
            tree = merkle.Tree([hashes[i : i + 32] for i in range(0, len(hashes), 32)])
            path, commitments = tree.inclusion_proof(place), stored.commitments(sender, recipient)
            share, pair = stored.box_digests(sender, recipient)
            if dropped == sender:
                yield PairPromise(sender, recipient, share, pair, commitments, path)
            else:
                yield PairBox(sender, recipient, share, stored.pair_box(sender, recipient), commitments, path)


def _lines(leaves: Iterable[bytes]) -> Iterator[bytes]:
    return (leaf + b"\n" for leaf in leaves)
