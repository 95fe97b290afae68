"""The vectors that stand alone: what is asked of each operation, and what must be refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import nacl.signing
import numpy as np

from secagg.arith import shamir
from secagg.crypto.labels import Label
from secagg.crypto.sealing import SealingError, SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.transcript import merkle
from secagg.transcript.encoding import Flattening
from tests.support.rng import CountingRng
from tests.vectors.session_records import examples, statement_of
from tests.vectors.static_operations import (
    DIRECTORY,
    OTHER,
    ROOT,
    SESSION,
    attack,
    audit_path,
    encoded,
    hex_of,
    lanes_of,
    pair_box_info,
    raw,
    replay,
    secret,
    share_box_info,
    signed,
    tree_root,
)


def canonical_operations() -> Iterator[dict[str, Any]]:
    for value in (0, -1, 2**53 - 1, -(2**53) + 1, "", "é\u2028\x7f", '"\\\n\t\b\f\r\x1f/', [], [[1], {}]):
        yield {"op": "canonical_encode", "value": value}
    yield {"op": "canonical_encode", "value": {"b": 1, "a": [2, {"B": "x", "_": ""}], "aa": "1/10"}}
    for name, value in (
        ("2^53", 2**53), ("a fraction", 1.5), ("a boolean", True), ("nothing", None), ("a key beyond ASCII", {"é": 1}),
        ("18 lists in one another", json.loads("[" * 18 + "]" * 18)),
    ):  # fmt: skip
        yield attack(name, {"op": "canonical_encode", "value": value})
    for text in ('{"a":1,"b":[2,"x"]}', '"é\\u001f"', "[" * 17 + "0" + "]" * 17, "-9007199254740991"):
        yield {"op": "canonical_decode", "data": text.encode().hex()}
    for name, data in (
        ("keys out of order", b'{"b":1,"a":2}'), ("a key twice", b'{"a":1,"a":1}'), ("a space", b'{"a": 1}'),
        ("a final newline", b'{"a":1}\n'), ("a needless escape", b'"\\u0041"'), ("an escaped slash", b'"\\/"'),
        ("an upper-case escape", b'"\\u001F"'), ("minus zero", b"-0"), ("a leading zero", b"01"),
        ("an exponent", b"1e3"), ("a point", b"1.0"), ("2^53", b"9007199254740992"), ("infinity", b"Infinity"),
        ("true", b"true"), ("null", b"null"), ("a lone surrogate", b'"\\ud800"'), ("not UTF-8", b'"\xff"'),
        ("a byte order mark", b"\xef\xbb\xbf1"), ("nothing", b""), ("two values", b"1 2"),
        ("18 lists in one another", b"[" * 18 + b"]" * 18),
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
        ("a member that nobody knows", "entry", opened.replace('"version":2}', '"version":2,"zeal":1}')),
        ("a member missing", "entry", opened.replace('"merge":{"type":"factors","version":2},', "")),
        ("another version", "member", texts["member"].replace('"version":2', '"version":1')),
        ("another type", "receipt", texts["roster"]),
        ("hex in upper case", "roster", texts["roster"].replace("a", "A")),
        ("bytes cut short", "roster", re.sub(r'[0-9a-f]{2}","root"', '","root"', texts["roster"])),
        ("a fraction that can be reduced", "entry", opened.replace('"clip_norm":"1/1"', '"clip_norm":"2/2"')),
        ("a field that could overflow", "entry", opened.replace('"usable_bits":64', '"usable_bits":16')),
        ("a minimum that hides nobody", "entry", opened.replace('"max_corrupt":0', '"max_corrupt":2')),
        ("a merge rule of a later version", "entry", opened.replace('{"type":"factors",', '{"type":"product",')),
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
    for label in (Label.SELF_MASK_SHARE_COMMITMENT, Label.ROOT_SHARE_COMMITMENT, Label.PAIR_SEED_COMMITMENT):
        yield {"op": "labelled_sha256", "label": label.value, "fields": [SESSION, "00000002", "00000007", ROOT]}
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
    for owner, holder, pair_seed in ((1, 0, ""), (0, 1, OTHER), (3, 70_000, ROOT)):
        dealt = {"self_mask_share": "01" * 36, "root_share": "02" * 36, "pair_seed": pair_seed}
        made = {"op": "box_commitments", "session": SESSION, "owner": owner, "holder": holder} | dealt
        yield made
        given = {"recipient": holder, "share_box": "0102", "pair_box": "cd" if pair_seed else ""}
        yield {"op": "box_leaf"} | given | {"commitments": replay(made)["expected"]}
    rng = CountingRng(b"masking")
    roots, self_masks = ([rng.bytes(32).hex() for _ in range(3)] for _ in range(2))
    for index in range(3):
        given = {"session": SESSION, "index": index, "root": roots[index], "self_mask": self_masks[index]}
        yield {"op": "keys_of"} | given
    plain = (
        '{"clip_norm":"1/1","dimension":3,"flatten":{"type":"none","version":2},"max_contributors":4,"type":"encoding",'
        '"usable_bits":64,"value_bits":15,"version":2}'
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
