"""What transparency.json asks: well-formed inputs from fixed seeds, and each rule broken once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from secagg.crypto.notes import cosign, log_key, sign_checkpoint, witness_key
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript import merkle, tiles
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import NoteSignature
from secagg.transcript.proof import LogProof
from secagg.transcript.witness_request import AddCheckpoint

Operation = dict[str, Any]

SEEDS = {name: bytes([number] * 32) for number, name in enumerate(("log", "w1", "w2", "w3"), start=1)}
KEYS = {name: SigningKey(Secret(seed)) for name, seed in SEEDS.items()}
ORIGIN = "log.example/record"
ROOT = bytes(range(1, 33))
ROOT_TEXT = base64.b64encode(ROOT).decode()
CHECKPOINT = Checkpoint(ORIGIN, 70_000, ROOT)
TEXT = CHECKPOINT.to_text()
TIME_S = 1_679_315_147
LOG = log_key(ORIGIN, KEYS["log"].public_bytes)
WITNESSES = {name: witness_key(name, KEYS[name].public_bytes) for name in ("w1", "w2", "w3")}
SIGNED = sign_checkpoint(KEYS["log"], CHECKPOINT)
LINES = {name: cosign(KEYS[name], name, TEXT, TIME_S + place) for place, name in enumerate(WITNESSES)}
COSIGNED = SIGNED.with_signatures(LINES.values())
LINE = NoteSignature("w", b"\x01\x02\x03\x04", b"\x05").to_line()
TREE_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 21)


def operations() -> Iterator[Operation]:
    """Every operation without its outcome."""
    yield from notes()
    yield from checkpoints()
    yield from keys()
    yield from signatures()
    yield from opened()
    yield from unopened()
    yield from paths()
    yield from bundles()
    yield from inclusion()
    yield from consistency()
    yield from proofs()
    yield from requests()
    yield from policies()


def notes() -> Iterator[Operation]:
    cases = {
        "one signature": f"a\n\n{LINE}",
        "an empty text": f"\n\n{LINE}",
        "empty lines in the text": f"a\n\nb\n\n\n{LINE}",
        "a signature line in the text": f"a\n\n{LINE}\n{LINE}",
        "other lines than newlines end": f"a\u2028b\n\n{LINE}",
        "names beyond ASCII": f"é\n\n{LINE.replace('w', 'é')}",
        "64 signatures": "a\n\n" + "".join(LINE.replace("w", f"w{number}") for number in range(64)),
        "65 signatures": "a\n\n" + "".join(LINE.replace("w", f"w{number}") for number in range(65)),
        "nothing": "",
        "no signature": "a\n\n",
        "no empty line": f"a\n{LINE}",
        "no final newline": f"a\n\n{LINE}"[:-1],
        "a line twice": f"a\n\n{LINE}{LINE}",
        "a carriage return": f"a\r\n\n{LINE}",
        "a tab": f"a\tb\n\n{LINE}",
        "a delete character": f"a\x7f\n\n{LINE}",
        "a C1 control character": f"a\x9b\n\n{LINE}",
        "a hyphen for the dash": f"a\n\n{LINE.replace(chr(0x2014), '-')}",
        "two spaces": f"a\n\n{LINE.replace('w ', 'w  ')}",
        "no name": f"a\n\n{LINE.replace(' w ', '  ')}",
        "a name with a plus sign": f"a\n\n{LINE.replace('w', 'a+b')}",
        "a name with a no-break space": f"a\n\n{LINE.replace('w', 'a' + chr(0xA0) + 'b')}",
        "a name with a line separator": f"a\n\n{LINE.replace('w', 'a' + chr(0x2028) + 'b')}",
        "no base64": "a\n\n\u2014 w\n",
        "base64 with unused bits set": f"a\n\n{LINE.replace('U=', 'V=')}",
        "base64 without padding": f"a\n\n{LINE.replace('U=', 'U')}",
        "a key id and no signature": "a\n\n\u2014 w AQIDBA==\n",
        "text below the signatures": f"a\n\n{LINE}b\n",
    }
    for name, text in cases.items():
        yield {"op": "read_note", "name": name, "data": text.encode().hex()}
    for name, data in {"not UTF-8": b"\xff", "an overlong form": b"\xc1\x81", "a surrogate": b"\xed\xa0\x80"}.items():
        yield {"op": "read_note", "name": name, "data": (data + f"\n\n{LINE}".encode()).hex()}


def checkpoint_text(size: str = "70000", root: str = ROOT_TEXT, rest: str = "", origin: str = ORIGIN) -> str:
    return f"{origin}\n{size}\n{root}\n{rest}"


# Each of these can be signed and only the body breaks a rule: the "open" operations have them as well.
BODIES = {
    "size with a leading zero": checkpoint_text(size="070000"),
    "size of 2^63": checkpoint_text(size=str(2**63)),
    "size of 2^64": checkpoint_text(size=str(2**64)),
    "size with a sign": checkpoint_text(size="+70000"),
    "size with a space": checkpoint_text(size=" 70000"),
    "size with an underscore": checkpoint_text(size="70_000"),
    "size in other digits": checkpoint_text(size="\u0667"),
    "root with unused bits set": checkpoint_text(root=ROOT_TEXT[:-2] + "B="),
    "root in url-safe base64": checkpoint_text(root=base64.urlsafe_b64encode(b"\xfb" * 32).decode()),
    "root without padding": checkpoint_text(root=ROOT_TEXT[:-1]),
    "root of 31 bytes": checkpoint_text(root=base64.b64encode(bytes(31)).decode()),
    "root of 33 bytes": checkpoint_text(root=base64.b64encode(bytes(33)).decode()),
    "an extension line": checkpoint_text(rest="extension\n"),
    "an empty extension line": checkpoint_text(rest="\n"),
    "an origin with a space": checkpoint_text(origin="a b"),
    "an origin with a plus sign": checkpoint_text(origin="a+b"),
    "two lines": f"{ORIGIN}\n70000\n",
}


def checkpoints() -> Iterator[Operation]:
    cases = {
        "sound": TEXT,
        "the largest size": checkpoint_text(size=str(2**63 - 1)),
        "the empty tree": Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT).to_text(),
        **BODIES,
        "no final newline": TEXT[:-1],
        "no origin": checkpoint_text(origin=""),
    }
    for name, text in cases.items():
        yield {"op": "read_checkpoint", "name": name, "text": text}


def keys() -> Iterator[Operation]:
    text, (name, key_id, material) = LOG.to_text(), LOG.to_text().split("+", 2)
    cases = {
        "a log": text,
        "a witness": WITNESSES["w1"].to_text(),
        "the example of signed notes in Go": "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "the Go checksum database": "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "another name": f"other+{key_id}+{material}",
        "another type": f"{name}+{key_id}+B{material[1:]}",
        "a type that is not known": f"{name}+{key_id}+{base64.b64encode(bytes([2]) + bytes(32)).decode()}",
        "a key of 31 bytes": f"{name}+{key_id}+{base64.b64encode(bytes([1]) + bytes(31)).decode()}",
        "a key id in capitals": f"{name}+{key_id.upper()}+{material}",
        "two parts": f"{name}+{key_id}",
        "a final newline": text + "\n",
    }
    for case, given in cases.items():
        yield {"op": "read_key", "name": case, "text": given}


def signatures() -> Iterator[Operation]:
    yield {"op": "sign", "name": "a log", "seed": SEEDS["log"].hex(), "text": TEXT}
    for time_s in (0, TIME_S, 2**63 - 1, 2**63):
        given = {"name": f"time {time_s}", "text": TEXT, "timestamp_s": str(time_s)}
        yield {"op": "cosignature_message", **given}
        yield {"op": "cosign", **given, "seed": SEEDS["w1"].hex(), "witness": "w1"}
    refused = {"name": "not a checkpoint", "text": TEXT + "extension\n", "timestamp_s": str(TIME_S)}
    yield {"op": "cosignature_message", **refused}


def opening(name: str, data: bytes, *witnesses: str) -> Operation:
    known = [WITNESSES[each].to_text() for each in witnesses]
    return {"op": "open", "name": name, "data": data.hex(), "log": LOG.to_text(), "witnesses": known}


def log_line(text: str) -> str:
    return NoteSignature(ORIGIN, LOG.key_id, KEYS["log"].sign_note_text(text.encode())).to_line()


def unknown_lines(count: int) -> bytes:
    return b"".join(NoteSignature(ORIGIN, bytes([0, 0, 0, n]), bytes(64)).to_line().encode() for n in range(count))


def opened() -> Iterator[Operation]:
    yield opening("no witness", SIGNED.to_bytes())
    yield opening("three witnesses", COSIGNED.to_bytes(), *WITNESSES)
    yield opening("one of three is known", COSIGNED.to_bytes(), "w2")
    yield opening("17 lines with the name of the log and other key ids", SIGNED.to_bytes() + unknown_lines(17))
    alias = witness_key("alias", KEYS["w1"].public_bytes)
    copy = NoteSignature(alias.name, alias.key_id, LINES["w1"].signature)
    two_names = opening("two names of one key count once", COSIGNED.with_signatures([copy]).to_bytes(), *WITNESSES)
    yield {**two_names, "witnesses": [*two_names["witnesses"], alias.to_text()]}
    again = cosign(KEYS["w1"], "w1", TEXT, TIME_S + 60)
    yield opening("one witness twice, the latest time", COSIGNED.with_signatures([again]).to_bytes(), *WITNESSES)


def unopened() -> Iterator[Operation]:
    for name, text in BODIES.items():
        yield opening(name, f"{text}\n{log_line(text)}".encode())
    good, bad = log_line(TEXT), NoteSignature(ORIGIN, LOG.key_id, bytes(64)).to_line()
    lines = {
        "a good line then a bad one of one key": good + bad,
        "a bad line then a good one of one key": bad + good,
        "the same line twice": good + good,
        "no line of the log": LINES["w1"].to_line(),
        "the log's key under another name": good.replace(ORIGIN, "other"),
    }
    for name, block in lines.items():
        yield opening(name, f"{TEXT}\n{block}".encode(), "w1")
    yield opening("120 unknown lines", SIGNED.to_bytes() + unknown_lines(120))
    other = sign_checkpoint(KEYS["log"], Checkpoint("other.example", 70_000, ROOT))
    yield opening("another origin", other.to_bytes())
    cosignature = LINES["w1"].signature
    for name, signature in {
        "a cosignature with another time": (TIME_S + 1).to_bytes(8, "big") + cosignature[8:],
        "a time of 2^63": (2**63).to_bytes(8, "big") + cosignature[8:],
        "a cosignature without a time": cosignature[8:],
        "a cosignature over another checkpoint": cosign(
            KEYS["w1"], "w1", TEXT.replace("70000", "70001"), TIME_S
        ).signature,
        "a log's signature by a witness": bytes(8) + KEYS["w1"].sign_note_text(TEXT.encode()),
    }.items():
        line = NoteSignature("w1", WITNESSES["w1"].key_id, signature)
        yield opening(name, SIGNED.with_signatures([line]).to_bytes(), "w1")
        yield opening(f"{name}, not known", SIGNED.with_signatures([line]).to_bytes(), "w2")


def paths() -> Iterator[Operation]:
    for level, index, width in (
        (0, 0, 256),
        (0, 67, 5),
        (0, 999, 255),
        (1, 1000, 256),
        (63, 1_234_067, 1),
        (2, 2**63 - 1, 256),
    ):
        given = {"name": "sound", "index": str(index), "width": str(width)}
        yield {"op": "tile_path", "level": str(level), **given}
        yield {"op": "bundle_path", **given}
    for level, index, width in ((64, 0, 1), (-1, 0, 1), (0, 2**63, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)):
        yield {"op": "tile_path", "name": "out of range", "level": str(level), "index": str(index), "width": str(width)}
    for name, number in {
        "full": "x001/x234/067", "partial": "067.p/5", "two digits": "67", "a group of zeros in front": "x000/001",
        "no x": "001/000", "x at the end": "x001", "width 0": "000.p/0", "width 256": "000.p/256",
        "a leading zero": "000.p/05", "no width": "000.p/", "a final newline": "000\n", "a slash": "000/",
    }.items():  # fmt: skip
        yield {"op": "read_tile_path", "name": name, "path": f"tile/0/{number}"}
        yield {"op": "read_bundle_path", "name": name, "path": f"tile/entries/{number}"}
    for level in ("64", "00", "x", "-1", ""):
        yield {"op": "read_tile_path", "name": f"level {level!r}", "path": f"tile/{level}/000"}
    for size in (0, 1, 255, 256, 257, 65_535, 65_536, 70_000):
        yield {"op": "tiles_of", "name": f"{size} entries", "size": str(size)}


def bundles() -> Iterator[Operation]:
    sound = tiles.encode_bundle([b"a", b"", b"bcd"])
    for name, data in {
        "three entries": sound, "one empty entry": bytes(2), "256 entries": bytes(512), "257 entries": bytes(514),
        "nothing": b"", "cut in an entry": sound[:-1], "cut in a length": sound + b"\x00", "a long length": b"\xff\xff",
    }.items():  # fmt: skip
        yield {"op": "read_bundle", "name": name, "data": data.hex()}


def inclusion() -> Iterator[Operation]:
    for size in TREE_SIZES:
        hashes = [merkle.leaf_hash(str(number).encode()) for number in range(size)]
        tree = merkle.Tree(hashes)
        for index in sorted({0, size // 2, size - 1}):
            yield {"op": "prove_inclusion", "name": "sound", "size": str(size), "index": str(index)}
            path = [node.hex() for node in tree.inclusion_proof(index)]
            given = {"leaf": hashes[index].hex(), "index": str(index), "size": str(size), "path": path}
            verify = {"op": "verify_inclusion", "name": "sound", **given, "root": tree.root.hex()}
            yield verify
            yield {**verify, "name": "another root", "root": hashes[0].hex()[::-1]}
            yield {**verify, "name": "another index", "index": str((index + 1) % size if size > 1 else 1)}
            yield {**verify, "name": "too long", "path": [*path, hashes[0].hex()]}
            if path:
                yield {**verify, "name": "too short", "path": path[:-1]}
                yield {**verify, "name": "another element", "path": [*path[:-1], path[-1][::-1]]}


def consistency() -> Iterator[Operation]:
    hashes = [merkle.leaf_hash(str(number).encode()) for number in range(max(TREE_SIZES))]
    for size in TREE_SIZES:
        for old_size in sorted({0, 1, 2, size // 2, size - 1, size} & set(range(size + 1))):
            sizes = {"old_size": str(old_size), "size": str(size)}
            yield {"op": "prove_consistency", "name": "sound", **sizes}
            proof = [node.hex() for node in merkle.consistency_proof(hashes[:size], old_size)]
            roots = {
                "old_root": merkle.root_of_hashes(hashes[:old_size]).hex(),
                "root": merkle.root_of_hashes(hashes[:size]).hex(),
            }
            verify = {"op": "verify_consistency", "name": "sound", **sizes, **roots, "proof": proof}
            yield verify
            yield {**verify, "name": "too long", "proof": [*proof, hashes[0].hex()]}
            yield {**verify, "name": "an old size above the size", "old_size": str(size + 1)}
            if old_size:
                yield {**verify, "name": "another old root", "old_root": roots["old_root"][::-1]}
                yield {**verify, "name": "another root", "root": roots["root"][::-1]}
            if proof:
                yield {**verify, "name": "too short", "proof": proof[:-1]}
                yield {**verify, "name": "another element", "proof": [proof[0][::-1], *proof[1:]]}


def proofs() -> Iterator[Operation]:
    sound = LogProof(b"", 3, (ROOT, ROOT), SIGNED.to_bytes()).to_bytes()
    node = ROOT_TEXT.encode() + b"\n"
    for name, data in {
        "sound": sound,
        "extra data": LogProof(b"\x00\xff", 3, (ROOT,), SIGNED.to_bytes()).to_bytes(),
        "an empty path": LogProof(b"", 0, (), SIGNED.to_bytes()).to_bytes(),
        "another version": sound.replace(b"@v1", b"@v2"),
        "empty extra data": sound.replace(b"index", b"extra \nindex"),
        "extra data after the index": sound.replace(b"index 3\n", b"index 3\nextra AP8=\n"),
        "no index": sound.replace(b"index 3\n", b""),
        "an index with a leading zero": sound.replace(b"index 3", b"index 03"),
        "an index of 2^63": sound.replace(b"index 3", b"index 9223372036854775808"),
        "a hash with unused bits set": sound.replace(node, node[:-3] + b"B=\n", 1),
        "a hash of 31 bytes": sound.replace(node, base64.b64encode(bytes(31)) + b"\n", 1),
        "64 hashes": sound.replace(node * 2, node * 64),
        "no empty line": sound.replace(b"\n\n" + ORIGIN.encode(), b"\n" + ORIGIN.encode()),
        "two empty lines": sound.replace(b"\n\n" + ORIGIN.encode(), b"\n\n\n" + ORIGIN.encode()),
        "a checkpoint without its final newline": sound[:-1],
    }.items():
        yield {"op": "read_proof", "name": name, "data": data.hex()}


def requests() -> Iterator[Operation]:
    sound = AddCheckpoint(20, (ROOT, ROOT), SIGNED.to_bytes()).to_bytes()
    node = ROOT_TEXT.encode() + b"\n"
    for name, data in {
        "sound": sound,
        "from nothing": AddCheckpoint(0, (), COSIGNED.to_bytes()).to_bytes(),
        "63 hashes": sound.replace(node * 2, node * 63, 1),
        "64 hashes": sound.replace(node * 2, node * 64, 1),
        "a size with a leading zero": sound.replace(b"old 20", b"old 020"),
        "a size with a sign": sound.replace(b"old 20", b"old +20"),
        "no old size": sound.replace(b"old 20\n", b""),
        "a hash with unused bits set": sound.replace(node, node[:-3] + b"B=\n", 1),
        "a hash of 33 bytes": sound.replace(node, base64.b64encode(bytes(33)) + b"\n", 1),
        "no empty line": sound.replace(b"\n\n" + ORIGIN.encode(), b"\n" + ORIGIN.encode()),
        "no checkpoint": sound.split(b"\n\n")[0] + b"\n\n",
        "a checkpoint with an extension line": sound.replace(b"\n\n\xe2", b"\nextension\n\n\xe2"),
    }.items():
        yield {"op": "read_request", "name": name, "data": data.hex()}


def policies() -> Iterator[Operation]:
    lines = "".join(f"witness {name} {key.to_text()} https://{name}.example/\n" for name, key in WITNESSES.items())
    log, (w1, w2, _) = f"log {LOG.to_text()}\n", lines.splitlines(keepends=True)
    present = [[], ["w1"], ["w1", "w2"], ["w2", "w3"], ["w1", "w1"], ["w1", "w2", "w3"]]
    for name, text in {
        "two of three": f"# a comment\n\n{log}{lines}group g 2 w1 w2 w3\nquorum g\n",
        "all": f"{lines}group g all w1 w2 w3\nquorum g\n",
        "any": f"{lines}group\tg  any w1 w2 w3 \nquorum g\n",
        "two levels": f"{lines}group g any w1 w2\ngroup h all g w3\nquorum h\n",
        "one witness": f"{lines}quorum w2\n",
        "no witness": f"{lines}quorum none\n",
    }.items():
        yield {"op": "policy", "name": name, "text": text, "present": present}
    other = witness_key("other", KEYS["w1"].public_bytes).to_text()
    itself = witness_key("other", KEYS["log"].public_bytes).to_text()
    for name, text in {
        "no quorum": lines,
        "two quorums": f"{lines}quorum none\nquorum none\n",
        "a quorum that is not defined": f"{lines}quorum g\n",
        "a member that is defined later": f"{w1}group g any w1 w2\n{w2}quorum g\n",
        "a member of two groups": f"{lines}group g any w1\ngroup h any w1 w2\nquorum h\n",
        "a member twice": f"{lines}group g 2 w1 w1\nquorum g\n",
        "a threshold of 0": f"{lines}group g 0 w1 w2\nquorum g\n",
        "a threshold above the members": f"{lines}group g 3 w1 w2\nquorum g\n",
        "a threshold with a leading zero": f"{lines}group g 02 w1 w2\nquorum g\n",
        "a name twice": f"{w1}witness w1 {WITNESSES['w2'].to_text()}\nquorum none\n",
        "a witness named none": f"witness none {other}\nquorum none\n",
        "two witnesses with one key": f"{w1}witness other {other}\nquorum none\n",
        "a log that is its own witness": f"{log}witness other {itself}\nquorum none\n",
        "a witness with a log's key": f"witness other {LOG.to_text()}\nquorum none\n",
        "a log with a witness's key": f"log {other}\nquorum none\n",
        "a carriage return": "quorum none\r\n",
        "no final newline": "quorum none",
        "a line that is none": "quorums none\nquorum none\n",
    }.items():
        yield {"op": "policy", "name": name, "text": text, "present": []}
