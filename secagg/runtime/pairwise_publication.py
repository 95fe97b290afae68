"""The files of a pairwise session in the published record (see ``secagg.runtime.publication``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secagg.protocol.pairwise import recovery, tables
from secagg.protocol.pairwise.coordinator_states import Cohort, Confirming, Finished, Rows, Unmasking
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.rows import SetupRow
from secagg.runtime.ports import BlobStore, RecordPort
from secagg.runtime.publication import SessionFiles
from secagg.transcript import merkle
from secagg.transcript.entries import SessionClose, SessionResult
from secagg.transcript.published import PairBox, PairPromise, PublishedPair


class PairwiseFiles:
    """Writes what one pairwise session publishes. The methods block."""

    def __init__(self, session: PairwiseSession, record: RecordPort, blobs: BlobStore) -> None:
        self._session = session
        self._blobs = blobs
        self._files = SessionFiles(session.parameters.session, record, blobs)

    def opened(self, setup: SetupRow) -> None:
        """Roster, layout and adapter template."""
        self._files.opened(setup)

    def advertised(self, rows: Rows, cohort: Cohort) -> None:
        """U1."""
        self._files.lines("keys.jsonl", tables.advertised_leaves(rows, cohort.positions))

    def shared(self, rows: Rows, cohort: Cohort) -> None:
        """U2."""
        self._files.lines("u2.jsonl", tables.shared_leaves(rows, cohort))

    def closed(self, close: SessionClose, rows: Rows, state: Confirming) -> None:
        """U3, what became of everybody, and what the masked sum is checked by."""
        dispositions = tables.disposition_leaves(rows, state.cohort, state.present, state.accepted)
        contributions = tables.contribution_leaves(rows, state.cohort, state.accepted)
        headers = tables.staged_headers(rows, state.cohort, state.accepted)
        hashes = (headers[index].linear_hash for index in state.accepted)
        self._files.closed_set(close, dispositions, contributions, hashes)

    def keep_openings(self, rows: Rows, state: Unmasking, answers: Iterable[bytes]) -> tuple[bytes, bytes]:
        """Keep the answers that opened the sum, and the boxes that it took beside them; names of the two blobs.

        They are published with the result: until then another attempt, with more answers, may take this one's place.
        """
        pairs = (pair.to_bytes() for pair in self._pairs(rows, state))
        return self._files.keep_lines(answers), self._files.keep_lines(pairs)

    def result(self, result: SessionResult, state: Finished) -> None:
        """How the sum was opened, the sum and the merged adapter."""
        self._files.blob("openings.jsonl", state.openings_file)
        self._files.blob("pair-boxes.jsonl", state.pairs_file)
        self._files.sum_and_adapter(result)

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
