"""Hypothesis strategies for notes, checkpoints, proofs and policies, and for bytes that are one step away from them."""

from __future__ import annotations

from hypothesis import strategies as st

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteSignature, SignatureType, VerifierKey
from secagg.transcript.policy import NO_QUORUM, GroupRule, LogPolicy, LogRule, WitnessRule
from secagg.transcript.proof import LogProof
from secagg.transcript.witness_request import AddCheckpoint

integers = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1), st.sampled_from((2**63 - 1, 2**32, 10**18)))
digests = st.binary(min_size=32, max_size=32)
paths = st.lists(digests, max_size=5).map(tuple)
names = st.one_of(
    st.sampled_from(("example.com/log", "w1", "é", "\u200b", "—")),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters="+"), min_size=1),
)
texts = st.one_of(
    st.sampled_from(("\n", "a\n", "a\n\n", "\n\n\n", "a\n\nb\n", "— a AAAAAAA=\n", "a\u2028b\n")),
    st.text(st.characters(exclude_categories=("Cc", "Cs"), include_characters="\n")).map(lambda text: text + "\n"),
)
signatures = st.builds(NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
signature_lists = st.lists(signatures, min_size=1, max_size=5, unique=True).map(tuple)
notes = st.builds(Note, texts, signature_lists)
checkpoints = st.builds(Checkpoint, names, integers, digests)
signed_checkpoints = st.builds(
    lambda checkpoint, lines: Note(checkpoint.to_text(), lines).to_bytes(), checkpoints, signature_lists
)
keys = st.builds(VerifierKey, names, st.sampled_from(SignatureType), digests)
log_proofs = st.builds(LogProof, st.binary(max_size=40), integers, paths, signed_checkpoints)
requests = st.builds(AddCheckpoint, integers, paths, signed_checkpoints)


@st.composite
def policies(draw):
    public_keys = draw(st.lists(digests, max_size=8, unique=True))
    split = draw(st.integers(0, len(public_keys)))
    urls = st.sampled_from(("", "https://example.com/prefix", "é"))
    labels = iter(
        draw(st.lists(st.from_regex("[!-~é\u00a0]{1,6}", fullmatch=True), min_size=16, max_size=16, unique=True))
    )
    fresh = (label for label in labels if label != NO_QUORUM)
    logs = [LogRule(VerifierKey(draw(names), SignatureType.ED25519, key), draw(urls)) for key in public_keys[:split]]
    witnesses = [
        WitnessRule(next(fresh), VerifierKey(draw(names), SignatureType.COSIGNATURE_V1, key), draw(urls))
        for key in public_keys[split:]
    ]
    free, groups = [witness.name for witness in witnesses], []
    while free and len(groups) < 3 and draw(st.booleans()):
        members = tuple(draw(st.lists(st.sampled_from(free), min_size=1, max_size=4, unique=True)))
        groups.append(GroupRule(next(fresh), draw(st.integers(1, len(members))), members))
        free = [name for name in (*free, groups[-1].name) if name not in members]
    named = [rule.name for rule in (*witnesses, *groups)]
    return LogPolicy(tuple(logs), tuple(witnesses), tuple(groups), draw(st.sampled_from([NO_QUORUM, *named])))


def near_misses(encoded: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that were valid before one byte was replaced, inserted, removed or a line was moved."""
    bytes_that_matter = st.sampled_from(b"\n\n\n\r\t +=-_/x019AZaz.\x00\x7f\xe2\xa0")

    @st.composite
    def damaged(draw):
        data = draw(encoded)
        at = draw(st.integers(0, len(data) - 1))
        other = bytes([draw(st.one_of(bytes_that_matter, st.integers(0, 255)))])
        match draw(st.integers(0, 4)):
            case 0:
                return data[:at] + other + data[at + 1 :]
            case 1:
                return data[:at] + other + data[at:]
            case 2:
                return data[:at] + data[at + 1 :]
            case 3:
                lines = data.split(b"\n")
                lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
                return b"\n".join(lines)
            case _:
                lines = data.split(b"\n")
                del lines[draw(st.integers(0, len(lines) - 1))]
                return b"\n".join(lines)

    return st.one_of(encoded, damaged(), st.binary(max_size=60))
