"""Holds the tables of the documents to the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from secagg.crypto.labels import Label
from secagg.derive import boxes
from secagg.derive.graph import MAX_COHORT
from secagg.identity.roster_file import SignedRosterHead
from secagg.protocol.errors import RejectReason
from secagg.protocol.pairwise import client_states, coordinator_states
from secagg.services.uploads import MAX_CHUNK_BYTES
from secagg.transcript import canonical, entries, published, receipt, record, roster, statements
from secagg.wire.status import reject_code

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


def table(header: str) -> list[list[str]]:
    """The rows of the one table with this header line."""
    assert PROTOCOL.count(f"\n{header}\n") == 1, header
    lines = PROTOCOL.split(f"\n{header}\n")[1].split("\n")[1:]
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


RECORDS = [
    kind
    for module in (entries, published, receipt, roster, statements)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, record.Record) and kind is not record.Record
]


def documented_records() -> dict[str, str]:
    section = PROTOCOL.split("## 4. Records")[1].split("### Signatures")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


@pytest.mark.parametrize("kind", sorted({kind.TYPE for kind in RECORDS}))
def test_every_record_is_documented_with_its_members(kind):
    (members,) = {tuple(field.name for field in dataclasses.fields(each)) for each in RECORDS if kind == each.TYPE}
    text = documented_records()[kind]
    first_words = [re.split(r"[ :]", part.strip())[0] for part in re.split(r"[;,] ", text)]
    if not members:
        assert "no members" in text
    for name in members:
        assert name in first_words, f"{kind}.{name}"


def test_no_record_is_documented_that_does_not_exist():
    assert documented_records().keys() == {kind.TYPE for kind in RECORDS}
    assert SignedRosterHead not in RECORDS  # a file of this program, not of the protocol


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


def test_lengths_of_commitments_are_as_documented():
    assert (boxes.commitments_bytes(1, 0), boxes.commitments_bytes(0, 1)) == (64, 96)
    assert "`commitments` (64 or 96 bytes)" in PROTOCOL


def test_every_file_of_vectors_is_documented():
    section = PROTOCOL.split("## 17. Vectors")[1]
    assert set(re.findall(r"`(\w+\.json)`", section)) == {path.name for path in (ROOT / "tests/vectors").glob("*.json")}


def test_every_reason_and_record_that_the_text_names_exists():
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+[A-Z])`", PROTOCOL))
    known = {*RejectReason.__members__, *Label.__members__}
    assert named - known == set()


def test_every_state_of_the_machines_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for union in (client_states.ClientState, coordinator_states.CoordinatorState):
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
