"""What an ingest process has on disk beside the blobs: ``ingest-K`` in the coordinator's state directory.

Staging files of its own: an upload's bytes are checked as they come, so nobody else may write to them. And the sums
that it hands over, as files: at 32 bytes for each lane they are too long for a message. A sum need not survive a crash,
for it can be read from the blobs again; so none is flushed to the disk.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from secagg.runtime.partial_sum import PartialSum, PartialSumError
from secagg.runtime.ports import StoreError
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.files import DIRECTORY_MODE, ProcessLock, disk_errors, make_private_directory
from secagg.store.uploads import staged_bytes

_NAME = re.compile(r"ingest-([0-9]{1,4})")


class IngestDirectory:
    """The directory of the ingest process at ``place``, from 0, of a coordinator whose blobs are in ``root``."""

    def __init__(self, root: Path, place: int) -> None:
        self._root = root
        self._path = root / f"ingest-{place}"
        self._sums = self._path / "sums"

    def lock(self) -> ProcessLock:
        """Take the directory for this process. Raises StoreError: another one has it."""
        with disk_errors(f"opening {self._path}"):
            make_private_directory(self._path)
            return ProcessLock(self._path / "lock")

    def open_blobs(self) -> DirectoryBlobStore:
        """The coordinator's blobs, for uploads that are staged here; sums that nobody took are gone.

        Raises:
            StoreError: the disk refuses.
        """
        with disk_errors(f"opening {self._path}"):
            shutil.rmtree(self._sums, ignore_errors=True)
            self._sums.mkdir(mode=DIRECTORY_MODE, parents=True)
        return DirectoryBlobStore(self._root, self._path)

    def staged_bytes(self, token: str) -> int:
        """How much of an upload is staged here, as its file's length says; 0 where there is none."""
        return staged_bytes(self._path / "uploads", token)

    def put_sum(self, session: bytes, total: PartialSum) -> None:
        """Leave a sum for the coordinator. Raises StoreError."""
        path = self._sum_of(session)
        unfinished = path.with_suffix(".tmp")
        with disk_errors("writing a partial sum"):
            unfinished.write_bytes(total.to_bytes())
            unfinished.rename(path)

    def take_sum(self, session: bytes) -> PartialSum | None:
        """The sum that was left here, once; None where there is none.

        Raises:
            StoreError: it cannot be read, or is none.
        """
        path = self._sum_of(session)
        with disk_errors("reading a partial sum"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
            path.unlink()
        try:
            return PartialSum.from_bytes(data)
        except PartialSumError as error:
            raise StoreError(f"a partial sum: {error}") from None

    def _sum_of(self, session: bytes) -> Path:
        return self._sums / f"{session.hex()}.sum"


def remove_ingest_directories(root: Path, count: int) -> None:
    """Remove what processes from place ``count`` on left here when there were more of them. Raises StoreError."""
    with disk_errors("removing what ingest processes left"):
        for path in root.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and int(match[1]) >= count:
                shutil.rmtree(path, ignore_errors=True)
