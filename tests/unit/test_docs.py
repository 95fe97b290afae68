"""Holds the tables of the documents to the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from secagg.crypto.labels import Label
from secagg.identity.roster_file import SignedRosterHead
from secagg.protocol.errors import RejectReason
from secagg.protocol.pairwise import boxes, client_states, coordinator_states
from secagg.services.uploads import MAX_CHUNK_BYTES
from secagg.transcript import entries, head, record, roster, statements
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
    for module in (entries, head, roster, statements)
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
