"""Writes the examples of ``docs/record.md`` anew: ``python -m tests.vectors.generate_record_example``.

A roster, a session that was aborted, and one of the same parameters that three clients finish; all keys follow from
names (``tests.support.forge``). Blocks of examples are replaced as a whole. A number in the text that has changed is
replaced where it stands. The policies are not written anew: the keys in them do not change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.arith import linear_hash
from secagg.arith.keystream import Keystream
from secagg.crypto.notes import cosign, sign_checkpoint
from secagg.derive import boxes
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import SessionAbort, SignedRoster
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.roster import Roster, RosterMember
from tests.support.forge import key_of
from tests.support.forge_closing import SessionForge
from tests.support.forge_session import Plan, Surroundings, lines, sha256

PAGE = Path(__file__).parents[2] / "docs" / "record.md"
ORIGIN = "log.example/secagg"
SHAPES = {"base_model.model.layer.0.lora_A.weight": (2, 3), "base_model.model.layer.0.lora_B.weight": (2, 2)}
PLAN = Plan(
    members=(0, 1, 2),
    encoding=Encoding(10, 16, 8, 64, Fraction(1), NoFlattening()),
    shapes=SHAPES,
    opened_at_s=1_800_000_000,
)
RECEIPT_INDEX = 1


@dataclass(frozen=True)
class Example:
    """The two sessions as played, and the log of both."""

    first: SessionForge
    second: SessionForge
    entries: list[bytes]


def play() -> Example:
    """Both sessions, one after the other."""
    registrar = key_of("registrar")
    identities = sorted((key_of(f"client {number}") for number in range(3)), key=lambda key: key.public_bytes)
    roster = Roster(tuple(RosterMember(key.public_bytes, "") for key in identities))
    around = Surroundings(ORIGIN, key_of("coordinator"), registrar, tuple(identities), roster)
    first = SessionForge(around, "first", PLAN, {})
    second = SessionForge(around, "second", replace(PLAN, opened_at_s=PLAN.opened_at_s + 120), {})
    head = roster.head(registrar.public_bytes)
    logged = [
        SignedRoster(head, registrar.sign_statement(head.to_bytes())),
        first.open(),
        SessionAbort(first.session_id, "BELOW_MINIMUM", 0, merkle.root([])),
        *(step() for step in (second.open, second.advertise, second.share, second.close, second.result)),
    ]
    return Example(first, second, [entry.to_bytes() for entry in logged])


def words(values: np.ndarray) -> str:
    """Words of 64 bits as hex."""
    return " ".join(f"{int(value):016x}" for value in values)


def note(entries: list[bytes], cosigned_at_s: int) -> str:
    """The checkpoint over these entries, with three cosignatures a second apart."""
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    signed = sign_checkpoint(key_of("coordinator"), Checkpoint(ORIGIN, len(leaves), merkle.root_of_hashes(leaves)))
    cosignatures = (cosign(key_of(f"witness {n}"), f"w{n}.example", signed.text, cosigned_at_s + n) for n in (1, 2, 3))
    return signed.with_signatures(list(cosignatures)).to_bytes().decode()


def blocks(example: Example) -> dict[str, str]:
    """The text of each block, by its name."""
    second, logged = example.second, example.entries
    leaves = [merkle.leaf_hash(entry) for entry in logged]
    proof = ContributionProof(
        second.closing.to_bytes().decode(),
        second.contributed[RECEIPT_INDEX],
        RECEIPT_INDEX,
        merkle.inclusion_proof([merkle.leaf_hash(one.to_bytes()) for one in second.contributed], RECEIPT_INDEX),
    )
    path = merkle.inclusion_proof(leaves[:7], 6)
    receipt = LogProof(proof.to_bytes(), 6, path, note(logged[:7], 1_800_000_130).encode())
    keys = [boxes.self_mask_keystream(seed, second.digest).expose() for seed in second.self_masks]
    model = second.files["aggregate/adapter_model.safetensors"]
    return {
        "entries": b"".join(entry + b"\n" for entry in logged[:3]).decode(),
        "leaves": "".join(leaf.hex() + "\n" for leaf in leaves[:3]),
        "checkpoint": note(logged[:3], 1_800_000_100),
        "roster.jsonl": lines(second.around.roster.members).decode(),
        "layout.json": second.files["layout.json"].decode() + "\n",
        "adapter.json": second.files["adapter.json"].decode() + "\n",
        "uploads": "".join(f"{words(y)}   {sha256(y.tobytes()).hex()}\n" for y in second.uploads.values()),
        "hashes": "".join(f"{words(h[:3])}   {sha256(h.tobytes()).hex()}\n" for h in second.hashes.values()),
        "limb-sum": f"{' '.join(map(str, second.limb_sum))}\n{second.closing.limb_sum.hex()}\n",
        "masked-sum": words(sum(second.uploads.values())) + "\n",
        "self-masks": "".join(
            f"{seed.expose().hex()} {key.hex()}\n" for seed, key in zip(second.self_masks, keys, strict=True)
        ),
        "keystreams": "".join(words(_stream(key)) + "\n" for key in keys),
        "lanes": words(second.lanes_sum) + "\n",
        "integer-sum": " ".join(map(str, second.integer_sum)) + "\n",
        "mean": second.mean.astype("<f4").tobytes().hex() + "\n",
        "header": model[8 : 8 + int.from_bytes(model[:8], "little")].rstrip().decode() + "\n",
        "adapter_config.json": second.files["aggregate/adapter_config.json"].decode(),
        "receipt": receipt.to_bytes().decode(),
        "contribution-proof": proof.to_bytes().decode() + "\n",
    }


def numbers(example: Example, block: dict[str, str]) -> dict[str, str]:
    """What stands in the text, by a pattern whose one group it is."""
    second, leaves = example.second, [merkle.leaf_hash(entry) for entry in example.entries]
    limb_sum = linear_hash.LimbSum.from_entries(second.limb_sum, 3)
    hashed = linear_hash.hash_limb_sum(limb_sum).astype("<u8")
    total = second.integer_sum
    lengths = [f"{len(entry):04x}" for entry in example.entries[:3]]
    return {
        r"behind the lengths `(....)`": lengths[0],
        r"behind the lengths `....`, `(....)`": lengths[1],
        r"behind the lengths `....`, `....` and `(....)`": lengths[2],
        r"The node over the first two is `(\w{64})`": merkle.node_hash(leaves[0], leaves[1]).hex(),
        r"and the third `(\w{64})`": merkle.root_of_hashes(leaves[:3]).hex(),
        r"the open entry, of leaf hash `(\w{64})`": leaves[3].hex(),
        r"The session digest is\s+`(\w{64})`": second.digest.hex(),
        r"That is `(\w{16})`": f"{int(hashed[0]):016x}",
        r"16384 bytes on either side is `(\w{64})`": hashlib.sha256(hashed.tobytes()).hexdigest(),
        r"then (\d+) and \d+; less": str(total[0] + 3 * 32768),
        r"then \d+ and (\d+); less": str(total[1] + 3 * 32768),
        r"these are\s+(-?\d+) and": str(total[0]),
        r"these are\s+-?\d+ and (-?\d+)\.": str(total[1]),
    }


def render(page: str) -> str:
    """The page with its examples as they are today."""
    example = play()
    block = blocks(example)
    for name, text in block.items():
        page, count = re.subn(
            rf"(?ms)(^```example-{re.escape(name)}\n).*?(^```$)", lambda m, text=text: m[1] + text + m[2], page
        )
        if count != 1:
            raise ValueError(f"{count} blocks of the name {name}")
    for pattern, value in numbers(example, block).items():
        found = re.search(pattern, page)
        if found is None:
            raise ValueError(f"nothing matches {pattern}")
        page = page[: found.start(1)] + value + page[found.end(1) :]
    return page


def _stream(key: bytes) -> np.ndarray:
    stream = np.empty(32, dtype=np.uint8)
    Keystream(key).read_into(stream)
    return stream.view("<u8")


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
