"""Writes transparency.json: notes, checkpoints, cosignatures, tiles, proofs, policies and requests to witnesses.

Run from the repository root: ``python -m tests.vectors.generate_transparency``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secagg.crypto.notes import cosign, open_checkpoint, sign_checkpoint
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript import merkle, tiles
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.cosignature import cosignature_message
from secagg.transcript.merkle import ProofError
from secagg.transcript.note import Note, NoteError, VerifierKey
from secagg.transcript.policy import LogPolicy, PolicyError
from secagg.transcript.proof import LogProof, LogProofError
from secagg.transcript.tiles import TileError
from secagg.transcript.witness_request import AddCheckpoint
from tests.vectors import transparency_inputs

PATH = Path(__file__).with_name("transparency.json")

DESCRIPTION = (
    "The strict profile of the C2SP formats signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof, "
    "tlog-policy and tlog-witness, and the proofs of RFC 6962. Bytes are hex; sizes, indices, levels, widths and times "
    "are decimal strings; a name says what an operation shows. Where success is false, error is the field that is "
    "refused; of a policy it is the number of the line, 0 for the whole; proofs that do not hold have the error "
    "'proof'. Leaf i of a tree is i in decimal ASCII. ops: read_* decode and must encode to the same bytes; sign and "
    "cosign use the Ed25519 seed; open verifies data under log and witnesses (vkeys) and lists the distinct public "
    "keys that cosigned with their latest times; tile_path, bundle_path and their read_*; tiles_of: for each level "
    "the number of full tiles and the width of the partial one; policy: met says for each list of witness names "
    "whether their public keys meet the quorum."
)

Operation = dict[str, Any]


def leaf_hashes(size: int) -> list[bytes]:
    """The hashes of the leaves 0 to ``size`` - 1."""
    return [merkle.leaf_hash(str(number).encode()) for number in range(size)]


def same(given: str, encoded: str) -> Operation:
    """Nothing to say, where what was read is written as it was: each format has one form for a value."""
    return {} if encoded == given else {"encoded": encoded}


def read_note(given: Operation) -> Operation:
    note = Note.parse(bytes.fromhex(given["data"]))
    lines = [[line.name, line.key_id.hex(), line.signature.hex()] for line in note.signatures]
    return same(given["data"], note.to_bytes().hex()) | {"text": note.text, "signatures": lines}


def read_checkpoint(given: Operation) -> Operation:
    read = Checkpoint.parse(given["text"])
    outcome = {"origin": read.origin, "size": str(read.size), "root": read.root.hex()}
    return same(given["text"], read.to_text()) | outcome


def read_key(given: Operation) -> Operation:
    key = VerifierKey.parse(given["text"])
    outcome = {"key_name": key.name, "kind": str(int(key.kind)), "public_key": key.public_key.hex()}
    return same(given["text"], key.to_text()) | outcome | {"key_id": key.key_id.hex()}


def message(given: Operation) -> Operation:
    return {"message": cosignature_message(given["text"], int(given["timestamp_s"])).hex()}


def signing_key(given: Operation) -> SigningKey:
    return SigningKey(Secret(bytes.fromhex(given["seed"])))


def sign(given: Operation) -> Operation:
    return {"data": sign_checkpoint(signing_key(given), Checkpoint.parse(given["text"])).to_bytes().hex()}


def cosign_text(given: Operation) -> Operation:
    line = cosign(signing_key(given), given["witness"], given["text"], int(given["timestamp_s"]))
    return {"line": line.to_line()}


def open_note(given: Operation) -> Operation:
    witnesses = [VerifierKey.parse(text) for text in given["witnesses"]]
    found = open_checkpoint(bytes.fromhex(given["data"]), VerifierKey.parse(given["log"]), witnesses)
    cosigned = [[each.public_key.hex(), str(each.timestamp_s)] for each in found.cosigned]
    return {"checkpoint": found.checkpoint.to_text(), "cosigned": cosigned}


def tile_path(given: Operation) -> Operation:
    return {"path": tiles.tile_path(int(given["level"]), int(given["index"]), int(given["width"]))}


def bundle_path(given: Operation) -> Operation:
    return {"path": tiles.bundle_path(int(given["index"]), int(given["width"]))}


def read_tile_path(given: Operation) -> Operation:
    level, index, width = tiles.parse_tile_path(given["path"])
    return {"level": str(level), "index": str(index), "width": str(width)}


def read_bundle_path(given: Operation) -> Operation:
    index, width = tiles.parse_bundle_path(given["path"])
    return {"index": str(index), "width": str(width)}


def tiles_of(given: Operation) -> Operation:
    levels: list[list[str]] = []
    found = list(tiles.tiles_of(int(given["size"])))
    for level in range(1 + max((tile[0] for tile in found), default=-1)):
        row = [width for at, _, width in found if at == level]
        full = row.count(tiles.TILE_WIDTH)
        levels.append([str(full), str(sum(row) - full * tiles.TILE_WIDTH)])
    return {"levels": levels}


def read_bundle(given: Operation) -> Operation:
    entries = tiles.decode_bundle(bytes.fromhex(given["data"]))
    return same(given["data"], tiles.encode_bundle(entries).hex()) | {"entries": [entry.hex() for entry in entries]}


def prove_inclusion(given: Operation) -> Operation:
    tree = merkle.Tree(leaf_hashes(int(given["size"])))
    path = tree.inclusion_proof(int(given["index"]))
    return {"path": [node.hex() for node in path], "root": tree.root.hex()}


def verify_inclusion(given: Operation) -> Operation:
    path = [bytes.fromhex(node) for node in given["path"]]
    leaf, root = bytes.fromhex(given["leaf"]), bytes.fromhex(given["root"])
    merkle.verify_inclusion(leaf, int(given["index"]), int(given["size"]), path, root)
    return {}


def prove_consistency(given: Operation) -> Operation:
    hashes, old_size = leaf_hashes(int(given["size"])), int(given["old_size"])
    old_root, root = (merkle.root_of_hashes(part) for part in (hashes[:old_size], hashes))
    proof = merkle.consistency_proof(hashes, old_size)
    return {"proof": [node.hex() for node in proof], "old_root": old_root.hex(), "root": root.hex()}


def verify_consistency(given: Operation) -> Operation:
    proof = [bytes.fromhex(node) for node in given["proof"]]
    old_root, root = bytes.fromhex(given["old_root"]), bytes.fromhex(given["root"])
    merkle.verify_consistency(int(given["old_size"]), old_root, int(given["size"]), root, proof)
    return {}


def read_proof(given: Operation) -> Operation:
    read = LogProof.parse(bytes.fromhex(given["data"]))
    return same(given["data"], read.to_bytes().hex()) | {
        "extra": read.extra.hex(),
        "index": str(read.index),
        "path": [node.hex() for node in read.path],
        "checkpoint": read.checkpoint.hex(),
    }


def read_request(given: Operation) -> Operation:
    read = AddCheckpoint.parse(bytes.fromhex(given["data"]))
    return same(given["data"], read.to_bytes().hex()) | {
        "old_size": str(read.old_size),
        "proof": [node.hex() for node in read.proof],
        "note": read.note.hex(),
    }


def policy(given: Operation) -> Operation:
    read = LogPolicy.parse(given["text"])
    keys = {witness.name: witness.key.public_key for witness in read.witnesses}
    met = [read.is_met_by([keys[name] for name in names]) for names in given["present"]]
    return {"met": met, "encoded": read.to_text()}


OPERATIONS: dict[str, Callable[[Operation], Operation]] = {
    "read_note": read_note,
    "read_checkpoint": read_checkpoint,
    "read_key": read_key,
    "cosignature_message": message,
    "sign": sign,
    "cosign": cosign_text,
    "open": open_note,
    "tile_path": tile_path,
    "bundle_path": bundle_path,
    "read_tile_path": read_tile_path,
    "read_bundle_path": read_bundle_path,
    "tiles_of": tiles_of,
    "read_bundle": read_bundle,
    "prove_inclusion": prove_inclusion,
    "verify_inclusion": verify_inclusion,
    "prove_consistency": prove_consistency,
    "verify_consistency": verify_consistency,
    "read_proof": read_proof,
    "read_request": read_request,
    "policy": policy,
}


def replay(given: Operation) -> Operation:
    """The outcome of one operation: what an implementation must find from its inputs."""
    try:
        return {**OPERATIONS[given["op"]](given), "success": True}
    except (NoteError, LogProofError, TileError) as error:
        return {"success": False, "error": error.field}
    except PolicyError as error:
        return {"success": False, "error": str(error.line)}
    except ProofError:
        return {"success": False, "error": "proof"}


def document() -> Operation:
    """All vectors, as they stand in the file."""
    operations = [{"given": given, "outcome": replay(given)} for given in transparency_inputs.operations()]
    return {"description": DESCRIPTION, "operations": operations}


def text() -> str:
    """The file: one operation to a line, so that a change shows as a line."""
    content = document()
    lines = ",\n".join("  " + json.dumps(operation) for operation in content["operations"])
    return f'{{\n"description": {json.dumps(content["description"])},\n"operations": [\n{lines}\n]\n}}\n'


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
