"""Holds docs/record.md to the code: its tables, its list of checks, and every byte of its examples."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dp import ledger_events
from dp.alias import noise_table
from dp.ledger_book import composed
from dp.mechanisms import DistributedSkellam
from dp.rdp import MAX_CLIENTS
from dp.sensitivity import Sensitivity, rounded_squared_norm
from dp.weights import draw_distance
from secagg import second_session as second
from secagg.arith import linear_hash
from secagg.arith.fields import FieldLayout
from secagg.arith.keystream import Keystream
from secagg.crypto.notes import open_checkpoint
from secagg.crypto.secret import Secret
from secagg.crypto.signing import verify_statement
from secagg.derive import boxes
from secagg.derive.graph import MAX_COHORT, MIN_COHORT
from secagg.lora import fixed, linearity, matrix_sizes, merge_report, published_check, reconstruction, signs
from secagg.lora.config import CONFIG_FILE
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.layout import Layout
from secagg.lora.manifest import MergedModule
from secagg.lora.pieces import pieces_of, scale_of, scales_for
from secagg.lora.reader import TENSOR_FILE
from secagg.lora.template import AdapterTemplate
from secagg.runtime import one_shot_host, pairwise_publication, publication
from secagg.transcript import (
    canonical,
    encoding,
    entries,
    merge,
    merkle,
    noise,
    note,
    openers,
    proof,
    published,
    receipt,
    roster,
    statements,
    tiles,
)
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.policy import LogPolicy
from secagg.transcript.record import VERSION, Record, RecordError
from tests.vectors import generate_record_example
from verifier import cli, entry_order, json_report, log_view, policy, privacy_spent, session_lists, session_values
from verifier.audit import Audit
from verifier.catalogue import ALL_CHECKS, FAMILIES, LOG_CHECKS
from verifier.checks import ANY_MODE, AUTHORITY, COMMITTEE, MAX_SHOWN, ONE_SHOT, PAIRWISE, Level, Mode, Status
from verifier.families import ciphertexts, log, merging, one_shot_openings, one_shot_session, openings, results, sums
from verifier.json_report import to_json
from verifier.noise_floor import RARITY_BITS, noise_floor
from verifier.policy import AuditPolicyError, load_policy
from verifier.privacy_spent import epsilon_at
from verifier.record_files import RecordFiles
from verifier.report import SCHEMA, NoiseSummary, SessionEnd, Verdict
from verifier.run import run_audit
from verifier.statement import LEVEL_NAMES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())
NOW_S = 1_800_000_160
RECEIPT_INDEX = 1
ONE = Fraction(1)
MODULES = (entries, encoding, merge, noise, openers, roster, statements, published, receipt)


def block(name: str) -> str:
    """The example of this name, with the newline of its last line."""
    (found,) = re.findall(rf"^```example-{re.escape(name)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return found


def table(header: str) -> list[list[str]]:
    """The rows of the one table with this header line."""
    assert TEXT.count(f"\n{header}\n") == 1, header
    rows = []
    for line in TEXT.split(f"\n{header}\n")[1].split("\n")[1:]:
        if not line.strip().startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def integers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def hexes(text: str) -> np.ndarray:
    """Words of 64 bits, written as 16 hex digits each."""
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint64)


def number(text: str) -> int:
    """A bound such as 7, 2^20 or 2^20-1."""
    power = re.fullmatch(r"(?:(\d+)|2\^(\d+)(-1)?)", text)
    assert power, text
    return int(power[1]) if power[1] else (1 << int(power[2])) - (1 if power[3] else 0)


# The checks

HEADINGS = re.findall(
    r"^### ([A-Z]{3}-\d+): (.+)\n\n- \*\*level\*\* (\w+), (of the log|from \w+)(?:, (of [a-z -]+))?\.",
    TEXT,
    re.MULTILINE,
)
OF_MODES = {
    ANY_MODE: "",
    PAIRWISE: "of pairwise sessions",
    ONE_SHOT: "of one-shot sessions",
    COMMITTEE: "of sessions with a committee",
    AUTHORITY: "of sessions with a key authority",
}


def test_the_checks_are_those_of_the_catalogue_in_its_order_with_titles_levels_stages_and_modes():
    of_log = {check.identifier for check in LOG_CHECKS}
    assert [
        (
            check.identifier,
            check.title,
            LEVEL_NAMES[check.level],
            "of the log" if check.identifier in of_log else f"from {check.needs.name.lower()}",
            OF_MODES[check.modes],
        )
        for check in ALL_CHECKS
    ] == HEADINGS


@pytest.mark.parametrize("identifier", [check.identifier for check in ALL_CHECKS])
def test_every_check_says_what_it_reads_needs_counts_rules_and_proves(identifier):
    section = re.split(r"^##", TEXT.split(f"\n### {identifier}: ")[1], maxsplit=1, flags=re.MULTILINE)[0]
    for part in ("**Reads**", "**Needs**", "**Counts**", "**Rule.**", "**Proves**"):
        assert section.count(part) == 1, part


def test_every_check_that_the_text_names_exists():
    families = "|".join(FAMILIES)
    assert set(re.findall(rf"\b(?:{families})-\d+\b", TEXT)) == {check.identifier for check in ALL_CHECKS}


# Records


def documented_records() -> dict[str, dict[str, str]]:
    """Of each type, its members, each with what it says of the values. Of two records of a type, each has its note."""
    section = TEXT.split("\n## 3. Records\n")[1].split("\n## 4. ")[0]
    found = re.findall(r"^\| `([a-z-]+)`( \([a-z-]+\))? \| (.+) \|$", section, re.MULTILINE)
    rows = {kind + note: text for kind, note, text in found}
    assert len(rows) == len(found)
    members = {}
    for kind, text in rows.items():
        parts = [] if text == "no members" else [part.split(" ", 1) for part in text.split("; ")]
        members[kind] = dict(parts)
    return members


NOT_PUBLISHED = {Record, statements.Receipt, entries.SessionOpen, merge.UpdateMerge, noise.DistributedNoise}
"""What no file holds and no check reads; the last three are what several of them have in common."""
RECORDS = {
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind not in NOT_PUBLISHED
}
NOTES = {
    entries.PairwiseOpen: " (pairwise)",
    entries.OneShotOpen: " (one-shot)",
}


def name_of(kind: type[Record]) -> str:
    return kind.TYPE + NOTES.get(kind, "")


def test_every_record_of_the_published_files_is_documented_and_no_other():
    assert documented_records().keys() == {name_of(kind) for kind in RECORDS}
    signed_alone = {row[0].strip("`") for row in table("| signed | members |")}
    assert signed_alone == {openers.MemberKeys.TYPE, openers.PreparedKey.TYPE}
    assert f"**`version` is the integer {VERSION}.**" in TEXT


def test_entries_and_their_orders_are_as_documented():
    assert "each entry is one of the ten entry types" in WORDS.lower()
    assert len(entries._KINDS) == 10
    rows = {mode: re.findall(r"`([a-z-]+)`", order) for mode, order in table("   | mode | order |")}
    kinds = {kind: entry.TYPE for entry, kind in entry_order._KINDS.items()}
    kinds[entry_order.Kind.OPEN_AUTHORITY] = "session-open"
    assert list(rows.values()) == [[kinds[kind] for kind in order] for order in entry_order._ORDERS]
    assert list(rows) == ["pairwise", "committee", "key authority"]


@pytest.mark.parametrize("kind", sorted(RECORDS, key=lambda kind: (kind.TYPE, kind.__name__)), ids=lambda k: k.__name__)
def test_the_members_of_every_record_are_as_documented(kind):
    members = documented_records()[name_of(kind)]
    assert list(members) == [field.name for field in dataclasses.fields(kind)]
    for field in dataclasses.fields(kind):
        check_member(members[field.name], field.metadata["codec"])


def check_member(text: str, codec) -> None:
    """The codec takes the outermost values that the text allows, and none beyond them."""
    text = text.removesuffix(", strictly ascending").removesuffix(", strictly ascending by index")
    if match := re.fullmatch(r"list to (\S+) of (.+)", text):
        codec.check((), "")
        refuses(codec, tuple(range(number(match[1]) + 1)))
        assert f"at most {number(match[1])}" in refusal(codec, tuple(range(number(match[1]) + 1)))
        if item := re.fullmatch(r"hex(\d+)", match[2]):
            codec.check((bytes(int(item[1])),), "")
            refuses(codec, (bytes(int(item[1]) + 1),))
        elif item := re.fullmatch(r"(\S+)\.\.(\S+)", match[2]):
            codec.check((number(item[1]), number(item[2])), "")
            refuses(codec, (number(item[2]) + 1,))
        else:
            assert record_types(match[2].replace("records", "record")) == types_in(refusal(codec, (0,)))
    elif match := re.fullmatch(r"hex(\d+)", text):
        codec.check(bytes(int(match[1])), "")
        refuses(codec, bytes(int(match[1]) + 1))
    elif match := re.fullmatch(r"(\S+)\.\.(\S+)", text):
        low, high = map(number, match.groups())
        codec.check(low, "")
        codec.check(high, "")
        refuses(codec, low - 1)
        refuses(codec, high + 1)
    elif match := re.fullmatch(r"text to (\d+)", text):
        codec.check("x" * int(match[1]), "")
        refuses(codec, "x" * (int(match[1]) + 1))
    elif text.startswith("record "):
        assert record_types(text) == types_in(refusal(codec, 0))
    elif text == "frac":
        assert "fraction" in refusal(codec, 0)
    else:
        words = re.findall(r"`([a-z._-]+)`", text)
        assert re.fullmatch(r"`[a-z._-]+`((,| or) `[a-z._-]+`)*", text), text
        assert refusal(codec, "").endswith(f"expected one of {', '.join(words)}")


def refuses(codec, value) -> None:
    with pytest.raises(RecordError):
        codec.check(value, "")


def refusal(codec, value) -> str:
    with pytest.raises(RecordError) as refused:
        codec.check(value, "")
    return str(refused.value)


def record_types(text: str) -> set[str]:
    assert text.startswith("record `"), text
    return set(re.findall(r"`([a-z-]+)`", text))


def types_in(refused: str) -> set[str]:
    return set(refused.split("expected a record of type ")[1].split(" or "))


# Files, limits, policy, run


def test_the_files_of_a_session_are_those_that_are_published_and_those_that_are_checked():
    documented = [row[0].strip("`") for row in table("| file | there from | content | bound by | longest |")]
    source = "".join(map(inspect.getsource, (publication, pairwise_publication, one_shot_host)))
    written = set(re.findall(r'"([a-z0-9-]+\.(?:jsonl|json|bin|safetensors))"', source))
    written |= {f"aggregate/{name}" for name in entries.AGGREGATE_FILES}
    written |= {
        f"{name}/<part>.bin" for name in re.findall(r'f"([a-z]+)/\{header\.parts\[0\]\.hex\(\)\}\.bin"', source)
    }
    assert source.count("aggregate/") == 1
    assert set(documented) == written
    read = {sums.HASHES, sums.LIMB_SUM, session_lists.OPENINGS, openings.PAIR_BOXES, results.INTEGER_SUM}
    read |= {getattr(session_lists, name) for name in ("ROSTER", "LAYOUT_FILE", "ADAPTER_FILE", "KEYS", "U2")}
    read |= {session_lists.COMMITMENTS, session_lists.DISPOSITIONS, session_lists.CONTRIBUTIONS}
    read |= {one_shot_session.CONTEXT, ciphertexts.CIPHERTEXT_SUM}
    read |= {one_shot_openings.SECRET_SUM, one_shot_openings.ATTESTATIONS, session_values.FIXED_FILE}
    assert f"{ciphertexts.CIPHERTEXTS}/<part>.bin" in documented
    assert {name for name in documented if "/" not in name} == read


def test_lengths_of_lines_and_files_are_as_documented():
    rows = {row[0].strip("`"): row[4] for row in table("| file | there from | content | bound by | longest |")}
    lines = {
        session_lists.MAX_STATEMENT_BYTES: ("roster.jsonl", "keys.jsonl", "u2.jsonl", "attestations.jsonl"),
        session_lists.MAX_HEADER_BYTES: ("commitments.jsonl", "dispositions.jsonl", "contributions.jsonl"),
        session_lists.MAX_ANSWER_BYTES: ("openings.jsonl",),
        openings.MAX_PAIR_BYTES: ("pair-boxes.jsonl",),
    }
    for most, names in lines.items():
        assert {rows[name] for name in names} == {f"{most} a line"}
    assert {number(rows[name]) for name in ("layout.json", "adapter.json")} == {session_values.MAX_DESCRIPTION_BYTES}
    assert number(rows["fixed.safetensors"].removesuffix(", and 4 a value")) == fixed._HEADER_ROOM_BYTES


def test_limits_of_notes_proofs_and_the_graph_are_as_documented():
    assert f"At most {note.MAX_NOTE_BYTES:,} bytes, UTF-8" in TEXT
    assert f"1 to {note.MAX_SIGNATURES} signature lines" in TEXT
    assert f"0 to {note.MAX_PROOF_HASHES} lines" in TEXT
    assert f"Extra data has at most {proof.MAX_EXTRA_BYTES:,} bytes" in WORDS
    assert f"The file has at most {proof.MAX_EXTRA_BYTES * 2 + note.MAX_NOTE_BYTES:,} bytes." in WORDS
    assert f"An entry has at most {tiles.MAX_ENTRY_BYTES:,} bytes" in WORDS
    assert f"is more than {log.MAX_AHEAD_S} s ahead" in WORDS
    assert f"n is {MIN_COHORT}..{MAX_COHORT}," in TEXT
    assert linear_hash.max_contributors(linear_hash.MAX_LANES) == 262_144
    assert "m is never below 262144" in WORDS
    assert (log_view.CHECKPOINT, policy.MAX_POLICY_BYTES) == ("checkpoint", 1 << 20)
    assert f"have at most {'ten' if MAX_SHOWN == 10 else MAX_SHOWN} of" in TEXT


def test_what_unicode_counts_as_white_space_in_a_name_is_as_documented():
    listed = re.findall(r"U\+([0-9A-F]{4})", TEXT.split("no white space of Unicode (")[1].split(")")[0])
    assert len(listed) == 11
    single, (first, last) = {int(code, 16) for code in listed}, (0x2000, 0x200A)
    documented = single | set(range(first, last + 1)) | {*range(0x20), *range(0x7F, 0xA0), ord("+")}
    for code in [*range(0x3100), 0xFEFF]:
        taken = True
        try:
            note.check_name(chr(code), "name")
        except note.NoteError:
            taken = False
        assert taken == (code not in documented), hex(code)


def test_exit_codes_statuses_and_levels_are_as_documented():
    codes = [(int(row[0]), row[1].strip("`")) for row in table("| exit code | verdict | when |")]
    verdicts = {(verdict.exit_code, verdict.value) for verdict in Verdict}
    assert codes == sorted(verdicts | {(cli.UNUSABLE, "")})
    assert {row[0].strip("`") for row in table("| status | when |")} == {status.value for status in Status}
    levels = [row[0].split("`")[1] for row in table("| level | runs | reads |")]
    assert levels == [LEVEL_NAMES[level] for level in Level]


def test_the_options_of_the_command_are_as_documented():
    parser = cli._parser()
    usage = parser._subparsers._group_actions[0].choices["check"].format_usage()
    section = TEXT.split("secagg-verify check RECORD")[1].split("secagg-verify list-checks")[0]
    assert set(re.findall(r"--[a-z-]+", section)) == set(re.findall(r"--[a-z-]+", usage))


def policy_file(directory: Path, text: str) -> Path:
    (directory / "policy").write_text(block("policy"))
    (directory / "policy.toml").write_text(text)
    return directory / "policy.toml"


def documented_policy() -> dict[tuple[str, str], bool]:
    """Of each table and key of the policy, whether it is required."""
    keys = {}
    for cell, rule, *_ in table("| key | | |"):
        *section, key = re.findall(r"`\[?([a-z_]+)\]?`", cell)
        keys["".join(section), key] = rule.startswith("required")
    return keys


def test_the_keys_of_the_policy_are_as_documented(tmp_path):
    keys = documented_policy()
    values = {
        ("", "log_policy"): '"policy"',
        ("", "max_age_s"): "3600",
        ("registrar", "keys"): f'["{"0" * 64}"]',
        ("session", "min_contributors"): "3",
        ("session", "tolerated_corrupt"): '"1/10"',
        ("session", "base_models"): "[]",
        ("noise", "mechanism"): '"skellam"',
        ("noise", "epsilon"): '"8/1"',
        ("noise", "delta"): '"1/100000"',
        ("openers", "keys"): f'["{"1" * 64}"]',
        ("openers", "attestors"): f'["{"2" * 64}"]',
    }
    assert keys.keys() == values.keys()

    def text(left_out=None):
        tables = {section: [] for section, _ in values}
        for section, key in keys:
            if (section, key) != left_out:
                tables[section].append(f"{key} = {values[section, key]}")
        return "\n".join("\n".join([f"[{name}]" if name else "", *lines]) for name, lines in tables.items()) + "\n"

    full = load_policy(policy_file(tmp_path, text()))
    assert full.max_age_s == 3600
    assert full.openers == policy.PinnedOpeners(frozenset({b"\x11" * 32}), frozenset({b"\x22" * 32}))
    for key, required in keys.items():
        path = policy_file(tmp_path, text(key))
        if required:
            with pytest.raises(AuditPolicyError):
                load_policy(path)
        else:
            load_policy(path)
    for more in ("another = 1\n", "[opener]\n"):
        with pytest.raises(AuditPolicyError):
            load_policy(policy_file(tmp_path, text() + more))
    assert load_policy(policy_file(tmp_path, text().split("[openers]")[0])).openers == policy.PinnedOpeners()
    unlimited = "".join(line for line in text().splitlines(keepends=True) if not line.startswith(("epsilon", "delta")))
    assert load_policy(policy_file(tmp_path, unlimited)).noise == policy.NoiseDemand("skellam")


# References


def test_the_table_of_contents_names_every_section():
    sections = re.findall(r"^## (\d+\. .+)$", TEXT, re.MULTILINE)
    slugs = [re.sub(r"[^a-z0-9 -]", "", section.lower()).replace(" ", "-") for section in sections]
    assert re.findall(r"\]\(#([a-z0-9-]+)\)", TEXT) == slugs


def test_the_sections_of_other_documents_that_are_named_exist():
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    parameters = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    titles = {
        "1": "Notation",
        "2": "Canonical JSON",
        "3": "Labelled encoding",
        "4": "Records",
        "5": "Keys and boxes",
        "6": "Graph",
        "7": "Keystream and masking",
        "8": "The sum",
        "9": "Encoding a vector",
        "10": "Log",
        "11": "Phases",
        "17": "Vectors",
    }
    named = set(re.findall(r"protocol\.md, sections? (\d+)", WORDS)) | set(re.findall(r"sections \d+ to (\d+)", WORDS))
    assert named <= titles.keys()
    for section in named:
        assert f"\n## {section}. {titles[section]}\n" in protocol, section
    for heading in ("### Signatures", "### Shamir sharing", "### 11.4 Receipt"):
        assert f"\n{heading}" in protocol
    for phrase in ("Decoding a sum", "The mean: undo flattening"):
        assert phrase in protocol
    one_shot = (ROOT / "docs" / "protocol-one-shot.md").read_text(encoding="utf-8")
    titles = {"2": "Ring mask", "3": "Shares and boxes", "4": "Ciphertexts", "5": "The sum"}
    found = re.findall(r"protocol-one-shot\.md, sections? ([\d, and]+)", WORDS)
    assert {number for text in found for number in re.findall(r"\d+", text)} == titles.keys()
    for section, title in titles.items():
        assert f"\n## {section}. {title}\n" in one_shot
    for heading in (
        "### Two conditions",
        "## Linear hash",
        "### Definition",
        "### Where the errors end",
        "### Certification",
    ):
        assert f"\n{heading}\n" in parameters


def test_every_file_of_vectors_that_is_named_exists():
    named = re.findall(r"`(\w+\.json)`", TEXT.split("\n## 16. Vectors\n")[1])
    assert len(named) == 12
    assert all((ROOT / "tests" / "vectors" / name).exists() for name in named)


# The example: a log of three entries


def example_entries() -> list[bytes]:
    return block("entries").encode().splitlines()


def write_example(directory: Path, **changed: bytes) -> tuple[Path, Path]:
    """The record and the policy of the example; ``changed`` replaces files by their name without dots."""
    logged = example_entries()
    session = "record/sessions/c47ae3afe38a1c8cbf29b9bdced65704"
    files = {
        "record/checkpoint": block("checkpoint").encode(),
        "record/tile/0/000.p/3": bytes.fromhex(block("leaves")),
        "record/tile/entries/000.p/3": b"".join(len(entry).to_bytes(2, "big") + entry for entry in logged),
        f"{session}/roster.jsonl": block("roster.jsonl").encode(),
        f"{session}/layout.json": block("layout.json").encode()[:-1],
        f"{session}/adapter.json": block("adapter.json").encode()[:-1],
        "policy.toml": block("policy.toml").encode(),
        "policy": block("policy").encode(),
    }
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(changed.get(path.name.replace(".", "_"), data))
    return directory / "record", directory / "policy.toml"


def verdict(directory: Path, **changed: bytes) -> int:
    record, trust = write_example(directory, **changed)
    return cli.run(["check", str(record), "--policy", str(trust), "--level", "meta", "--now", str(NOW_S)])


def test_the_examples_are_what_their_script_writes():
    assert generate_record_example.render(TEXT) == TEXT


def test_the_example_is_a_whole_record_that_passes(tmp_path, capsys):
    assert verdict(tmp_path) == 0
    assert capsys.readouterr().out.startswith("PASSED")


@pytest.mark.parametrize("name", ["checkpoint", "roster.jsonl", "layout.json", "adapter.json"])
def test_the_example_passes_as_it_stands_only(tmp_path, name):
    data = block(name).encode()
    changed = data.replace(b"e", b"f", 1)
    assert changed != data
    assert verdict(tmp_path, **{name.replace(".", "_"): changed}) == 1


def test_the_hashes_lengths_and_the_root_of_the_example_are_as_written():
    logged = example_entries()
    leaves = [merkle.leaf_hash(entry) for entry in logged]
    assert [leaf.hex() for leaf in leaves] == block("leaves").split()
    assert f"`{merkle.node_hash(leaves[0], leaves[1]).hex()}`" in TEXT
    assert f"`{merkle.root_of_hashes(leaves).hex()}`" in TEXT
    lengths = [f"`{len(entry):04x}`" for entry in logged]
    assert f"behind the lengths {lengths[0]}, {lengths[1]} and {lengths[2]}." in WORDS
    rules = LogPolicy.parse(block("policy"))
    found = open_checkpoint(block("checkpoint").encode(), rules.logs[0].key, rules.witness_keys)
    times = [str(each.timestamp_s) for each in found.cosigned]
    assert f"at {times[0]}, {times[1]} and {times[2]}:" in WORDS
    assert f"at {NOW_S}, every check" in WORDS


def test_the_json_report_of_the_example_has_the_documented_members(tmp_path):
    record, trust = write_example(tmp_path)
    report = run_audit(Audit(RecordFiles(record), load_policy(trust), Level.META, NOW_S))
    found = json.loads(to_json(report))
    rows = table("| member | |")
    documented = [name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row[0])]
    assert documented == sorted(documented, key=list(found).index)
    assert set(documented) == set(found)
    assert f"`{SCHEMA}`" in dict(rows)["`schema`"] == f"`{found['schema']}`"
    texts = dict(rows)
    for name in ("verifier", "policy", "checkpoint", "sessions", "checks", "statement"):
        value = found[name][0] if isinstance(found[name], list) else found[name]
        words = re.findall(r"`([a-z0-9_]+)`", texts[f"`{name}`"])
        ends = {each.value for kind in (SessionEnd, Mode) for each in kind} if name == "sessions" else set()
        cosigned = {"public_key", "name", "timestamp_s"} if name == "checkpoint" else set()
        assert set(words) - ends - cosigned == value.keys(), name
    last = WORDS.split("`first_failures` and `unavailable` have")[1].split("`failed` counts all")[0]
    assert re.findall(r"`([a-z]+)`", last) == ["session", "file", "line", "field", "reason"]


def test_the_merge_of_a_session_in_the_json_report_has_the_documented_members(tmp_path):
    record, trust = write_example(tmp_path)
    report = run_audit(Audit(RecordFiles(record), load_policy(trust), Level.META, NOW_S))
    text = WORDS.split("`merge` of a session has")[1].split("The estimated error of the whole adapter")[0]
    assert set(re.findall(r"`([a-z_]+)`", text)) == json.loads(to_json(report))["sessions"][0]["merge"].keys()


def test_the_tolerance_of_what_merges_publish_is_as_documented():
    assert f"`10^-{round(-np.log10(published_check.TOLERANCE))} |W|`" in WORDS
    assert f"`scalar_ppm` may differ by {merge_report.TOLERANCE_PPM}." in WORDS
    degraded, share = (round(10**6 * part) for part in (merge_report.DEGRADED_ERROR, merge_report.DEGRADED_SHARE))
    assert f"with an `error_ppm` above {degraded} add up to more than {share}," in WORDS
    assert f"None of them has more than 2^{matrix_sizes.MAX_MATRIX.bit_length() - 1} entries." in WORDS
    assert f"at least 0 and at most {reconstruction.MOST_SCALAR:g}, or by 1" in WORDS
    assert linearity.BASIS_TOLERANCE == published_check.TOLERANCE == 1e-4
    assert f"attempt 0..{merging.MAX_ATTEMPTS - 1} after it" in WORDS
    assert merging.MAX_ATTEMPTS == second.MAX_ATTEMPTS


def test_the_pieces_and_matrices_of_merges_are_as_documented():
    rows = table("| piece | is | shape | with the merge |")
    sizes = {"m": 50, "n": 40, "k": 3, "s": 6, "p": 4, "r": 2}
    module = MergedModule("a", "linear", sizes["m"], sizes["n"])
    of_merges = {
        "dense": merge.DenseMerge(ONE),
        "frozen-a": merge.FrozenMerge(ONE, bytes(32)),
        "sketch": merge.SketchMerge(ONE, bytes(32), 3, 6, 4),
        "two-session-range": merge.RangeMerge(ONE, bytes(32), 3),
        "two-session-projection": merge.ProjectionMerge(ONE, bytes(32), 3, 4, bytes(16), bytes(32), bytes(32)),
        "pilot of one side": merge.PilotMerge(ONE, bytes(32), 3, 1, ONE / 2),
        "pilot of two sides": merge.PilotMerge(ONE, bytes(32), 3, 2, ONE / 2),
        "pilot-basis of one side": merge.BasisMerge(ONE, bytes(32), 3, 1, 4, ONE / 2, bytes(16), bytes(32)),
        "pilot-basis of two sides": merge.BasisMerge(ONE, bytes(32), 3, 2, 4, ONE / 2, bytes(16), bytes(32)),
    }
    for name, each in of_merges.items():
        assert pieces_of(each, module, sizes["r"]) == {
            row[0].strip("`"): tuple(sizes[size] for size in row[2].split(", "))
            for row in rows
            if {name, name.partition(" of ")[0]} & set(row[3].replace("`", "").split(";")[0].split(", "))
        }, name
    assert {name for row in table("| matrix | name | shape |") for name in re.findall(r"`([a-z-]+)`", row[1])} == set(
        signs.MATRICES
    )
    key = hashlib.sha256(b'{"matrix":"xi","module":"a","seed":"' + b"00" * 32 + b'","type":"test-matrix"}').digest()
    stream = np.empty(2, dtype=np.uint8)
    Keystream(key).read_into(stream)
    bits = [int(stream[i // 8]) >> i % 8 & 1 for i in range(15)]
    by_hand = np.array([2 * bit - 1 for bit in bits], np.float32).reshape(3, 5)
    assert np.array_equal(signs.sign_matrix(bytes(32), "a", "xi", 3, 5), by_hand)


def test_the_largest_scales_of_pieces_are_as_documented():
    rows = dict(table("| pieces | reach |"))
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == {
        row[0].strip("`") for row in table("| piece | is | shape | with the merge |")
    }
    for m, n, u in ((50, 40, 3), (5000, 4000, 1), (7, 100_000, 9)):
        sizes = {"m": m, "n": n, "(m": m, "n)": n}
        for row, text in rows.items():
            if "scaled-b" in row:
                continue
            reaches = []
            for term in text.removesuffix(" if that is less").split(", or "):
                factor, divisors = (Fraction(part) for part in ("1", "1"))
                above, _, below = term.partition(" / ")
                if above != "u^2":
                    factor = Fraction(above.removesuffix(" u^2"))
                for size in below.split():
                    divisors *= sizes[size]
                reaches.append(factor * u * u / divisors)
            for piece in re.findall(r"`([a-z-]+)`", row):
                scale = scale_of(piece, MergedModule("a", "linear", m, n), Fraction(u))
                assert Fraction(4) ** scale * min(reaches) <= 1 < Fraction(4) ** (scale + 1) * min(reaches), piece
    second_ones = (
        "With `two-session-projection` the reach of `projection` and `update` is u^2, that of `probe` 4096 u^2 / m"
    )
    assert second_ones in WORDS
    for m, n in ((5000, 4000), (4, 3)):
        module, norm = MergedModule("a", "linear", m, n), Fraction(3)
        projection = merge.ProjectionMerge(norm, bytes(32), 3, 4, bytes(16), bytes(32), bytes(32))
        for piece, scale in scales_for(projection, module, 2, {}).items():
            reach = Fraction(4096 if piece == "probe" else m, m) * norm**2
            assert Fraction(4) ** scale * reach <= 1 < Fraction(4) ** (scale + 1) * reach, piece


def test_the_noise_of_a_session_in_the_json_report_has_the_documented_members():
    text = WORDS.split("`noise` of a session is null")[1].split("Fractions are texts")[0]
    found = json_report._noise(NoiseSummary("skellam", 1.5, "people", Fraction(8), Fraction(1, 2), 3))
    assert set(re.findall(r"`([a-z_]+)`", text)) == found.keys()


# Declared noise


def example_cost() -> DistributedSkellam:
    distance = Fraction(1, 2**64) + 1024 * 1024 * draw_distance("skellam", Fraction(13450))
    norm = rounded_squared_norm(Fraction(256), Fraction(1), 1024)
    return DistributedSkellam(Fraction(13450), 3, 1, Sensitivity.of_squared_norm(norm, 1024), distance)


def test_the_example_of_a_reservation_has_the_digest_that_is_written():
    event = block("reservation").encode()[:-1]
    session = bytes.fromhex(json.loads(event)["session"])
    assert ledger_events.encode_event(2, ledger_events.Reserved("people", session, example_cost())) == event
    previous = bytes.fromhex(re.search(r"with `previous` = `([0-9a-f]{64})`", WORDS)[1])
    by_hand = hashlib.sha256(b"dp/ledger/event/v1\0" + previous + event).hexdigest()
    assert by_hand == ledger_events.reservation_digest(previous, 2, "people", session, example_cost()).hex()
    assert f"the digest `reserved` is `{by_hand}`" in WORDS


def test_the_costs_and_the_table_of_the_example_are_as_written():
    few, many = example_cost(), example_cost().with_survivors(8)
    costs = [epsilon_at(composed(each), Fraction(1, 100_000)) for each in ([few], [many], [few, many])]
    assert (
        "costs epsilon {:.5f} with 3 contributions and {:.5f} with 8; both together cost {:.5f}".format(*costs) in WORDS
    )
    assert f"The table has the digest `{noise_table('skellam', Fraction(13450)).digest.hex()}`" in WORDS


def test_the_limits_and_the_floor_of_noise_are_as_documented():
    assert f"a verifier may stop at {privacy_spent.MAX_TABLES} different ones" in WORDS
    assert f"n above 2^{MAX_CLIENTS.bit_length() - 1} counts as 2^{MAX_CLIENTS.bit_length() - 1}" in WORDS
    assert f"sqrt(2 ln(2) {RARITY_BITS} D mu (3 mu + 1))" in WORDS
    assert noise_floor(166, 1e30) <= 0
    assert "`population` has no character that Unicode counts as other or separator" in WORDS
    for code in range(0x110000):
        letter = chr(code)
        assert letter.isprintable() == (letter == " " or unicodedata.category(letter)[0] not in "CZ")


def test_the_sections_on_privacy_that_are_named_exist():
    text = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    named = set(re.findall(r'privacy\.md, "([^"]+)"', WORDS))
    assert named == {
        "Sensitivity",
        "Room in the field",
        "The sampler, by bytes",
        "Accounting",
        "Composition",
        "Two ledgers",
    }
    assert all(re.search(rf"^##+ {re.escape(name)}$", text, re.MULTILINE) for name in named)


# The example: a session of three, from uploads to adapter


def uploads() -> list[tuple[np.ndarray, str]]:
    lines = [line.rsplit(" ", 1) for line in block("uploads").splitlines()]
    return [(hexes(lanes), digest) for lanes, digest in lines]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_linear_hash_check_is_right_in_every_number():
    hashes = []
    for (lanes, upload), line in zip(uploads(), block("hashes").splitlines(), strict=True):
        *first, digest = line.split()
        assert sha(lanes.astype("<u8").tobytes()) == upload
        hashes.append(linear_hash.hash_lanes(lanes))
        assert list(hexes(" ".join(first))) == list(hashes[-1][:3])
        assert sha(hashes[-1].astype("<u8").tobytes()) == digest
    text, digest = block("limb-sum").splitlines()
    limb_sum = linear_hash.LimbSum.from_entries(np.array(integers(text), dtype=np.uint64), 3)
    assert sha(limb_sum.entries.astype("<u8").tobytes()) == digest
    assert linear_hash.sum_of_hashes(hashes).tolist() == linear_hash.hash_limb_sum(limb_sum).tolist()
    assert f"`{sha(linear_hash.hash_limb_sum(limb_sum).astype('<u8').tobytes())}`" in TEXT
    assert linear_hash.lanes_of_limb_sum(limb_sum).tolist() == hexes(block("masked-sum")).tolist()
    assert list(sum(lanes for lanes, _ in uploads())) == list(hexes(block("masked-sum")))


def test_the_word_that_is_computed_by_hand_is_right():
    stream = np.empty(8 * 2048, dtype=np.uint8)
    Keystream(hashlib.sha256(linear_hash.SEED_LABEL).digest()).read_into(stream)
    listed = {int(at): int(word, 16) for at, word in map(str.split, block("public-words").splitlines())}
    assert listed == {at: int(stream.view("<u8")[at]) for at in (0, *range(2033, 2048))}
    limbs = integers(block("limb-sum").splitlines()[0])
    first = limbs[0] * listed[0] - sum(limbs[i] * listed[2048 - i] for i in range(1, 16))
    assert f"That is `{first % 2**64:016x}`" in TEXT


def test_the_self_masks_open_the_masked_sum():
    session = bytes.fromhex(re.search(r"The session digest is `([0-9a-f]{64})`", WORDS)[1])
    lanes = hexes(block("masked-sum"))
    for line, expected in zip(block("self-masks").splitlines(), block("keystreams").splitlines(), strict=True):
        seed, key = map(bytes.fromhex, line.split())
        assert boxes.self_mask_keystream(Secret(seed), session).expose() == key
        stream = np.empty(32, dtype=np.uint8)
        Keystream(key).read_into(stream)
        assert list(stream.view("<u8")) == list(hexes(expected))
        lanes -= hexes(expected)
    assert list(lanes) == list(hexes(block("lanes")))


def test_the_result_follows_from_the_opened_lanes():
    parameters = entries.decode_entry(example_entries()[1])
    encoding = parameters.encoding
    fields = encoding.field_layout()
    assert (fields, fields.lanes, fields.field_bits) == (FieldLayout(16, 8, 10, 64), 4, 19)
    total = fields.unpack_sum(hexes(block("lanes")), 3)
    assert list(total) == integers(block("integer-sum"))
    assert f"then {total[0] + 3 * 32768} and {total[1] + 3 * 32768}; less 3 * 32768" in WORDS
    mean = encoding.quantiser(NoDifferentialPrivacy()).dequantise(total, 3)
    assert mean.astype("<f4").tobytes() == bytes.fromhex(block("mean"))
    layout = Layout.from_json_value(canonical.decode(block("layout.json").encode()[:-1]))
    template = AdapterTemplate.from_json_value(canonical.decode(block("adapter.json").encode()[:-1]))
    files = FactorMerging(template, layout).aggregate(mean, 3, lambda _: None)
    assert b"".join(files[CONFIG_FILE]).decode() == block("adapter_config.json")
    model = b"".join(files[TENSOR_FILE])
    header = block("header").encode()[:-1]
    assert model[:8].hex() == "e000000000000000"
    assert model[8:] == header + b" " * (224 - len(header)) + bytes.fromhex(block("mean"))
    assert f"{len(model)} bytes: `e000000000000000`, 224 bytes of header" in TEXT


def test_patterns_of_exceptions_are_escaped_as_documented():
    listed = re.search(r"in which each of ``(.+?)``, space, tab, LF, CR, U\+000B and U\+000C has", WORDS)[1]
    special = listed.replace("\\|", "|") + " \t\n\r\x0b\x0c"
    for code in range(0x100):
        letter = chr(code)
        assert (re.escape(letter) != letter) == (letter in special), hex(code)


# The example: a receipt


def test_the_receipt_verifies_and_is_of_the_second_upload():
    found = proof.LogProof.parse(block("receipt").encode())
    rules = LogPolicy.parse(block("policy"))
    witnessed = open_checkpoint(found.checkpoint, rules.logs[0].key, rules.witness_keys)
    assert rules.is_met_by(witnessed.public_keys)
    assert found.extra == block("contribution-proof").encode()[:-1]
    kept = receipt.ContributionProof.from_bytes(found.extra)
    kept.verify()
    size, root = witnessed.checkpoint.size, witnessed.checkpoint.root
    assert f"Its close entry is number {found.index} of a log of {size}:" in WORDS
    merkle.verify_inclusion(merkle.leaf_hash(kept.close.encode()), found.index, size, found.path, root)
    header = kept.contribution.statement
    verify_statement(header.identity, header.to_bytes(), kept.contribution.signature)
    lanes, upload = uploads()[RECEIPT_INDEX]
    assert (kept.position, header.upload.hex(), header.lanes) == (RECEIPT_INDEX, upload, lanes.size)
    assert header.linear_hash.hex() == block("hashes").splitlines()[RECEIPT_INDEX].split()[-1]
    assert kept.closing().limb_sum.hex() == block("limb-sum").split()[-1]


def test_the_receipt_continues_the_log_of_three_entries():
    found = proof.LogProof.parse(block("receipt").encode())
    fourth = re.search(r"the open entry, of leaf hash `([0-9a-f]{64})`", WORDS)[1]
    leaves = [*map(merkle.leaf_hash, example_entries()), bytes.fromhex(fourth)]
    assert found.path[1:] == (merkle.root_of_hashes(leaves),)
