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

DIRECTORY = Path(__file__).parent
OPERATIONS: dict[str, Callable[..., Any]] = {}
SESSION, ROOT, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"session", b"root", b"other"))
READERS: dict[str, Callable[[bytes], Any]] = {
    "entry": decode_entry,
    "signed": Signed.from_bytes,
    "u2-leaf": decode_share_leaf,
    "disposition": decode_disposition,
    "head": LogHead.from_bytes,
    "receipt": Receipt.from_bytes,
    "member": RosterMember.from_bytes,
    "roster": RosterHead.from_bytes,
}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def raw(text):
    return bytes.fromhex(text)


def secret(text):
    return Secret(raw(text))


def lanes_of(text):
    return np.frombuffer(raw(text), dtype="<u8").astype(np.uint64)


def hex_of(array):
    return vectors.as_bytes(array).hex()


@operation
def canonical_encode(value):
    return canonical.encode(value).decode()


@operation
def canonical_decode(data):
    return canonical.decode(raw(data))


@operation
def record_sha256(reader, record):
    """Decodes a record of one of the kinds that may stand at this place; the digest of its canonical bytes."""
    return hashlib.sha256(READERS[reader](record.encode()).to_bytes()).hexdigest()


@operation
def fields_encoded(label, fields):
    return encode_fields(Label(label), *map(raw, fields)).hex()


@operation
def derived(secret_input, label, context, length):
    return derive(secret(secret_input), Label(label), *map(raw, context), length_bytes=length).expose().hex()


@operation
def labelled_sha256(label, fields):
    return hashlib.sha256(encode_fields(Label(label), *map(raw, fields))).hexdigest()


@operation
def signed(seed, statement):
    key = SigningKey(secret(seed))
    return {"public": key.public_bytes.hex(), "signature": key.sign_statement(statement.encode()).hex()}


@operation
def verified(public, statement, signature):
    verify_statement(raw(public), statement.encode(), raw(signature))
    return "verified"


@operation
def tree_root(leaves):
    return merkle.root([raw(leaf) for leaf in leaves]).hex()


@operation
def audit_path(leaves, index):
    return [node.hex() for node in merkle.inclusion_proof([merkle.leaf_hash(raw(leaf)) for leaf in leaves], index)]


@operation
def inclusion(*, leaf, index, size, path, root):
    merkle.verify_inclusion(merkle.leaf_hash(raw(leaf)), index, size, [raw(node) for node in path], raw(root))
    return "included"


@operation
def sealing_key(seed):
    """``parts``: the ML-KEM-768 seed (d, z), then the X25519 private key."""
    parts = derive(secret(seed), Label.SEALING_KEY, length_bytes=96).expose().hex()
    return {"parts": parts, "public_sha256": hashlib.sha256(SealingKey(secret(seed)).public_bytes).hexdigest()}


@operation
def share_box_info(session, advertised, sender, recipient):
    return boxes.share_box_info(raw(session), raw(advertised), sender, recipient).hex()


@operation
def pair_box_info(session, advertised, sender, recipient):
    return boxes.pair_box_info(raw(session), raw(advertised), sender, recipient).hex()


@operation
def box_opened(seed, info, box):
    return SealingKey(secret(seed)).open(raw(box), raw(info)).expose().hex()


@operation
def public_key_checked(public):
    check_public_key(raw(public))
    return "sound"


@operation
def share_box_split(plaintext):
    return [part.expose().hex() for part in boxes.split_share_plaintext(secret(plaintext))]


@operation
def box_leaf(recipient, share_box, pair_box):
    leaf = boxes.box_leaf(recipient, raw(share_box), raw(pair_box))
    return {"leaf": leaf.hex(), "hash": merkle.leaf_hash(leaf).hex()}


@operation
def keys_of(session, index, root, self_mask):
    """What follows from a client's two secrets; ``pair_seeds`` for the two indices above its own."""
    digest, higher = raw(session), (index + 1, index + 2)
    return {
        "mask_key_seed": boxes.mask_key_seed(secret(root), digest).expose().hex(),
        "self_mask_keystream": boxes.self_mask_keystream(secret(self_mask), digest).expose().hex(),
        "pair_seeds": [boxes.pair_seed(secret(root), digest, other).expose().hex() for other in higher],
    }


@operation
def encoded(encoding, vector, rounding):
    """``rounding``: the 32 random bytes that seed the quantiser's stream."""
    values = np.frombuffer(raw(vector), dtype="<f4").astype(np.float32)
    script = ScriptedRng(raw(rounding))
    lanes, report = vectors.encode(Encoding.from_bytes(encoding.encode()), values, script)
    return {"lanes": hex_of(lanes), "clamped": report.clamped}


@operation
def flatten_keys(seed):
    labels = (Label.FLATTEN_PERMUTATION, Label.FLATTEN_SIGNS)
    return [derive(secret(seed), label).expose().hex() for label in labels]


@operation
def masked(*, session, index, lanes, self_mask, pair_seeds):
    """``pair_seeds``: [neighbour, seed] for each mask neighbour, whoever of the two chose it."""
    out, digest = lanes_of(lanes), raw(session)
    keys = {other: boxes.pair_mask_keystream(secret(seed), digest).expose() for other, seed in pair_seeds}
    add = [boxes.self_mask_keystream(secret(self_mask), digest).expose()]
    add_masks(out, add + [key for other, key in keys.items() if other > index], [keys[o] for o in keys if o < index])
    return hex_of(out)


@operation
def unmasked(*, session, lanes, self_masks, dropped, pair_seeds):
    """``pair_seeds``: [contributor, seed] for each contributor that masked with the client ``dropped``."""
    out, digest = lanes_of(lanes), raw(session)
    keys = {user: boxes.pair_mask_keystream(secret(seed), digest).expose() for user, seed in pair_seeds}
    self_keys = [boxes.self_mask_keystream(secret(seed), digest).expose() for seed in self_masks]
    add_masks(out, [keys[u] for u in keys if dropped < u], self_keys + [keys[u] for u in keys if u < dropped])
    return hex_of(out)


def replay(entry: dict[str, Any]) -> dict[str, Any]:
    """Runs one operation and returns what its outcome keys should be; unknown names raise KeyError."""
    function = OPERATIONS[entry["op"]]
    outcome = ("op", "attack", "success", "expected", "error")
    inputs = {name: value for name, value in entry.items() if name not in outcome}
    unknown = inputs.keys() ^ inspect.signature(function).parameters.keys()
    if unknown:
        raise KeyError(f"{entry['op']}: missing or unknown inputs {sorted(unknown)}")
    try:
        return {"success": True, "expected": function(**inputs)}
    except RecordError as refused:
        return {"success": False, "error": refused.field}
    except (canonical.CanonicalError, SignatureError, merkle.ProofError, SealingError) as refused:
        return {"success": False, "error": type(refused).__name__}
    except ValueError as refused:
        return {"success": False, "error": getattr(refused, "field", "plaintext")}


def attack(name: str, entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An operation that must be refused."""
    return {"op": entry["op"], "attack": name} | {k: v for k, v in entry.items() if k != "op"} | changes


def canonical_operations() -> Iterator[dict[str, Any]]:
    for value in (0, -1, 2**53 - 1, -(2**53) + 1, "", "é\u2028\x7f", '"\\\n\t\b\f\r\x1f/', [], [[1], {}]):
        yield {"op": "canonical_encode", "value": value}
    yield {"op": "canonical_encode", "value": {"b": 1, "a": [2, {"B": "x", "_": ""}], "aa": "1/10"}}
    for name, value in (
        ("2^53", 2**53), ("a fraction", 1.5), ("a boolean", True), ("nothing", None), ("a key beyond ASCII", {"é": 1}),
        ("nested 17 deep", json.loads("[" * 17 + "0" + "]" * 17)),
    ):  # fmt: skip
        yield attack(name, {"op": "canonical_encode", "value": value})
    for text in ('{"a":1,"b":[2,"x"]}', '"é\\u001f"', "[" * 16 + "0" + "]" * 16, "-9007199254740991"):
        yield {"op": "canonical_decode", "data": text.encode().hex()}
    for name, data in (
        ("keys out of order", b'{"b":1,"a":2}'), ("a key twice", b'{"a":1,"a":1}'), ("a space", b'{"a": 1}'),
        ("a final newline", b'{"a":1}\n'), ("a needless escape", b'"\\u0041"'), ("an escaped slash", b'"\\/"'),
        ("an upper-case escape", b'"\\u001F"'), ("minus zero", b"-0"), ("a leading zero", b"01"),
        ("an exponent", b"1e3"), ("a point", b"1.0"), ("2^53", b"9007199254740992"), ("infinity", b"Infinity"),
        ("true", b"true"), ("null", b"null"), ("a lone surrogate", b'"\\ud800"'), ("not UTF-8", b'"\xff"'),
        ("a byte order mark", b"\xef\xbb\xbf1"), ("nothing", b""), ("two values", b"1 2"),
        ("nested 17 deep", b"[" * 17 + b"0" + b"]" * 17),
    ):  # fmt: skip
        yield attack(name, {"op": "canonical_decode", "data": data.hex()})
    yield from record_operations()


def record_operations() -> Iterator[dict[str, Any]]:
    known = examples()
    for reader, text in known:
        yield {"op": "record_sha256", "reader": reader, "record": text}
    texts = dict(reversed(known))
    opened, unmask = texts["entry"], next(t for _, t in known if '"type":"unmask"' in t)
    for name, reader, text in (
        ("a member that nobody knows", "entry", opened.replace('"version":1}', '"version":1,"zeal":1}')),
        ("a member missing", "entry", opened.replace('"merge":"factors",', "")),
        ("another version", "member", texts["member"].replace('"version":1', '"version":2')),
        ("another type", "receipt", texts["head"]),
        ("hex in upper case", "head", texts["head"].replace("a", "A")),
        ("bytes cut short", "head", re.sub(r'[0-9a-f]{2}","session"', '","session"', texts["head"])),
        ("a fraction that can be reduced", "entry", opened.replace('"clip_norm":"1/1"', '"clip_norm":"2/2"')),
        ("a field that could overflow", "entry", opened.replace('"usable_bits":64', '"usable_bits":16')),
        ("a minimum that hides nobody", "entry", opened.replace('"max_corrupt":0', '"max_corrupt":2')),
        ("a merge rule of a later version", "entry", opened.replace('"merge":"factors"', '"merge":"product"')),
        ("both shares of one client", "signed", unmask.replace('"index":2', '"index":1')),
        ("a statement in place of its signed form", "signed", statement_of(unmask)),
        ("a statement as a disposition", "disposition", unmask),
    ):
        yield attack(name, {"op": "record_sha256", "reader": reader, "record": text})


def label_operations() -> Iterator[dict[str, Any]]:
    for label in Label:
        yield {"op": "fields_encoded", "label": label.value, "fields": ["", "00" * 4, "ab" * 9][: len(label.name) % 4]}
    for length, context in ((32, []), (96, [SESSION]), (16, [SESSION, "00000007"]), (32, ["", ""])):
        for label in (Label.SEALING_KEY, Label.PAIR_SEED):
            given = {"secret_input": ROOT, "label": label.value, "context": context, "length": length}
            yield {"op": "derived"} | given
    for label in (Label.SELF_MASK_COMMITMENT, Label.ROOT_COMMITMENT):
        yield {"op": "labelled_sha256", "label": label.value, "fields": [SESSION, OTHER, ROOT]}
    yield {"op": "labelled_sha256", "label": Label.GRAPH_SEED.value, "fields": [SESSION, OTHER]}
    statement = statement_of(examples()[-1][1])
    given = {"op": "signed", "seed": ROOT, "statement": statement}
    yield given
    made = signed(ROOT, statement)
    check = {"op": "verified", "public": made["public"], "statement": statement, "signature": made["signature"]}
    yield check
    order = 2**252 + 27742317777372353535851937790883648493
    high = (int.from_bytes(raw(made["signature"][64:]), "little") + order).to_bytes(32, "little").hex()
    yield attack("another statement", check, statement=statement.replace("1", "2"))
    yield attack("another key", check, public=signed(OTHER, "")["public"])
    yield attack("a second form of the signature", check, signature=made["signature"][:64] + high)
    bare = nacl.signing.SigningKey(raw(ROOT)).sign(statement.encode()).signature.hex()
    yield attack("a signature without its label", check, signature=bare)
    yield attack("a key of small order", check, public="01" + "00" * 31)
    yield attack("a signature cut short", check, signature=made["signature"][:-2])


def merkle_operations() -> Iterator[dict[str, Any]]:
    leaves = [bytes(range(i)).hex() for i in range(9)]
    for size in (0, 1, 2, 3, 4, 5, 7, 8, 9):
        yield {"op": "tree_root", "leaves": leaves[:size]}
    for size, index in ((1, 0), (2, 1), (3, 2), (5, 4), (7, 3), (9, 8), (9, 0)):
        yield {"op": "audit_path", "leaves": leaves[:size], "index": index}
        path, root = audit_path(leaves[:size], index), tree_root(leaves[:size])
        yield {"op": "inclusion", "leaf": leaves[index], "index": index, "size": size, "path": path, "root": root}
    path, root = audit_path(leaves[:7], 3), tree_root(leaves[:7])
    good = {"op": "inclusion", "leaf": leaves[3], "index": 3, "size": 7, "path": path, "root": root}
    yield attack("another leaf", good, leaf=leaves[4])
    yield attack("another place", good, index=2)
    yield attack("outside the tree", good, index=7)
    yield attack("another size", good, size=4)
    yield attack("a path too short", good, path=path[:-1])
    yield attack("a path too long", good, path=[*path, path[0]])
    yield attack("a path in another order", good, path=path[::-1])
    yield attack("another root", good, root=OTHER)
    inner = (b"".join(merkle.leaf_hash(raw(leaf)) for leaf in leaves[:2])).hex()
    yield attack("an inner node as a leaf", good, leaf=inner, index=0, size=2, path=path[1:2])


def sealing_operations() -> Iterator[dict[str, Any]]:
    for seed in ("00" * 32, ROOT, OTHER):
        yield {"op": "sealing_key", "seed": seed}
    yield attack("a seed cut short", {"op": "sealing_key", "seed": ROOT[2:]})
    for sender, recipient in ((0, 1), (1, 0), (3, 70_000)):
        place = {"session": SESSION, "advertised": OTHER, "sender": sender, "recipient": recipient}
        yield {"op": "share_box_info"} | place
        yield {"op": "pair_box_info"} | place
    info = share_box_info(SESSION, OTHER, 0, 1)
    for length in (32, 0, 1000, 72):
        box = recorded_box(raw(ROOT), raw(info), CountingRng(b"plaintext").bytes(length))
        good = {"op": "box_opened", "seed": ROOT, "info": info, "box": box.hex()}
        yield good
    yield attack("sent on to somebody else", good, seed=OTHER)
    for sender, recipient in ((1, 0), (0, 2)):
        yield attack("moved to other clients", good, info=share_box_info(SESSION, OTHER, sender, recipient))
    yield attack("moved to another session", good, info=share_box_info(OTHER, OTHER, 0, 1))
    yield attack("moved to another cohort", good, info=share_box_info(SESSION, SESSION, 0, 1))
    yield attack("a share box as a pair box", good, info=pair_box_info(SESSION, OTHER, 0, 1))
    for name, place in (("ML-KEM ciphertext", 0), ("X25519 share", 1088), ("ciphertext", 1120), ("tag", len(box) - 1)):
        flipped = box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]
        yield attack(f"a bit flipped in the {name}", good, box=flipped.hex())
    yield attack("a box cut short", good, box=box[:-1].hex())
    yield attack("a longer box", good, box=(box + b"\0").hex())
    yield attack("no box", good, box="")
    public = SealingKey(secret(ROOT)).public_bytes
    sound = {"op": "public_key_checked", "public": public.hex()}
    yield sound
    yield attack("a point of small order", sound, public=(public[:1184] + bytes(32)).hex())
    yield attack("a coefficient beyond the modulus", sound, public=(b"\xff" * 3 + public[3:]).hex())
    yield attack("a key cut short", sound, public=public[:-1].hex())


def masking_operations() -> Iterator[dict[str, Any]]:
    limbs = np.frombuffer(CountingRng(b"limbs").bytes(72), dtype="<u4") % np.uint32(shamir.PRIME)
    yield {"op": "share_box_split", "plaintext": hex_of(limbs)}
    yield attack("a value beyond the field", {"op": "share_box_split", "plaintext": "00" * 36 + "ffffff7f" * 9})
    yield attack("one share only", {"op": "share_box_split", "plaintext": "00" * 36})
    for recipient, share_box, pair_box in ((0, "0102", ""), (2**20 - 1, "ab" * 40, "cd")):
        yield {"op": "box_leaf", "recipient": recipient, "share_box": share_box, "pair_box": pair_box}
    rng = CountingRng(b"masking")
    roots, self_masks = ([rng.bytes(32).hex() for _ in range(3)] for _ in range(2))
    for index in range(3):
        given = {"session": SESSION, "index": index, "root": roots[index], "self_mask": self_masks[index]}
        yield {"op": "keys_of"} | given
    plain = (
        '{"clip_norm":"1/1","dimension":3,"flatten":{"type":"none","version":1},"max_contributors":4,"type":"encoding",'
        '"usable_bits":64,"value_bits":15,"version":1}'
    )
    flat = plain.replace('"none"', '"hadamard"').replace('{"type"', f'{{"seed":"{OTHER}","type"', 1)
    rows = np.array([[0.5, -0.25, 0], [1, 1, 1], [-0.125, 0, 1e-3]], dtype=np.float32)
    for encoding in (plain, flat):
        for row in rows:
            yield {"op": "encoded", "encoding": encoding, "vector": hex_of(row), "rounding": OTHER}
    broken = hex_of(np.array([0, np.nan, 0], dtype=np.float32))
    yield attack("not a number", {"op": "encoded", "encoding": plain, "vector": broken, "rounding": OTHER})
    yield {"op": "flatten_keys", "seed": Flattening(raw(OTHER)).seed.hex()}

    def pair(low, high):
        return boxes.pair_seed(secret(roots[low]), raw(SESSION), high).expose().hex()

    uploads, clear = [], [lanes_of(encoded(plain, hex_of(row), OTHER)["lanes"]) for row in rows]
    for index in range(3):
        seeds = [[other, pair(min(index, other), max(index, other))] for other in range(3) if other != index]
        given = {"session": SESSION, "index": index, "lanes": hex_of(clear[index])}
        made = {"op": "masked"} | given | {"self_mask": self_masks[index], "pair_seeds": seeds}
        yield made
        uploads.append(lanes_of(replay(made)["expected"]))
    for dropped in range(3):
        users = [index for index in range(3) if index != dropped]
        seeds = [[user, pair(min(user, dropped), max(user, dropped))] for user in users]
        total = hex_of(uploads[users[0]] + uploads[users[1]])
        given = {"session": SESSION, "lanes": total, "self_masks": [self_masks[user] for user in users]}
        yield {"op": "unmasked"} | given | {"dropped": dropped, "pair_seeds": seeds}


def recorded_box(seed: bytes, info: bytes, plaintext: bytes) -> bytes:
    """The box of the existing file that opens to ``plaintext``, or a new one."""
    key, path = SealingKey(Secret(seed)), DIRECTORY / "sealing.json"
    known = json.loads(path.read_text(encoding="utf-8"))["operations"] if path.exists() else []
    for entry in known:
        if entry["op"] == "box_opened" and entry["success"] and entry["expected"] == plaintext.hex():
            try:
                if key.open(raw(entry["box"]), info).expose() == plaintext:
                    return raw(entry["box"])
            except SealingError:
                continue
    return seal(key.public_bytes, info, Secret(plaintext))


# The session: one coordinator and four clients, by the real machines.

NAME = "session.json"
SEEDS = sorted(
    (CountingRng(b"vector identity %d" % i).bytes(32) for i in range(5)),
    key=lambda seed: SigningKey(Secret(seed)).public_bytes,
)
AWAY = 1
"""Position in the roster of the member who never comes, so that positions and indices differ."""
DROPPED = 1
"""Index of the client that falls silent after it shared keys."""
START_S = 1_000_000
LANES = FieldLayout(15, 8, 9)


EVENTS = {
    "start": {"policy", "log"},
    "advertised-list": {"log", "leaves", "keys"},
    "shared-list": {"log", "leaves", "inbox"},
    "input-masked": {"sha256", "lanes"},
    "receipt": {"receipt", "signature"},
    "closed-list": {"log", "leaves"},
    "confirmations": {"signed"},
    "session-ended": {"log"},
    "advertise-keys": {"signed", "mask_public", "share_public"},
    "share-keys": {"signed", "boxes"},
    "contribution": {"signed"},
    "upload-staged": {"signed", "sha256"},
    "confirm-close": {"signed"},
    "unmask": {"signed"},
    "deadline": {"now_s"},
}
"""Members of each event beside ``type``."""
MEMBERS = {"log": {"entries", "head", "signature"}, "policy": {"min_contributors", "tolerated_corrupt"}}


def check_members(event: dict[str, Any] | None) -> None:
    """Raise KeyError for an event of an unknown type, or with a member missing or unknown."""
    if event is None:
        return
    if event.keys() != EVENTS[event["type"]] | {"type"}:
        raise KeyError(f"{event['type']}: members {sorted(event)}")
    for name in event.keys() & MEMBERS.keys():
        if event[name].keys() != MEMBERS[name]:
            raise KeyError(f"{event['type']}.{name}: members {sorted(event[name])}")


class ScriptedRng:
    """Gives the bytes of a script, and no more."""

    def __init__(self, script: bytes) -> None:
        self.rest = script

    def bytes(self, count: int) -> bytes:
        if count > len(self.rest):
            raise AssertionError("more randomness is drawn than the vector gives")
        out, self.rest = self.rest[:count], self.rest[count:]
        return out


class RecordingRng:
    """Passes bytes on and remembers them."""

    def __init__(self, source: CountingRng) -> None:
        self.source = source
        self.taken = b""

    def bytes(self, count: int) -> bytes:
        out = self.source.bytes(count)
        self.taken += out
        return out


class Script:
    """Coordinator and clients, moved by the operations of ``session.json``; ``table`` is its ``bytes``.

    With ``seals`` a box that is not in the table, or does not open to what it should, is sealed anew.
    """

    def __init__(self, table: dict[str, bytes], *, seals: bool) -> None:
        self.table = table
        self.seals = seals
        self.used: set[str] = set()
        self.sealing_keys: dict[bytes, SealingKey] = {}
        self.states: dict[int, Any] = {}
        self.policies: dict[int, ClientPolicy] = {}
        self.masks: dict[int, MaskInput] = {}
        self.rows: dict[int, Any] = {}
        self.blobs = MemoryBlobStore()
        self.now_s = START_S
        self.removal: recovery.Removal | None = None
        self.folded = self.opened = np.zeros(0, dtype=np.uint64)

    def run(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The outcome of one operation."""
        operations = {
            "setup": self.setup, "client": self.client, "upload": self.upload, "coordinator": self.coordinator,
            "reconstruct": reconstructed, "removed": removed, "decoded": decoded,
        }  # fmt: skip
        function = operations[entry["op"]]
        outcome = ("op", "attack", "success", "expected", "error")
        inputs = {name: value for name, value in entry.items() if name not in outcome}
        unknown = inputs.keys() ^ inspect.signature(function).parameters.keys()
        if unknown:
            raise KeyError(f"{entry['op']}: missing or unknown inputs {sorted(unknown)}")
        check_members(inputs.get("event"))
        try:
            return {"success": True, "expected": function(**inputs)}
        except ProtocolError as refused:
            return {"success": False, "error": refused.reason.name}

    def setup(self, coordinator_seed, registrar_seed, identity_seeds, parameters):
        self.key = SigningKey(secret(coordinator_seed))
        registrar = SigningKey(secret(registrar_seed))
        self.identities = [SigningKey(secret(seed)) for seed in identity_seeds]
        roster = Roster.of([RosterMember(key.public_bytes, "") for key in self.identities])
        self.session = Session(SessionOpen.from_bytes(parameters.encode()), roster)
        self.clients = [key for position, key in enumerate(self.identities) if position != AWAY]
        head = roster.head(registrar.public_bytes).to_bytes()
        self.state: Any = None
        published = self._carry_on(coordinator.start(self.session, SetupRow(b"", b"", b"", b"", b"")))
        found = self.session.graph_parameters(len(self.clients))
        return {
            "roster": [leaf.decode() for leaf in roster.leaves()],
            "roster_head": head.decode(),
            "roster_signature": registrar.sign_statement(head).hex(),
            "digest": self.session.digest.hex(),
            "degree": found.degree,
            "threshold": found.threshold,
            "upload_bytes": self.session.upload_bytes,
            "published": published,
        }

    def client(self, client, event, randomness):
        rng = ScriptedRng(raw(randomness)) if isinstance(randomness, str) else randomness
        policy = self.policies.get(client, ClientPolicy())
        if event["type"] == "start":
            policy = ClientPolicy(event["policy"]["min_contributors"], Fraction(event["policy"]["tolerated_corrupt"]))
        context = ClientContext(self.clients[client], self.session, policy)
        with mock.patch.object(dealing, "seal", self._seal):
            transition = self._client_step(context, client, event, rng)
        self.states[client], self.policies[client] = transition.state, policy
        expected: dict[str, Any] = {"state": type(transition.state).__name__}
        for effect in transition.effects:
            if isinstance(effect, MaskInput):
                self.masks[client] = effect
                expected["keystream_keys"] = {
                    "self_mask": effect.self_mask.expose().hex(),
                    "add": [key.expose().hex() for key in effect.add],
                    "subtract": [key.expose().hex() for key in effect.subtract],
                }
            else:
                expected["sent"] = self._message_to_json(client, effect.message)
        return expected

    def _client_step(self, context: ClientContext, client: int, event: dict[str, Any], rng: Any) -> Any:
        if event["type"] != "start":
            return machine.step(context, self.states[client], self._client_event(event), rng)
        view = log.extend(log.LogView(()), self.session.parameters, evidence_of(event["log"]))
        transition = machine.start(context, view, rng)
        for key in (
            SealingKey(boxes.mask_key_seed(transition.state.root, self.session.digest)),
            SealingKey(transition.state.share_seed),
        ):
            self.sealing_keys[key.public_bytes] = key
        return transition

    def upload(self, client, vector, rounding):
        values = np.frombuffer(raw(vector), dtype="<f4").astype(np.float32)
        lanes, _ = vectors.encode(self.session.parameters.encoding, values, ScriptedRng(raw(rounding)))
        plain = hex_of(lanes)
        vectors.mask(lanes, self.masks[client])
        return {"lanes": plain, "masked": hex_of(lanes), "sha256": self.blobs.put(vectors.as_bytes(lanes)).hex()}

    def coordinator(self, event):
        if event["type"] == "deadline":
            self.now_s = event["now_s"]
        published = self._carry_on(self._coordinator_step(self._coordinator_event(event)))
        expected: dict[str, Any] = {"phase": phase_of(self.state).value, "published": published}
        if event["type"] == "upload-staged":
            signed = Signed.from_bytes(event["signed"].encode())
            receipt = Receipt(self.session.digest, hashlib.sha256(signed.to_bytes()).digest()).to_bytes()
            expected |= {"receipt": receipt.decode(), "signature": self.key.sign_statement(receipt).hex()}
        return expected

    def _coordinator_step(self, event: Any) -> Any:
        return coordinator.step(coordinator.Moment(self.session, self.rows, self.now_s), self.state, event)

    def _carry_on(self, transition: Any) -> list[dict[str, str]]:
        """Take a step's outcome and do what it asks for, until nothing is left; what was published meanwhile."""
        published = []
        self.state = transition.state
        self.rows.update(transition.rows)
        for effect in transition.effects:
            match effect:
                case PublishEntry(position, entry):
                    entries = (*(tables.evidence(self.rows).entries if position else ()), entry)
                    head = head_over(self.key.public_bytes, self.session.parameters.session, entries).to_bytes()
                    done: Any = EntryPublished(position, head, self.key.sign_statement(head))
                    published.append(
                        {"entry": entry.decode(), "head": head.decode(), "signature": done.signature.hex()}
                    )
                case FoldUploads(digests):
                    self.folded = vectors.fold(self.blobs, digests, LANES.lanes, 1)
                    done = SumFolded(vectors.digest_of(self.folded))
                case RecoverSum():
                    done = self._recover()
            published += self._carry_on(self._coordinator_step(done))
        return published

    def _recover(self) -> SumRecovered:
        state = self.state.unmasking
        positions = state.cohort.positions
        reader = recovery.slot_reader(
            self.graph, lambda index: self.rows[row_key(positions[index], RowKind.SHARE)].blob, self.blobs.read
        )
        self.removal = recovery.recover(self.session, self.rows, state, reader)
        self.opened = self.folded.copy()
        vectors.remove_masks(self.opened, self.removal, 1)
        made = vectors.decode(self.session.parameters.encoding, self.opened, len(state.accepted))
        digests = vectors.digest_of(made.integer_sum), vectors.digest_of(made.mean)
        return SumRecovered(merkle.root(self.removal.answers), *digests)

    @property
    def graph(self) -> Any:
        """The masking graph, once U1 is fixed."""
        return self.session.graph(len(self.clients), self.cohort.root)

    @property
    def cohort(self) -> Any:
        """U1 as logged."""
        state = getattr(self.state, "unmasking", self.state)
        return state.cohort

    def _seal(self, public_key: bytes, info: bytes, plaintext: Secret) -> bytes:
        """In place of ``seal``: the recorded box, if it opens to what it should."""
        label = b"share" if Label.SHARE_BOX.value.encode() in info else b"pair"
        sender, recipient = (int.from_bytes(info[at:][:4], "big") for at in (-16, -4))
        name = f"{label.decode()}_box/{sender}/{recipient}"
        try:
            if self.sealing_keys[public_key].open(self.table.get(name, b""), info) == plaintext:
                return self.table[name]
        except SealingError:
            pass
        if not self.seals:
            raise AssertionError(f"{name} does not open to what it should")
        return seal(public_key, info, plaintext)

    def _named(self, name: str, data: bytes) -> str:
        if self.seals:
            self.table[name] = data
        if self.table[name] != data:
            raise AssertionError(f"{name} is another value")
        self.used.add(name)
        return name

    def _get(self, name: str) -> bytes:
        self.used.add(name)
        return self.table[name]

    def _message_to_json(self, client: int, message: Any) -> dict[str, Any]:
        out: dict[str, Any] = {"type": message.signed.statement.TYPE, "signed": message.signed.to_bytes().decode()}
        if isinstance(message, AdvertiseKeys):
            for name in ("mask_public", "share_public"):
                out[name] = self._named(f"{name}/{client}", getattr(message, name))
        if isinstance(message, ShareKeys):
            out["boxes"] = [
                [
                    box.recipient,
                    self._named(f"share_box/{client}/{box.recipient}", box.share_box),
                    self._named(f"pair_box/{client}/{box.recipient}", box.pair_box) if box.pair_box else "",
                ]
                for box in message.boxes
            ]
        return out

    def _client_event(self, event: dict[str, Any]) -> Any:
        match event:
            case {"type": "advertised-list", "log": shown, "leaves": leaves, "keys": keys}:
                found = tuple(NeighbourKeys(index, self._get(mask), self._get(share)) for index, mask, share in keys)
                return AdvertisedList(evidence_of(shown), texts_of(leaves), found)
            case {"type": "shared-list", "log": shown, "leaves": leaves, "inbox": inbox}:
                items = tuple(
                    IncomingBoxes(sender, self._get(share), self._get(pair) if pair else b"", tuple(map(raw, path)))
                    for sender, share, pair, path in inbox
                )
                return SharedList(evidence_of(shown), texts_of(leaves), items)
            case {"type": "input-masked", "sha256": digest, "lanes": lanes}:
                return InputMasked(raw(digest), lanes)
            case {"type": "receipt", "receipt": receipt, "signature": signature}:
                return SignedReceipt(receipt.encode(), raw(signature))
            case {"type": "closed-list", "log": shown, "leaves": leaves}:
                return ClosedList(evidence_of(shown), texts_of(leaves))
            case {"type": "confirmations", "signed": given}:
                return Confirmations(tuple(map(Signed.from_bytes, texts_of(given))))
            case {"type": "session-ended", "log": shown}:
                return SessionEnded(evidence_of(shown))
            case _:
                raise KeyError(event["type"])

    def _coordinator_event(self, event: dict[str, Any]) -> Any:
        signed = Signed.from_bytes(event["signed"].encode()) if "signed" in event else None
        match event, signed:
            case {"type": "deadline"}, None:
                return DeadlinePassed()
            case {"type": "advertise-keys", "mask_public": mask, "share_public": share}, Signed():
                return AdvertiseKeys(signed, self._get(mask), self._get(share))
            case {"type": "share-keys", "boxes": given}, Signed():
                made = tuple(
                    OutgoingBoxes(recipient, self._get(share), self._get(pair) if pair else b"")
                    for recipient, share, pair in given
                )
                blob = self.blobs.put(b"".join(box.share_box + box.pair_box for box in made))
                return SharesStored(ShareKeys(signed, made), blob)
            case {"type": "contribution"}, Signed():
                return Contribution(signed)
            case {"type": "upload-staged", "sha256": digest}, Signed():
                return UploadStaged(signed.statement.identity, raw(digest))
            case {"type": "confirm-close"}, Signed():
                return ConfirmClose(signed)
            case {"type": "unmask"}, Signed():
                return UnmaskAnswer(signed)
            case _:
                raise KeyError(event["type"])


def reconstructed(threshold, shares):
    """``shares``: [index of the neighbour who released it, 36 bytes]."""
    points = np.array([index + 1 for index, _ in shares[:threshold]], dtype=np.uint64)
    values = np.stack([shamir.share_from_bytes(raw(data)) for _, data in shares[:threshold]])
    return shamir.limbs_to_secret(shamir.reconstruct(points, values)).hex()


def removed(lanes, add, subtract):
    out = lanes_of(lanes)
    add_masks(out, [raw(key) for key in add], [raw(key) for key in subtract])
    return hex_of(out)


def decoded(encoding, lanes, contributors):
    made = vectors.decode(Encoding.from_bytes(encoding.encode()), lanes_of(lanes), contributors)
    return {
        "integer_sum": made.integer_sum.tolist(),
        "integer_sum_sha256": vectors.digest_of(made.integer_sum).hex(),
        "mean": hex_of(made.mean),
        "mean_sha256": vectors.digest_of(made.mean).hex(),
    }


def evidence_of(shown):
    return LogEvidence(texts_of(shown["entries"]), shown["head"].encode(), raw(shown["signature"]))


def texts_of(texts):
    return tuple(text.encode() for text in texts)


def parameters_of(seeds):
    keys = [SigningKey(Secret(seed)) for seed in seeds]
    roster = Roster.of([RosterMember(key.public_bytes, "") for key in keys])
    return SessionOpen(
        session=CountingRng(b"vector session").bytes(16),
        protocol="pairwise",
        coordinator=SigningKey(secret(ROOT)).public_bytes,
        opened_at_s=START_S,
        base_model="example/base",
        base_model_digest=bytes(32),
        adapter=raw(OTHER),
        layout=raw(SESSION),
        merge="factors",
        encoding=Encoding(9, 15, 8, 64, Fraction(1), NoFlattening()),
        min_contributors=3,
        max_corrupt=0,
        expected_dropout=Fraction(1, 4),
        roster=roster.root(),
        roster_size=len(keys),
        registrar=SigningKey(secret(OTHER)).public_bytes,
        deadlines=Deadlines(60, 60, 60, 60, 60),
        noise=NoDifferentialPrivacy(),
        retention_s=0,
    )


def examples():
    """Records of every kind that is read by itself: (reader, canonical text)."""
    opened, key = parameters_of(SEEDS), SigningKey(Secret(SEEDS[0]))
    digest, who = hashlib.sha256(opened.to_bytes()).digest(), key.public_bytes

    def signed_by_key(statement):
        return Signed(statement, key.sign_statement(statement.to_bytes()))

    header = signed_by_key(ContributionHeader(digest, raw(OTHER), who, raw(ROOT), 4, (0, 2, 3)))
    shares = (SelfMaskShare(1, bytes(36)), RootShare(2, bytes(36)))
    made = [
        ("entry", opened),
        ("entry", KeysAdvertised(opened.session, 4, raw(ROOT))),
        ("entry", KeysShared(opened.session, 3, raw(ROOT))),
        ("entry", SessionClose(opened.session, 3, raw(ROOT), raw(OTHER), bytes(32))),
        ("entry", SessionResult(opened.session, 3, raw(ROOT), raw(OTHER), bytes(32))),
        ("entry", SessionAbort(opened.session, "fewer than min_contributors shared keys", 0)),
        ("signed", signed_by_key(AdvertiseStatement(digest, who, raw(ROOT), raw(OTHER)))),
        ("signed", signed_by_key(ShareStatement(digest, raw(ROOT), who, raw(OTHER), bytes(32), raw(ROOT)))),
        ("signed", header),
        ("signed", signed_by_key(ConfirmStatement(digest, raw(ROOT), who))),
        ("u2-leaf", Absent(2)),
        ("disposition", Accepted(0, header)),
        ("disposition", Rejected(1, "ASYMMETRIC_EDGE")),
        ("disposition", Dropped(3, "masked-input")),
        ("head", head_over(opened.coordinator, opened.session, (b"{}",))),
        ("receipt", Receipt(digest, raw(OTHER))),
        ("member", RosterMember(who, "Übersee")),
        ("roster", RosterHead(raw(OTHER), 5, raw(ROOT))),
        ("signed", signed_by_key(UnmaskStatement(digest, raw(ROOT), who, shares))),
    ]
    return [(reader, record.to_bytes().decode()) for reader, record in made]


def statement_of(signed_text):
    return canonical.encode(json.loads(signed_text)["statement"]).decode()


class Play:
    """An honest session, and at every step what a liar would send."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rngs = [CountingRng(b"vector client %d" % i) for i in range(4)]
        self.sent: dict[tuple[int, str], dict[str, Any]] = {}

    def operations(self) -> Iterator[dict[str, Any]]:
        seeds = {"coordinator_seed": ROOT, "registrar_seed": OTHER, "identity_seeds": [seed.hex() for seed in SEEDS]}
        text = parameters_of(SEEDS).to_bytes().decode()
        yield self._ran({"op": "setup"} | seeds | {"parameters": text})
        yield from self.advertise()
        yield from self.share()
        yield from self.contribute()
        yield from self.close()
        yield from self.answer()
        yield from self.end()

    def advertise(self):
        policy = {"min_contributors": 3, "tolerated_corrupt": "0/1"}
        start = {"type": "start", "policy": policy, "log": self.log()}
        floor = {"policy": policy | {"min_contributors": 4}}
        yield self.refused("a session below the client's own floor", 0, start | floor)
        yield self.refused("a log signed by somebody else", 0, start | {"log": self.log(key=self.script.identities[0])})
        for client in range(4):
            yield self.client(client, start)
        first = self.sent[0, "advertise-keys"]
        stranger = SigningKey(Secret(bytes(32)))
        statement = self.script.states[0].sent.statement
        yield self.lie("a key that is not the signed one", first | {"mask_public": "share_public/0"})
        junk = self.script._named("junk_public", bytes(1216))
        unusable = self.resigned(first, 0, mask_key=hashlib.sha256(bytes(1216)).digest()) | {"mask_public": junk}
        yield self.lie("a key that cannot be sealed to", unusable)
        yield self.lie("another's signature", self.resigned(first, 0, key=self.script.clients[1]))
        yield self.lie("another session", self.resigned(first, 0, session=bytes(32)))
        unknown = dataclasses.replace(statement, identity=stranger.public_bytes)
        yield self.lie("outside the roster", first | {"signed": signed_text(stranger, unknown)})
        for client in range(4):
            yield self.coordinator(self.sent[client, "advertise-keys"])
            if client == 0:
                yield self.coordinator(first)
                other = self.resigned(first, 0, mask_key=statement.share_key)
                yield self.lie("other keys of the same client", other | {"mask_public": "share_public/0"})
        yield self.coordinator({"type": "deadline", "now_s": START_S + 59})
        yield self.coordinator({"type": "deadline", "now_s": START_S + 60})
        late = self.script.identities[AWAY]
        yield self.lie("keys after the phase", self.resigned(first, 0, key=late, identity=late.public_bytes))

    def share(self):
        good = [self.advertised_list(client) for client in range(4)]
        yield from self.lies_about_u1(good[0])
        for client in range(4):
            yield self.client(client, good[client])
        yield self.refused("U1 a second time", 0, good[0])
        first = self.sent[0, "share-keys"]
        swapped = [[recipient, share, ""] for recipient, share, _ in first["boxes"]]
        yield self.lie("a recipient left out", first | {"boxes": first["boxes"][1:]})
        yield self.lie("a pair box left out", first | {"boxes": swapped})
        moved = [[r, s, p] for (r, _, p), (_, s, _) in zip(first["boxes"], first["boxes"][::-1], strict=True)]
        yield self.lie("boxes in exchange", first | {"boxes": moved})
        yield self.lie("over another U1", self.resigned(first, 0, advertised=bytes(32)))
        early = ContributionHeader(self.script.session.digest, bytes(32), self.identity(0), bytes(32), LANES.lanes, ())
        header = {"type": "contribution", "signed": signed_text(self.script.clients[0], early)}
        yield self.lie("a header before its phase", header)
        for client in range(4):
            yield self.coordinator(self.sent[client, "share-keys"])

    def lies_about_u1(self, good):
        leaves, rows = good["leaves"], self.script.rows
        altered = json.loads(self.sent[0, "advertise-keys"]["signed"])["statement"]
        mine = signed_text(self.script.clients[0], AdvertiseStatement.from_value(altered | {"mask_key": "00" * 32}))
        stranger = SigningKey(Secret(bytes(32)))
        foreign = AdvertiseStatement.from_value(altered | {"identity": stranger.public_bytes.hex()})
        outside = sorted([*leaves[:3], signed_text(stranger, foreign)], key=identity_of)
        junk = self.script._named("junk_public", bytes(1216))
        other = self.resigned(self.sent[3, "advertise-keys"], 3, mask_key=hashlib.sha256(bytes(1216)).digest())[
            "signed"
        ]
        yield self.refused("a list with another root", 0, good | {"leaves": [*leaves[:3], other]})
        unusable = [*good["keys"][:2], [3, junk, good["keys"][2][2]]]
        told = self.told_u1([*leaves[:3], other], good) | {"keys": unusable}
        yield self.refused("a neighbour's key that cannot be sealed to", 0, told)
        yield self.refused("another count", 0, self.told_u1(leaves, good, count=3))
        yield self.refused("two clients only", 0, self.told_u1(leaves[:2], good))
        yield self.refused("identities out of order", 0, self.told_u1(leaves[::-1], good))
        yield self.refused("a client twice", 0, self.told_u1([*leaves, leaves[3]], good))
        yield self.refused("without this client", 0, self.told_u1(leaves[1:], good))
        yield self.refused("this client's keys exchanged", 0, self.told_u1([mine, *leaves[1:]], good))
        yield self.refused("somebody outside the roster", 0, self.told_u1(outside, good))
        value = json.loads(leaves[2])
        value["statement"]["mask_key"] = "00" * 32
        forged = canonical.encode(value).decode()
        yield self.refused("an altered statement of another", 0, self.told_u1([*leaves[:2], forged, leaves[3]], good))
        keys = [[index, share, mask] for index, mask, share in good["keys"]]
        yield self.refused("a neighbour's key substituted", 0, good | {"keys": keys})
        yield self.refused("a neighbour's key withheld", 0, good | {"keys": good["keys"][1:]})
        again = tables.evidence(rows).entries[0].decode().replace('"retention_s":0', '"retention_s":1')
        yield self.refused(
            "other parameters than before", 0, good | {"log": self.log(again, good["log"]["entries"][1])}
        )
        yield self.refused("no second entry", 0, good | {"log": self.log(good["log"]["entries"][0])})

    def contribute(self):
        good = [self.shared_list(client) for client in range(4)]
        yield from self.lies_about_u2(good[0])
        for client in range(4):
            yield self.client(client, good[client])
        for client in range(4):
            vector = np.linspace(-0.25, 0.25, 9, dtype=np.float32) * np.float32(client + 1) / np.float32(4)
            rounding = self.rngs[client].bytes(32).hex()
            made = self._ran({"op": "upload", "client": client, "vector": hex_of(vector), "rounding": rounding})
            yield made
            masked_event = {"type": "input-masked", "sha256": made["expected"]["sha256"], "lanes": LANES.lanes}
            if client == 0:
                yield self.refused("an upload of another length", 0, masked_event | {"lanes": LANES.lanes + 1})
            yield self.client(client, masked_event)
        yield from self.lies_to_the_collector()
        for client in self.contributors():
            header = self.sent[client, "contribution"]
            digest = json.loads(header["signed"])["statement"]["upload"]
            yield self.coordinator(header)
            if client == 0:
                yield self.lie("a second header", self.resigned(header, 0, upload=bytes(32)))
                staged = {"type": "upload-staged", "signed": header["signed"], "sha256": "00" * 32}
                yield self.lie("other bytes than announced", staged)
            made = self.coordinator({"type": "upload-staged", "signed": header["signed"], "sha256": digest})
            yield made
            receipt = {"type": "receipt"} | {name: made["expected"][name] for name in ("receipt", "signature")}
            if client == 0:
                other = canonical.encode(json.loads(receipt["receipt"]) | {"contribution": "00" * 32}).decode()
                yield self.refused("a receipt for something else", 0, receipt | {"receipt": other})
                yield self.refused("a receipt signed by nobody", 0, receipt | {"signature": "00" * 64})
            yield self.client(client, receipt)
        yield self.coordinator({"type": "deadline", "now_s": START_S + 120})

    def lies_about_u2(self, good):
        leaves, inbox = good["leaves"], good["inbox"]
        absent = [Absent(index).to_bytes().decode() for index in range(4)]
        other = self.resigned(self.sent[3, "share-keys"], 3, boxes=bytes(32))["signed"]
        yield self.refused("a list with another root", 0, good | {"leaves": [*leaves[:3], other]})
        yield self.refused("this client said to be absent", 0, self.told_u2([absent[0], *leaves[1:]], good))
        yield self.refused("two clients only", 0, self.told_u2([*leaves[:2], *absent[2:]], good))
        yield self.refused("an absence out of place", 0, self.told_u2([*leaves[:3], absent[2]], good))
        yield self.refused("leaves exchanged", 0, self.told_u2([leaves[0], leaves[2], leaves[1], leaves[3]], good))
        yield self.refused("fewer leaves than members", 0, self.told_u2(leaves[:3], good))
        yield self.refused("the boxes of one neighbour withheld", 0, good | {"inbox": inbox[1:]})
        exchanged = [[1, *inbox[1][1:]], [2, *inbox[0][1:]], inbox[2]]
        yield self.refused("boxes of another sender", 0, good | {"inbox": exchanged})
        meant = [[1, "share_box/1/2", "pair_box/1/2", inbox[0][3]], *inbox[1:]]
        yield self.refused("boxes meant for another", 0, good | {"inbox": meant})
        yield self.refused("a path cut short", 0, good | {"inbox": [[*inbox[0][:3], inbox[0][3][:-1]], *inbox[1:]]})
        yield self.refused("signed boxes of two neighbours that do not open", 0, self.corrupt_boxes(good))
        position = good["log"]["entries"]
        yield self.refused(
            "two entries in exchange", 0, good | {"log": self.log(position[0], position[2], position[1])}
        )

    def corrupt_boxes(self, good):
        """Clients 1 and 2 collude: boxes that are no boxes, under a root that they signed."""
        leaves, inbox = list(good["leaves"]), list(good["inbox"])
        junk = self.script._named("junk", bytes(boxes.SHARE_BOX_BYTES))
        hashes = [merkle.leaf_hash(boxes.box_leaf(0, bytes(boxes.SHARE_BOX_BYTES), b""))] * 3
        path = [node.hex() for node in merkle.inclusion_proof(hashes, 0)]
        for sender in (1, 2):
            inbox[sender - 1] = [sender, junk, "", path]
            value = json.loads(leaves[sender])["statement"] | {"boxes": merkle.root_of_hashes(hashes).hex()}
            leaves[sender] = signed_text(self.script.clients[sender], ShareStatement.from_value(value))
        return self.told_u2(leaves, good) | {"inbox": inbox}

    def lies_to_the_collector(self):
        header = self.sent[0, "contribution"]
        yield self.lie("a header over another U2", self.resigned(header, 0, shared=bytes(32)))
        yield self.lie("an upload of another length", self.resigned(header, 0, lanes=LANES.lanes + 1))
        yield self.lie("missing somebody who is no neighbour", self.resigned(header, 0, missing=(0,)))
        yield self.lie("masked with fewer than the threshold", self.resigned(header, 0, missing=(1, 2)))
        staged = {"type": "upload-staged", "signed": header["signed"], "sha256": "00" * 32}
        yield self.lie("bytes without a header", staged)
        alien = self.script.identities[AWAY]
        yield self.lie(
            "a member who did not advertise", self.resigned(header, 0, key=alien, identity=alien.public_bytes)
        )

    def close(self):
        good = self.closed_list()
        leaves = good["leaves"]
        for name, client, event in self.lies_about_u3(good):
            yield self.refused(name, client, event)
        for client in self.contributors():
            yield self.client(client, good)
        yield self.refused("a second close entry", 0, self.told_u3(leaves, good))
        first = self.sent[0, "confirm-close"]
        yield self.lie("a confirmation of another close entry", self.resigned(first, 0, close=bytes(32)))
        dropped = self.resigned(first, 0, key=self.script.clients[DROPPED], identity=self.identity(DROPPED))
        yield self.lie("a confirmation of a client left out", dropped)
        yield self.lie("an answer before its phase", self.made_up_answer(0))
        for client in self.contributors():
            yield self.coordinator(self.sent[client, "confirm-close"])

    def lies_about_u3(self, good):
        leaves, entries = good["leaves"], good["log"]["entries"]
        gone = [Dropped(index, "masked-input").to_bytes().decode() for index in range(4)]
        earlier = Dropped(DROPPED, "share-keys").to_bytes().decode()
        yield "a list with another root", 0, good | {"leaves": [leaves[0], earlier, *leaves[2:]]}
        yield "left out of a sum over two", 0, self.told_u3([gone[0], *leaves[1:]], good)
        yield (
            "left out of the sum, the dropped client said to be in it",
            0,
            self.told_u3(
                [gone[0], self.accepted(DROPPED, self.sent[DROPPED, "contribution"]["signed"]), *leaves[2:]], good
            ),
        )
        yield "a sum over two", 0, self.told_u3([leaves[0], gone[1], gone[2], leaves[3]], good)
        yield "another count", 0, self.told_u3(leaves, good, count=4)
        yield "another root of the contributions", 0, self.told_u3(leaves, good, contributions=bytes(32))
        yield (
            "a header in another's place",
            0,
            self.told_u3(
                [leaves[0], leaves[1], self.accepted(2, json.loads(leaves[3])["contribution"]), leaves[3]], good
            ),
        )
        other = json.loads(self.resigned(self.sent[0, "contribution"], 0, upload=bytes(32))["signed"])
        yield "another upload in this client's name", 0, self.told_u3([self.accepted(0, other), *leaves[1:]], good)
        one_end = json.loads(self.resigned(self.sent[3, "contribution"], 3, missing=(0,))["signed"])
        yield "an edge applied at one end only", 2, self.told_u3([*leaves[:3], self.accepted(3, one_end)], good)
        lost = json.loads(leaves[3])["contribution"] | {"signature": "00" * 64}
        yield "a header that nobody signed", 0, self.told_u3([*leaves[:3], self.accepted(3, lost)], good)
        second = self.told_u3([gone[0], *leaves[1:]], good)["log"]["entries"][3]
        yield "two close entries in one log", 0, good | {"log": self.log(*entries, second)}
        fork = entries[2].replace('"count":4', '"count":3')
        yield "another U2 than before", 0, good | {"log": self.log(*entries[:2], fork, entries[3])}
        yield "no close entry", 0, good | {"log": self.log(*entries[:3])}

    def answer(self):
        for client in self.contributors():
            others = [other for other in self.contributors() if other != client]
            good = {
                "type": "confirmations",
                "signed": [self.sent[other, "confirm-close"]["signed"] for other in others],
            }
            if client == 0:
                yield from self.lies_about_confirmations(good)
            yield self.client(client, good)
        yield self.refused("confirmations a second time", 0, good)
        first = self.sent[0, "unmask"]
        shares = list(Signed.from_bytes(first["signed"].encode()).statement.shares)
        opposite = [RootShare(shares[1].index, shares[1].share) if i == 1 else s for i, s in enumerate(shares)]
        yield self.lie("a root share of a contributor", self.resigned(first, 0, shares=tuple(opposite)))
        opposite = [SelfMaskShare(s.index, s.share) if s.index == DROPPED else s for s in shares]
        yield self.lie("a self-mask share of a client left out", self.resigned(first, 0, shares=tuple(opposite)))
        yield self.lie("a share left out", self.resigned(first, 0, shares=tuple(shares[1:])))
        yield self.lie("an answer for another close entry", self.resigned(first, 0, close=bytes(32)))
        yield self.lie("an answer of a client left out", self.made_up_answer(DROPPED))
        for client in self.contributors():
            yield self.coordinator(self.sent[client, "unmask"])

    def lies_about_confirmations(self, good):
        first = self.sent[2, "confirm-close"]
        for name, event in (
            ("one confirmation twice", first),
            ("a confirmation of another close entry", self.resigned(first, 2, close=bytes(32))),
            ("a confirmation from another session", self.resigned(first, 2, session=bytes(32))),
            ("another's signature", self.resigned(first, 2, key=self.script.clients[3])),
            ("a client left out", self.resigned(first, 1, identity=self.identity(1))),
            ("this client's own", self.sent[0, "confirm-close"]),
            ("a statement of another phase", self.sent[2, "contribution"]),
        ):
            yield self.refused(name, 0, good | {"signed": [first["signed"], event["signed"]]})

    def end(self):
        answers = {
            client: Signed.from_bytes(self.sent[client, "unmask"]["signed"].encode()) for client in self.contributors()
        }
        for owner in range(4):
            shares = [
                [client, share.share.hex()]
                for client, signed in answers.items()
                for share in signed.statement.shares
                if share.index == owner
            ]
            yield self._ran({"op": "reconstruct", "threshold": 2, "shares": shares})
        removal = self.script.removal
        keys = {name: [key.expose().hex() for key in getattr(removal, name)] for name in ("add", "subtract")}
        yield self._ran({"op": "removed", "lanes": hex_of(self.script.folded)} | keys)
        encoding = self.script.session.parameters.encoding.to_bytes().decode()
        lanes = hex_of(self.script.opened)
        yield self._ran({"op": "decoded", "encoding": encoding, "lanes": lanes, "contributors": 3})
        entries = [entry.decode() for entry in tables.evidence(self.script.rows).entries]
        ended = {"type": "session-ended", "log": self.log(*entries)}
        yield self.refused("no end", 0, ended | {"log": self.log(*entries[:4])})
        yield self.refused("a second result", 0, ended | {"log": self.log(*entries, entries[4])})
        for client in self.contributors():
            yield self.client(client, ended)
        yield self.refused("anything after the end", 0, ended)
        aborted = SessionAbort(self.script.session.parameters.session, "why not", 0).to_bytes().decode()
        yield self.client(DROPPED, ended | {"log": self.log(*entries[:3], aborted)})
        yield self.lie("an answer after the end", self.made_up_answer(DROPPED))
        yield self.lie("another answer of the same client", self.resigned(self.sent[0, "unmask"], 0, close=bytes(32)))
        yield self.coordinator(self.sent[0, "unmask"])

    # What the lists and lies are made of.

    def contributors(self):
        return [client for client in range(4) if client != DROPPED]

    def identity(self, client):
        return self.script.clients[client].public_bytes

    def log(self, *entries, key=None):
        """These entries, or the log as it is, under a head signed by the coordinator or by ``key``."""
        shown = tables.evidence(self.script.rows)
        data = texts_of(entries) or shown.entries
        head = head_over(self.script.key.public_bytes, self.script.session.parameters.session, data).to_bytes()
        signature = (key or self.script.key).sign_statement(head).hex()
        return {"entries": [entry.decode() for entry in data], "head": head.decode(), "signature": signature}

    def advertised_list(self, client):
        cohort = self.script.cohort
        leaves = [leaf.decode() for leaf in tables.advertised_leaves(self.script.rows, cohort.positions)]
        keys = [[other, f"mask_public/{other}", f"share_public/{other}"] for other in range(4) if other != client]
        return {"type": "advertised-list", "log": self.log(), "leaves": leaves, "keys": keys}

    def shared_list(self, client):
        script, inbox = self.script, []
        leaves = [leaf.decode() for leaf in tables.shared_leaves(script.rows, script.cohort)]
        for sender in script.graph.neighbours(client):
            hashes = script.rows[row_key(script.cohort.positions[sender], RowKind.SHARE)].hashes
            place = script.graph.neighbours(sender).index(client)
            path = merkle.inclusion_proof([hashes[i : i + 32] for i in range(0, len(hashes), 32)], place)
            pair = f"pair_box/{sender}/{client}" if sender < client else ""
            inbox.append([sender, f"share_box/{sender}/{client}", pair, [node.hex() for node in path]])
        return {"type": "shared-list", "log": self.log(), "leaves": leaves, "inbox": inbox}

    def closed_list(self):
        state, rows = self.script.state, self.script.rows
        leaves = tables.disposition_leaves(rows, state.cohort, state.present, state.accepted)
        return {"type": "closed-list", "log": self.log(), "leaves": [leaf.decode() for leaf in leaves]}

    def told_u1(self, leaves, good, count=None):
        opened = good["log"]["entries"][0]
        entry = KeysAdvertised(self.script.session.parameters.session, count or len(leaves), root_of(leaves))
        return good | {"log": self.log(opened, entry.to_bytes().decode()), "leaves": leaves}

    def told_u2(self, leaves, good):
        present = sum('"type":"signed"' in leaf for leaf in leaves)
        entry = KeysShared(self.script.session.parameters.session, present, root_of(leaves))
        return good | {"log": self.log(*good["log"]["entries"][:2], entry.to_bytes().decode()), "leaves": leaves}

    def told_u3(self, leaves, good, **changes):
        headers = [canonical.encode(json.loads(leaf)["contribution"]).decode() for leaf in leaves if "accepted" in leaf]
        session = self.script.session.parameters.session
        entry = SessionClose(session, len(headers), root_of(headers), root_of(leaves), bytes(32))
        text = dataclasses.replace(entry, **changes).to_bytes().decode()
        return good | {"log": self.log(*good["log"]["entries"][:3], text), "leaves": leaves}

    def accepted(self, index, contribution):
        value = json.loads(contribution) if isinstance(contribution, str) else contribution
        return Accepted(index, Signed.from_value(value)).to_bytes().decode()

    def resigned(self, event, client, key=None, **changes):
        """A message with its statement changed and signed again, by its client or by ``key``."""
        statement = Signed.from_bytes(event["signed"].encode()).statement
        return event | {
            "signed": signed_text(key or self.script.clients[client], dataclasses.replace(statement, **changes))
        }

    def made_up_answer(self, client):
        close = hashlib.sha256(tables.evidence(self.script.rows).entries[3]).digest()
        statement = UnmaskStatement(self.script.session.digest, close, self.identity(client), ())
        return {"type": "unmask", "signed": signed_text(self.script.clients[client], statement)}

    def client(self, client, event):
        rng = RecordingRng(self.rngs[client])
        outcome = self.script.run({"op": "client", "client": client, "event": event, "randomness": rng})
        if not outcome["success"]:
            raise AssertionError(f"client {client}, {event['type']}: {outcome['error']}")
        message = outcome["expected"].get("sent")
        if message is not None:
            self.sent[client, message["type"]] = message
        return {"op": "client", "client": client, "event": event, "randomness": rng.taken.hex()} | outcome

    def refused(self, name, client, event):
        entry = {"op": "client", "attack": name, "client": client, "event": event, "randomness": ""}
        return self._refused(entry)

    def lie(self, name, event):
        return self._refused({"op": "coordinator", "attack": name, "event": event})

    def coordinator(self, event):
        return self._ran({"op": "coordinator", "event": event})

    def _ran(self, entry):
        outcome = self.script.run(entry)
        if not outcome["success"]:
            raise AssertionError(f"{entry['op']}: {outcome['error']}")
        return entry | outcome

    def _refused(self, entry):
        outcome = self.script.run(entry)
        if outcome["success"]:
            raise AssertionError(f"{entry['attack']}: not refused")
        return entry | outcome


def signed_text(key, statement):
    return Signed(statement, key.sign_statement(statement.to_bytes())).to_bytes().decode()


def identity_of(signed):
    return json.loads(signed)["statement"]["identity"]


def root_of(texts):
    return merkle.root(texts_of(texts))


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
