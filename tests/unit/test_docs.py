"""Holds the tables of the documents to the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from secagg.arith import prime_field, ring_mask, seeded_shamir
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.derive import boxes, member_boxes
from secagg.derive.graph import MAX_COHORT
from secagg.he import bfv, residues, seal
from secagg.he import parameters as encryption
from secagg.identity import cards
from secagg.identity.roster_file import SignedRosterHead
from secagg.protocol import log
from secagg.protocol.errors import RejectReason
from secagg.protocol.one_shot import admission, authority_states, member, member_states
from secagg.protocol.one_shot import client_states as one_shot_client_states
from secagg.protocol.one_shot import coordinator_states as one_shot_coordinator_states
from secagg.protocol.pairwise import client_states, coordinator_states
from secagg.protocol.phases import Phase
from secagg.services.committee import CommitteeLimits
from secagg.services.uploads import MAX_CHUNK_BYTES
from secagg.transcript import (
    canonical,
    encoding,
    entries,
    merge,
    noise,
    openers,
    published,
    receipt,
    record,
    roster,
    statements,
)
from secagg.transcript.encoding import MAX_CONTRIBUTORS
from secagg.v1 import aggregation_pb2, opening_pb2
from secagg.wire.status import reject_code

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ONE_SHOT = (ROOT / "docs" / "protocol-one-shot.md").read_text(encoding="utf-8")
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


def table(header: str, text: str = PROTOCOL) -> list[list[str]]:
    """The rows of the one table with this header line."""
    assert text.count(f"\n{header}\n") == 1, header
    lines = text.split(f"\n{header}\n")[1].split("\n")[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_table_of_reasons_is_the_enum_with_its_codes():
    documented = table("| reason | gRPC code | meaning |")
    assert documented == [[f"`{reason.name}`", reject_code(reason).name, reason.value] for reason in RejectReason]


def test_the_table_of_labels_is_the_enum():
    documented = table("| name | label | used in | fields | what for |")
    assert [row[:2] for row in documented] == [[f"`{label.name}`", f"`{label.value}`"] for label in Label]
    assert all(all(row) for row in documented)


ABSTRACT = {record.Record, merge.UpdateMerge, noise.DistributedNoise}
RECORDS = {
    kind
    for module in (encoding, entries, merge, noise, openers, published, receipt, roster, statements, cards)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, record.Record) and kind not in ABSTRACT
}
_ROW = re.compile(r"^\| `([a-z0-9-]+)`(?:, `([a-z-]+)`)? \| (.+) \|$", re.MULTILINE)


def record_rows() -> list[tuple[str, str, str]]:
    """Type, form and members of every row of the tables of records; the form is empty where there is one only."""
    found = []
    for text in (PROTOCOL, ONE_SHOT):
        for section in text.split("\n| type | members |\n")[1:]:
            found += _ROW.findall(section.split("\n\n")[0])
    return found


def documented_records() -> dict[str, str]:
    """The members of each type with one form in docs/protocol.md."""
    return {name: text for name, form, text in reversed(record_rows()) if not form}


def documented_members(kind: type[record.Record]) -> dict[str, str]:
    """What is said of each member of a record: its rows, where a type has several forms those that are about it."""
    rows = [(form, text) for name, form, text in record_rows() if name == kind.TYPE]
    if issubclass(kind, entries.SessionOpen):
        forms = {entries.PairwiseOpen: "pairwise", entries.OneShotOpen: "one-shot"}
        rows = [(form, text) for form, text in rows if form in {"", forms.get(kind, "")}]
    elif kind.TYPE == "member":
        # A line of a roster, and a member of a committee.
        rows = [(form, text) for form, text in rows if ("stratum" in text) is (kind is roster.RosterMember)]
    else:
        assert len({text for _, text in rows}) == 1, kind
    said: dict[str, str] = {}
    for _, text in rows:
        for part in text.removeprefix("also: ").split("; "):
            together = re.fullmatch(r"((?:\w+, )+\w+): each (.+)", part)
            names, what = (together[1].split(", "), together[2]) if together else ([part.split(" ")[0]], "")
            said |= {name: what or part.partition(" ")[2] for name in names}
    return said


@pytest.mark.parametrize("kind", sorted(RECORDS, key=lambda kind: (kind.TYPE, kind.__name__)), ids=lambda k: k.__name__)
def test_every_record_is_documented_with_its_members_and_no_others(kind):
    members = {field.name for field in dataclasses.fields(kind)}
    if members:
        assert documented_members(kind).keys() == members
    else:
        assert documented_records()[kind.TYPE].startswith("no members")


def test_no_record_is_documented_that_does_not_exist():
    assert {name for name, _, _ in record_rows()} == {kind.TYPE for kind in RECORDS}
    assert SignedRosterHead not in RECORDS  # a file of this program, not of the protocol


def number(text: str) -> int:
    """A limit as it is written: 14, 2^20, 2^20-1."""
    base, _, less = text.partition("-")
    value = 2 ** int(base.removeprefix("2^")) if base.startswith("2^") else int(base)
    return value - int(less or 0)


def limits() -> list[tuple[str, record.Codec, object, object]]:
    """Where, the codec, the largest value that a document allows, and one beyond it."""
    found: list[tuple[str, record.Codec, object, object]] = []
    for kind in RECORDS:
        said = documented_members(kind) if dataclasses.fields(kind) else {}
        for field in dataclasses.fields(kind):
            text, codec, where = said[field.name], field.metadata["codec"], f"{kind.__name__}.{field.name}"
            if match := re.match(r"([0-9^-]+)\.\.([0-9^-]+)$", text):
                least, most = map(number, match.groups())
                found += [(where, codec, most, most + 1), (where, codec, least, least - 1)]
            elif match := re.match(r"int from (\d+)$", text):
                found.append((where, codec, int(match[1]), int(match[1]) - 1))
            elif match := re.match(r"hex(\d+)$", text):
                found.append((where, codec, bytes(int(match[1])), bytes(int(match[1]) + 1)))
            elif match := re.match(r"text to (\d+)", text):
                found.append((where, codec, "x" * int(match[1]), "x" * (int(match[1]) + 1)))
            elif match := re.match(r"list of hex(\d+), at most ([0-9^]+)", text):
                item, most = bytes(int(match[1])), number(match[2])
                found += [(where, codec, (item,) * most, (item,) * (most + 1)), (where, codec, (), (item + b"x",))]
            elif match := re.match(r"list of ([0-9^-]+)\.\.([0-9^-]+), at most ([0-9^]+)", text):
                least, last, most = map(number, match.groups())
                assert least == 0
                found += [(where, codec, (last,) * most, (last,) * (most + 1)), (where, codec, (last,), (last + 1,))]
            else:
                assert re.match(r"frac$|record `|list of (record )?`|one of|`", text), (where, text)
    return found


def test_every_limit_of_a_record_is_as_documented():
    found = limits()
    assert len(found) > 150
    for where, codec, within, beyond in found:
        codec.check(within, where)
        try:
            codec.check(beyond, where)
        except record.RecordError:
            continue
        pytest.fail(f"{where} takes {beyond!r:.80}")


def test_lengths_of_boxes_and_chunks_are_as_documented():
    assert f"| {boxes.SHARE_BOX_BYTES} |" in PROTOCOL
    assert f"| {boxes.PAIR_BOX_BYTES} |" in PROTOCOL
    assert MAX_CHUNK_BYTES == 1 << 20
    assert "At most 1 MiB (`CHUNK_TOO_LARGE`)" in PROTOCOL


def test_limits_are_as_documented():
    assert f"at most {canonical.MAX_DEPTH + 1} arrays and objects inside one another" in PROTOCOL
    assert f"n is at least 3\nand at most {MAX_COHORT}." in PROTOCOL
    assert documented_records()["contribution"].count(f"at most 2^{statements.MAX_NEIGHBOURS.bit_length() - 1},") == 1
    assert documented_records()["unmask"].count(f"at most 2^{statements.MAX_NEIGHBOURS.bit_length() - 1},") == 1
    assert 1 << statements.MAX_NEIGHBOURS.bit_length() - 1 == statements.MAX_NEIGHBOURS
    for name, text in (("base_model", entries.SessionOpen), ("reason", entries.SessionAbort)):
        (most,) = re.findall(rf"\b{name} text to (\d+)", documented_records()[text.TYPE])
        with pytest.raises(record.RecordError):
            text_codec_of(text, name).check("x" * (int(most) + 1), name)
        text_codec_of(text, name).check("x" * int(most), name)


def text_codec_of(kind: type[record.Record], name: str) -> record.Codec:
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    return field.metadata["codec"]


def section(number: int, text: str = ONE_SHOT) -> str:
    """One section of a document, by its number, on one line."""
    return " ".join(text.split(f"\n## {number}. ")[1].split("\n## ", maxsplit=1)[0].split())


def test_lengths_of_one_shot_boxes_and_ciphertexts_are_as_documented():
    committee = example_committee()
    seed, share = (member_boxes.box_bytes(committee, committee.needed - back) for back in (2, 1))
    assert f"| places 0 to r - 2 | seed (32) | {seed} |" in ONE_SHOT
    assert f"| places r - 1 to m - 1 | share ({seeded_shamir.SHARE_BYTES}) | {share} |" in ONE_SHOT
    lengths = re.findall(r"likewise: (\d+) \||little-endian each: (\d+) \|", section(4))
    assert [int(a or b) for a, b in lengths] == [residues.CONTEXT_BYTES, residues.CIPHERTEXT_BYTES]
    zeros = np.zeros((2, encryption.DEGREE), np.uint64)
    for written in (residues.encode_context(zeros), residues.encode_ciphertext(zeros)):
        assert f"`{written[:15].decode()}\\n` (16)" in section(4)
    assert admission.MAX_CIPHERTEXT_BYTES == 2**18 > residues.CIPHERTEXT_BYTES
    assert "1 to 2^18 bytes of ciphertext (`WRONG_CIPHERTEXT`)" in ONE_SHOT


def example_committee() -> openers.Committee:
    """Five members, of whom four open."""
    members = tuple(openers.CommitteeMember(str(i), bytes([i]) * 32, bytes([i]) * 1216, bytes(64)) for i in range(5))
    return openers.Committee(members, 4, 1)


def test_numbers_of_the_encryption_are_as_documented():
    assert encryption.MODULUS == 2**60 - 2**14 + 1
    assert "q = 2^60 - 2^14 + 1 (a prime), plain modulus t = 1032193" in section(4)
    assert f"-{encryption.MAX_MAGNITUDE}..{encryption.MAX_MAGNITUDE}" in section(4)
    assert f"sums of up to {encryption.MAX_CONTRIBUTORS} ciphertexts" in section(4)
    assert "258048 with a key authority" in section(1)
    for name, modulus in (("psi", encryption.MODULUS), ("zeta", encryption.PLAIN_MODULUS)):
        (root,) = map(int, re.findall(rf"\b{name} = (\d+) the least primitive 8192nd root of unity", section(4)))
        assert pow(root, 4096, modulus) == modulus - 1
        # The primitive roots are the odd powers of one of them.
        odd, square, least = root, root * root % modulus, root
        for _ in range(4095):
            odd = odd * square % modulus
            least = min(least, odd)
        assert least == root


def test_the_documented_order_of_slots_is_that_of_the_encryption():
    zeta, modulus = 194, encryption.PLAIN_MODULUS
    values = np.arange(4096, dtype=np.int64) % 7 - 3
    api = seal.load_api()
    plaintext = api.Plaintext()
    api.BatchEncoder(seal.plain_context()).encode(values.tolist(), plaintext)
    terms = (term.partition("x^") for term in plaintext.to_string().split(" + "))
    coefficients = {int(power or 0): int(coefficient, 16) for coefficient, _, power in terms}
    for i in (0, 1, 2, 1000, 2047):
        for sign, slot in ((1, i), (-1, 2048 + i)):
            exponent = sign * pow(3, i, 8192) % 8192
            powers = (c * pow(zeta, exponent * k % 8192, modulus) for k, c in coefficients.items())
            assert sum(powers) % modulus == values[slot] % modulus


def test_the_documented_order_of_residues_is_that_of_the_encryption():
    psi, modulus = 116777451583545, encryption.MODULUS
    key = bfv.DecryptionKey(Secret(bytes(range(128))))
    secret = key._secret_key.data()
    places = [secret[i] for i in range(4096)]
    b, a = residues.decode_context(key.public_context())
    error = [(int(of_b) + int(of_a) * s) % modulus for of_b, of_a, s in zip(b, a, places, strict=True)]
    reversed_bits = [int(f"{i:012b}"[::-1], 2) for i in range(4096)]
    for values, bound in ((places, 1), (error, 21)):
        for k in (0, 1, 77):
            terms = (
                v * pow(psi, -(2 * rev + 1) * k % 8192, modulus) for v, rev in zip(values, reversed_bits, strict=True)
            )
            coefficient = sum(terms) * pow(4096, -1, modulus) % modulus
            assert min(coefficient, modulus - coefficient) <= bound


def test_limits_of_one_shot_sessions_are_as_documented():
    assert MAX_CONTRIBUTORS == seeded_shamir.MAX_CONTRIBUTORS == 2**28
    assert example_committee().max_contributors == 2**28
    assert "at most 2^28 with a committee" in section(1)
    assert prime_field.PRIME == 2**31 - 1
    assert (ring_mask.SECRET_ETA, ring_mask.ERROR_ETA, ring_mask.RING_DEGREE) == (2, 21, 4096)
    assert "ones among its four lowest bits, minus 2" in section(2)
    assert "ones among its 42 lowest bits, minus 21" in section(2)
    assert f"not opened later than {member.CLOCK_TOLERANCE_S} seconds from now" in section(9)
    assert f"later than {2 * member.CLOCK_TOLERANCE_S} seconds after it was restored" in section(9)
    limits = CommitteeLimits()
    assert limits.max_openings_of_session == 2
    assert f"{limits.max_openings} in all" in section(13)
    assert f"waits {limits.wait_s:.0f} seconds at most" in section(13)
    assert f"silent for {limits.message_s:.0f} seconds, one that does not end in {limits.stream_s:.0f}," in section(13)


def test_phases_of_one_shot_sessions_are_as_documented():
    rows = table("| phase | sessions | what happens | ends when | deadline |", ONE_SHOT)
    deadlines = [field.name for field in dataclasses.fields(entries.OneShotDeadlines)]
    assert [re.findall(r"`(\w+_s)`", row[4])[0] for row in rows] == deadlines
    told = {one_shot_coordinator_states.phase_of(state).name for state in one_shot_states()}
    assert {row[0] for row in rows} == told - {Phase.FINISHED.name, Phase.ABORTED.name}


def one_shot_states() -> list[one_shot_coordinator_states.OneShotState]:
    """One of each lasting state of a coordinator."""
    states = one_shot_coordinator_states
    opening = states.Opening(0, (), (), b"", 0, 0, 0)
    finished = states.Finished((), b"", b"", b"", b"", b"", 0)
    return [
        states.Committing(0, 0),
        states.Collecting(0, 0, 0),
        states.Settling(0, 0, 0),
        states.Folding((), ()),
        opening,
        states.Recovering(opening, 0),
        finished,
        states.Aborted("", 0),
    ]


@pytest.mark.parametrize(
    ("name", "kinds"), [("pairwise", log._PAIRWISE), ("committee", log._COMMITTEE), ("key authority", log._AUTHORITY)]
)
def test_the_orders_of_entries_are_as_documented(name, kinds):
    (line,) = re.findall(rf"^   - (?:one-shot with a )?{name}: (.+)[;.]$", PROTOCOL, re.MULTILINE)
    assert re.findall(r"`([a-z-]+)`", line) == [kind.TYPE for kind in kinds]


def test_every_call_is_named_in_the_documents():
    for file in (aggregation_pb2, opening_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert re.search(rf"`(?:{service.name}\.)?{method.name}\b", PROTOCOL + ONE_SHOT), method.full_name


def test_every_reason_of_one_shot_sessions_is_said_where_it_arises():
    reasons = list(RejectReason)
    first, last = reasons.index(RejectReason.WRONG_PROTOCOL), reasons.index(RejectReason.NOT_SERVED)
    assert last - first == 9
    for reason in reasons[first : last + 1]:
        assert f"`{reason.name}`" in ONE_SHOT


def test_lengths_of_commitments_are_as_documented():
    assert (boxes.commitments_bytes(1, 0), boxes.commitments_bytes(0, 1)) == (64, 96)
    assert "`commitments` (64 or 96 bytes)" in PROTOCOL


def test_every_file_of_vectors_is_documented():
    section = PROTOCOL.split("## 17. Vectors")[1]
    assert set(re.findall(r"`(\w+\.json)`", section)) == {path.name for path in (ROOT / "tests/vectors").glob("*.json")}


def test_every_reason_and_record_that_the_text_names_exists():
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+[A-Z])`", PROTOCOL + ONE_SHOT))
    known = {*RejectReason.__members__, *Label.__members__}
    assert named - known == set()


def test_every_state_of_the_machines_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for union in (
        client_states.ClientState,
        coordinator_states.CoordinatorState,
        one_shot_client_states.OneShotClientState,
        one_shot_coordinator_states.OneShotState,
        member_states.MemberState,
        authority_states.AuthorityState,
    ):
        for state in union.__args__:
            assert re.search(rf"\b{state.__name__}\b", text), state


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_files_and_tests_that_a_document_names_exist(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), link
    for name in re.findall(r"`((?:secagg|tests|protos|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name in {label.value for label in Label}, name
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+|Test[A-Z]\w+)`", text):
        assert re.search(rf"(def|class) {name}\b", sources), name


def test_every_section_that_a_document_links_to_exists():
    for path in (ROOT / "README.md", *DOCUMENTS):
        text = path.read_text(encoding="utf-8")
        for link, anchor in re.findall(r"\]\(([^)#:]*)#([\w-]+)\)", text):
            target = (path.parent / link).read_text(encoding="utf-8") if link else text
            titles = re.findall(r"^#+ (.+)$", target, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, (
                path,
                anchor,
            )


ROOMS = "arith|cli|crypto|derive|he|identity|lora|protocol|runtime|services|store|transcript|wire"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_a_document_names_exist(path):
    text = path.read_text(encoding="utf-8")
    files = {file.name for room in ("secagg", "verifier", "tests") for file in (ROOT / room).rglob("*.py")}
    for name in re.findall(rf"`((?:{ROOMS})/[\w./]*)`", text):
        assert (ROOT / "secagg" / name).exists(), name
    for name in re.findall(r"`(\w+\.py)`", text):
        assert name in files or (ROOT / "secagg" / name).exists(), name


def test_whatever_enforces_a_property_of_the_threat_model_exists():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "secagg").rglob("*.py"))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 4]
    assert len(rows) > 30
    for row in rows:
        for name in re.findall(r"`(?:\w+\.)?(_?[A-Za-z]\w+)(?<!\.py)`", row[3]):
            assert re.search(rf"\b(def|class) {name}\b|^ *{name}\b.* =", sources, re.MULTILINE), name
