"""Generates the vectors of the protocol: ``python -m tests.vectors.generate_session``.

Every operation has ``op``, its inputs, ``success``, and ``expected`` or ``error``; ``attack`` names what a refused one
tries. Bytes are lowercase hex; canonical records stand as text, whose bytes are its UTF-8. ``session.json`` is a
script: its operations run in order on one coordinator and four clients, a refused one leaves everything as it was.
There ``bytes`` holds keys and boxes by name, and operations give the names.

Sealing draws randomness that cannot be given, so boxes are recorded: whoever regenerates takes the boxes of the
existing files as long as they open to what they should, and everything else comes out byte for byte the same. A box
that is missing or stale is sealed anew, and the files change from there on.
"""
from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import nacl.signing
import numpy as np

from secagg.arith import shamir
from secagg.arith.fields import FieldLayout
from secagg.arith.keystream import add_masks
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields
from secagg.crypto.sealing import SealingError, SealingKey, check_public_key, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SignatureError, SigningKey, verify_statement
from secagg.protocol import log
from secagg.protocol.errors import ProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    IncomingBoxes,
    NeighbourKeys,
    OutgoingBoxes,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise import boxes, coordinator, dealing, recovery, tables
from secagg.protocol.pairwise import client as machine
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.client_states import InputMasked, MaskInput
from secagg.protocol.pairwise.coordinator_states import (
    DeadlinePassed,
    EntryPublished,
    FoldUploads,
    PublishEntry,
    RecoverSum,
    RowKind,
    SetupRow,
    SharesStored,
    SumFolded,
    SumRecovered,
    UploadStaged,
    phase_of,
    row_key,
)
from secagg.protocol.session import ClientPolicy, Session
from secagg.runtime import vectors
from secagg.runtime.memory import MemoryBlobStore
from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    Deadlines,
    Encoding,
    Flattening,
    KeysAdvertised,
    KeysShared,
    NoDifferentialPrivacy,
    NoFlattening,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
    decode_entry,
)
from secagg.transcript.head import LogEvidence, LogHead, head_over
from secagg.transcript.record import RecordError
from secagg.transcript.roster import Roster, RosterHead, RosterMember
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    Dropped,
    Receipt,
    Rejected,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
    UnmaskStatement,
    decode_disposition,
    decode_share_leaf,
)
from tests.support.rng import CountingRng
from tests.vectors.session_play import Play
from tests.vectors.session_script import Script
from tests.vectors.static_operations import *
from tests.vectors.static_vectors import *


NAME = "session.json"

def render_session(path: Path) -> str:
    """The text of ``session.json``, with the boxes of the existing file."""
    known = json.loads(path.read_text(encoding="utf-8"))["bytes"] if path.exists() else {}
    script = Script({name: raw(data) for name, data in known.items()}, seals=True)
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in Play(script).operations())
    table = ",\n".join(f'  "{name}": "{script.table[name].hex()}"' for name in sorted(script.used))
    description = (
        "One session of four clients, of which one drops out after it shared keys; a roster member never comes. "
        "Operations run in order on one coordinator and its clients; where success is false, the state stays as it was "
        "and error is the RejectReason."
    )
    return f'{{"description": "{description}",\n"bytes": {{\n{table}\n}},\n"operations": [\n{lines}\n]}}\n'


FILES: dict[str, tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = {
    "canonical.json": ("Canonical JSON, and the records that are hashed and signed.", canonical_operations),
    "labels.json": ("Labelled encoding, derived keys, commitments and signatures.", label_operations),
    "merkle.json": ("RFC 6962 trees: roots, audit paths, inclusion.", merkle_operations),
    "sealing.json": ("Sealing keys, contexts of boxes, and recorded boxes.", sealing_operations),
    "masking.json": ("From seeds to masked inputs, and from a sum back to its lanes.", masking_operations),
}


def render(name: str) -> str:
    """The text of one file; the same on every run as long as the recorded boxes are there."""
    if name == NAME:
        return render_session(DIRECTORY / name)
    description, operations = FILES[name]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry), ensure_ascii=False) for entry in operations())
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes every file next to this one."""
    for name in (*FILES, NAME):
        (DIRECTORY / name).write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
