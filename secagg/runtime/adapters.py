"""Which adapters a session is about, and what is merged of them, as its open entry says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secagg.derive.result import FloatVector
from secagg.lora.merging import Merging, decode_merging
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.rows import SetupRow
from secagg.runtime.ports import BlobStore
from secagg.transcript.canonical import CanonicalError
from secagg.transcript.entries import AggregateFile, SessionOpen


def check_layout(parameters: SessionOpen, layout: bytes, adapter: bytes) -> Merging:
    """How the adapters of a session are merged, as its open entry names it.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; not canonical.
        AdapterError: malformed, another digest or dimension, or against each other.
    """
    try:
        return decode_merging(parameters, layout, adapter)
    except CanonicalError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"layout or adapter: {error}") from None


@dataclass(frozen=True, slots=True)
class AdapterMerge:
    """Makes the files of the aggregate, from what a session was opened with.

    Attributes:
        parameters: the open entry.
        setup: names of blobs.
        blobs: where they are.
        progress: hears which module is merged.
    """

    parameters: SessionOpen
    setup: SetupRow
    blobs: BlobStore
    progress: Callable[[str], None] = lambda _: None

    def keep(self, mean: FloatVector, contributors: int) -> tuple[AggregateFile, ...]:
        """Make the files that follow from the mean and keep them; their names and digests.

        Raises:
            RemoteProtocolError, AdapterError: as ``check_layout``; or the mean is not finite.
            StoreError: a blob cannot be read or written.
        """
        setup, blobs = self.setup, self.blobs
        merging = check_layout(self.parameters, blobs.get(setup.layout), blobs.get(setup.adapter))
        merging = merging.with_fixed(blobs.get(setup.fixed) if setup.fixed else b"")
        files = merging.aggregate(mean, contributors, self.progress)
        return tuple(AggregateFile(name, blobs.put(b"".join(files[name]))) for name in sorted(files))
