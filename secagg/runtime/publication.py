"""The files that a session of any protocol has in the published record, as they follow from the coordinator's rows.

Each is written before the log entry that names it (docs/record.md). What is written again after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from secagg.protocol.rows import SetupRow
from secagg.runtime.ports import BlobStore, RecordPort
from secagg.transcript.entries import SessionClose, SessionResult


class SessionFiles:
    """Writes what one session publishes. The methods block.

    Args:
        session: identifier of the session, 16 bytes.
        record: where the files go.
        blobs: where their content is.
    """

    def __init__(self, session: bytes, record: RecordPort, blobs: BlobStore) -> None:
        self._session = session
        self._record = record
        self._blobs = blobs

    def opened(self, setup: SetupRow) -> None:
        """Roster, layout and adapter template; where there are any, the public encryption context and fixed tensors."""
        self.blob("roster.jsonl", setup.roster)
        self.blob("layout.json", setup.layout)
        self.blob("adapter.json", setup.adapter)
        if setup.context:
            self.blob("context.bin", setup.context)
        if setup.fixed:
            self.blob("fixed.safetensors", setup.fixed)

    def closed_set(
        self,
        close: SessionClose,
        dispositions: Iterable[bytes],
        contributions: Iterable[bytes],
        linear_hashes: Iterable[bytes],
    ) -> None:
        """What became of everybody, the signed headers of the closed set, and what the masked sum is checked by.

        Args:
            close: the close entry.
            dispositions: leaves, in order of index.
            contributions: signed headers of the closed set, in order.
            linear_hashes: SHA-256 names of the blobs of their linear hashes, in the same order.
        """
        self.lines("dispositions.jsonl", dispositions)
        self.lines("contributions.jsonl", contributions)
        self._write("linear-hashes.bin", (self._blobs.get(digest) for digest in linear_hashes))
        self.blob("masked-limb-sum.bin", close.limb_sum)

    def sum_and_adapter(self, result: SessionResult) -> None:
        """The sum and what is merged from it."""
        self.blob("integer-sum.bin", result.integer_sum)
        for file in result.aggregate:
            self.blob(f"aggregate/{file.name}", file.digest)

    def blob(self, name: str, digest: bytes) -> None:
        """A file that is a blob."""
        self._write(name, [self._blobs.get(digest)])

    def lines(self, name: str, leaves: Iterable[bytes]) -> None:
        """A file of one line for each leaf."""
        self._write(name, lines_of(leaves))

    def keep_lines(self, leaves: Iterable[bytes]) -> bytes:
        """Keep the lines of a file that is published later; SHA-256 name of the blob."""
        return self._blobs.put(b"".join(lines_of(leaves)))

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        self._record.write(self._session, name, pieces)


def lines_of(leaves: Iterable[bytes]) -> Iterator[bytes]:
    """Each leaf with its newline."""
    return (leaf + b"\n" for leaf in leaves)
