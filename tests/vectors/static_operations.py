"""The operations of the vectors that stand alone, each a function of its inputs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secagg.arith.keystream import add_masks
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label, encode_fields
from secagg.crypto.sealing import SealingError, SealingKey, check_public_key
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SignatureError, SigningKey, verify_statement
from secagg.derive import boxes
from secagg.runtime import vectors
from secagg.transcript import canonical, merkle
from secagg.transcript.encoding import Encoding
from secagg.transcript.entries import decode_entry
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.published import decode_published_pair
from secagg.transcript.record import RecordError
from secagg.transcript.roster import RosterHead, RosterMember
from secagg.transcript.statements import (
    Receipt,
    Signed,
    decode_disposition,
    decode_share_leaf,
)

DIRECTORY = Path(__file__).parent
OPERATIONS: dict[str, Callable[..., Any]] = {}
SESSION, ROOT, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"session", b"root", b"other"))
READERS: dict[str, Callable[[bytes], Any]] = {
    "entry": decode_entry,
    "signed": Signed.from_bytes,
    "u2-leaf": decode_share_leaf,
    "disposition": decode_disposition,
    "pair": decode_published_pair,
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
def box_leaf(recipient, share_box, pair_box, commitments):
    leaf = boxes.box_leaf(recipient, raw(share_box), raw(pair_box), raw(commitments))
    return {"leaf": leaf.hex(), "hash": merkle.leaf_hash(leaf).hex()}


@operation
def box_commitments(*, session, owner, holder, self_mask_share, root_share, pair_seed):
    """``pair_seed`` is empty where the owner has the higher index."""
    digest = raw(session)
    made = boxes.commit_self_mask_share(digest, owner, holder, raw(self_mask_share))
    made += boxes.commit_root_share(digest, owner, holder, raw(root_share))
    if pair_seed:
        made += boxes.commit_pair_seed(digest, owner, holder, secret(pair_seed))
    return made.hex()


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
    """``rounding``: the 32 bytes that seed the quantiser's stream."""
    values = np.frombuffer(raw(vector), dtype="<f4").astype(np.float32)
    record = Encoding.from_bytes(encoding.encode())
    lanes, report = vectors.encode(record, NoDifferentialPrivacy(), values, secret(rounding))
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
