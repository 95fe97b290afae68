"""Every decoder of bytes that somebody else wrote: records, notes, proofs, adapters, ciphertexts, calls."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import get_type_hints

from google.protobuf.message import DecodeError, Message

from dp.errors import ParameterError
from dp.ledger_errors import LedgerCorruptError
from dp.ledger_events import Created, Reserved, decode_event, decode_head, encode_event
from dp.mechanisms import mechanism_from_json
from secagg.he.bfv import EncryptionContext
from secagg.he.errors import CiphertextError
from secagg.he.residues import decode_ciphertext
from secagg.identity.client_config import ClientConfig
from secagg.identity.errors import ConfigError
from secagg.lora.config import parse_config
from secagg.lora.container import parse_header
from secagg.lora.errors import AdapterError
from secagg.lora.fixed import encode_fixed, read_fixed
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest
from secagg.lora.merge_report import MergeReport, ModuleReport
from secagg.protocol.errors import RemoteProtocolError
from secagg.transcript import canonical
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import decode_entry
from secagg.transcript.merkle import ProofError
from secagg.transcript.note import Note, NoteError
from secagg.transcript.policy import LogPolicy, PolicyError
from secagg.transcript.proof import LogProof
from secagg.transcript.published import decode_published_pair
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed, decode_disposition, decode_share_leaf
from secagg.transcript.tiles import TileError, decode_bundle
from secagg.transcript.witness_request import AddCheckpoint
from secagg.wire import convert, convert_authority, convert_opening
from tests.fuzz.target import Target
from tests.support import forged_merges
from tests.support.forge import write_record
from tests.support.service import EXAMPLES

_MOST_SEEDS = 40


@cache
def _record() -> dict[str, bytes]:
    """The files of a complete record with sessions of several kinds, the policies and the receipt."""
    with tempfile.TemporaryDirectory() as directory:
        write_record(Path(directory))
        files = (path for path in Path(directory).rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def _lines(*endings: str) -> Callable[[], list[bytes]]:
    """The lines of all files of the record with such a name."""

    def seeds() -> list[bytes]:
        found = [line for name, data in _record().items() if name.endswith(endings) for line in data.splitlines()]
        return found[:_MOST_SEEDS]

    return seeds


def _files(*endings: str) -> Callable[[], list[bytes]]:
    return lambda: [data for name, data in _record().items() if name.endswith(endings)][:_MOST_SEEDS]


def _entries() -> list[bytes]:
    bundles = [data for name, data in _record().items() if "tile/entries" in name]
    return [entry for bundle in bundles for entry in decode_bundle(bundle)][:_MOST_SEEDS]


def _bundles() -> list[bytes]:
    return [data for name, data in _record().items() if "tile/entries" in name]


def _request(data: bytes) -> AddCheckpoint:
    return AddCheckpoint.parse(data)


def _requests() -> list[bytes]:
    return [b"old 0\n\n" + note for note in _files("checkpoint")()]


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """A parser of text on bytes: those that are no UTF-8 never reach it."""
    return lambda data: parse(data.decode("utf-8", "ignore"))


def _manifest(data: bytes) -> object:
    return Manifest.from_json_value(canonical.decode(data))


def _manifests() -> list[bytes]:
    plans = (forged_merges.dense(), forged_merges.sketch(), forged_merges.pilots(2))
    kernel = dataclasses.replace(forged_merges.MODULES[0], kind="convolution", kernel=(3, 3), scales={"update": -7})
    manifests = [plan["adapter"] for plan in plans] + [dataclasses.replace(forged_merges.BARE, modules=(kernel,))]
    return [canonical.encode(manifest.to_json_value()) for manifest in manifests]


def _fixed(data: bytes) -> object:
    # Whoever opens a session names any file by its digest.
    plan = forged_merges.frozen()
    return read_fixed(dataclasses.replace(plan["merge"], fixed=hashlib.sha256(data).digest()), plan["adapter"], data)


def _fixed_files() -> list[bytes]:
    return [encode_fixed(forged_merges.frozen()["fixed"])]


def _reports() -> list[bytes]:
    modules = (ModuleReport("a", "range+core", 600_000, 400_000, 1_000_000), ModuleReport("b", "update", 0, 0, 0))
    return [MergeReport("sketch", 5, part, part, modules).to_bytes() for part in (-1, 200_000)]


def _layout(data: bytes) -> Layout:
    return Layout.from_json_value(canonical.decode(data))


def _mechanism(data: bytes) -> object:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return mechanism_from_json(value)


def _headers() -> list[bytes]:
    data = (EXAMPLES / "1" / "adapter_model.safetensors").read_bytes()
    return [data[8 : 8 + int.from_bytes(data[:8], "little")]]


def _nothing() -> list[bytes]:
    return [b"", bytes(16), bytes(64)]


_HEAD = b'{"digest":"' + b"00" * 32 + b'","sequence":0}'
_MECHANISM = (
    b'{"mechanism":"distributed-skellam","local_variance":"9/1","survivors":5,"corrupt":1,"squared_l2":9,"l1":9,'
    b'"dimension":4,"distance":"0/1"}'
)


def _events() -> list[bytes]:
    reserved = Reserved("people", bytes(16), mechanism_from_json(json.loads(_MECHANISM)))
    return [encode_event(1, event) for event in (Created("people", Fraction(8), Fraction(1, 100_000)), reserved)]


def _calls() -> list[Target]:
    """The conversions of every message that comes in over gRPC."""
    found = []
    for module in (convert, convert_opening, convert_authority):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            parameters = list(inspect.signature(function).parameters)
            kind = get_type_hints(function).get(parameters[0]) if len(parameters) == 1 else None
            if name.endswith("_from_pb") and isinstance(kind, type) and issubclass(kind, Message):
                found.append(
                    Target(f"call-{name}", _call(function, kind), (DecodeError, RemoteProtocolError), _nothing)
                )
    return found


def _call(function: Callable[[Message], object], kind: type[Message]) -> Callable[[bytes], object]:
    return lambda data: function(kind.FromString(data))


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("canonical", canonical.decode, (canonical.CanonicalError,), _entries),
        Target("entry", decode_entry, (RecordError,), _entries),
        Target(
            "statement",
            Signed.from_bytes,
            (RecordError,),
            _lines("keys.jsonl", "contributions.jsonl", "openings.jsonl"),
        ),
        Target("share-leaf", decode_share_leaf, (RecordError,), _lines("u2.jsonl")),
        Target("disposition", decode_disposition, (RecordError,), _lines("dispositions.jsonl")),
        Target("published-pair", decode_published_pair, (RecordError,), _lines("pair-boxes.jsonl")),
        Target("contribution-proof", ContributionProof.from_bytes, (RecordError,), _lines("contributions.jsonl")),
        Target("layout", _layout, (canonical.CanonicalError, AdapterError), _files("layout.json")),
        Target("manifest", _manifest, (canonical.CanonicalError, AdapterError), _manifests),
        Target("fixed-tensors", _fixed, (AdapterError,), _fixed_files),
        Target("merge-report", MergeReport.from_bytes, (AdapterError,), _reports),
        Target("note", Note.parse, (NoteError,), _files("checkpoint")),
        Target("checkpoint", _text(Checkpoint.parse), (NoteError,), _files("checkpoint")),
        Target("log-policy", _text(LogPolicy.parse), (PolicyError, NoteError), _files("policy")),
        Target("log-proof", LogProof.parse, (ProofError, NoteError), _files("receipt")),
        Target("witness-request", _request, (NoteError,), _requests),
        Target("bundle", decode_bundle, (TileError,), _bundles),
        Target("adapter-header", lambda data: parse_header(data, 1 << 20), (AdapterError,), _headers),
        Target(
            "adapter-config",
            parse_config,
            (AdapterError,),
            lambda: [(EXAMPLES / "1" / "adapter_config.json").read_bytes()],
        ),
        Target("ciphertext", decode_ciphertext, (CiphertextError,), _nothing),
        Target("encryption-context", EncryptionContext.from_bytes, (CiphertextError,), _nothing),
        Target("client-config", _text(ClientConfig.from_toml), (ConfigError,), _files("policy.toml")),
        Target("mechanism", _mechanism, (ParameterError,), lambda: [_MECHANISM]),
        Target("ledger-event", lambda data: decode_event(1, data, None), (LedgerCorruptError,), _events),
        Target("ledger-head", decode_head, (LedgerCorruptError,), lambda: [_HEAD]),
        *_calls(),
    )
}
