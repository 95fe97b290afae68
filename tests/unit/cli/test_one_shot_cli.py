"""One-shot sessions on the command line: who opens them, what is refused before anything is sent, what is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path

import pytest

from secagg import institutions
from secagg.cli import failures, openers, opening, options
from secagg.cli.contribute import _taken_part, _Until
from secagg.cli.describe import describe_session, opener_identities, opening_words
from secagg.cli.exit_codes import ExitCode
from secagg.client import OneShotParticipation
from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.derive.openers import member_of
from secagg.he.bfv import DecryptionKey
from secagg.he.errors import HeUnavailableError
from secagg.identity.cards import AuthorityCard, MemberCard
from secagg.identity.client_config import ClientConfig
from secagg.identity.config import CoordinatorConfig
from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.one_shot.session import OneShotSession
from secagg.runtime.institutions import PreparedContext
from secagg.transcript.entries import OneShotOpen
from secagg.transcript.openers import Committee, KeyAuthority, PreparedKey
from tests.support.cohort import key_of
from tests.support.rng import CountingRng
from tests.unit.cli.test_cli import EXPLICIT, KEY, OPEN, Shell, operator, shell  # noqa: F401 - fixtures

FOUR = tuple(f"member-{place}.card" for place in range(4))
KEY_PAIR = DecryptionKey.generate(CountingRng(b"authority"))
ATTESTORS = tuple(key_of(f"attestor {number}").public_bytes for number in range(2))


def member_card(place: int, **changes: object) -> Path:
    sealing = SealingKey(Secret(hashlib.sha256(b"sealing %d" % place).digest())).public_bytes
    member = member_of(f"member-{place}", key_of(f"member {place}"), sealing)
    card = MemberCard.of(member, f"127.0.0.1:{7001 + place}", "")
    path = Path(f"member-{place}.card")
    path.write_bytes(dataclasses.replace(card, **changes).to_bytes())
    return path


def authority_card() -> Path:
    path = Path("authority.card")
    path.write_bytes(
        AuthorityCard("authority", key_of("authority").public_bytes, "127.0.0.1:7100", "", ATTESTORS, 2).to_bytes()
    )
    return path


@pytest.fixture
def cards(operator: Shell) -> list[str]:  # noqa: F811
    """Cards of seven members, in the operator's directory."""
    return [str(member_card(place)) for place in range(7)]


def plan(*more: str) -> opening.Opening:
    parser = options.CommandParser()
    importlib.import_module("secagg.cli.session").add_parser(parser.add_subparsers())
    arguments = parser.parse_args([*OPEN, "--min-contributors", "3", "--protocol", "one-shot", *more])
    return opening.plan_opening(arguments, CoordinatorConfig.load(arguments.config))


def parameters_of(opened: opening.Opening) -> OneShotOpen:
    assert isinstance(opened.session.parameters, OneShotOpen)
    return opened.session.parameters


def test_a_committee_has_safe_numbers_by_itself(cards):
    opened = plan("--committee", *cards)
    parameters = parameters_of(opened)
    assert isinstance(parameters.opening, Committee)
    assert (len(parameters.opening.members), parameters.opening.needed, parameters.opening.max_corrupt) == (7, 5, 2)
    assert [member.name for member in parameters.opening.members] == [f"member-{place}" for place in range(7)]
    # 10 bits of contributors, 15 of values: two fields of 25 bits in the 52 that the ring mask leaves.
    assert (parameters.encoding.usable_bits, opened.session.field_layout.fields_per_lane) == (52, 2)
    deadlines = parameters.deadlines
    assert (deadlines.commit_s, deadlines.upload_s, deadlines.hold_s, deadlines.open_s) == (3600, 3600, 600, 3600)
    assert any("pinned at least 5 of the 7" in note for note in opened.notes)


@pytest.mark.parametrize("members", range(2, 17))
def test_every_committee_has_numbers_with_which_no_two_sets_are_opened(members):
    needed, corrupt = openers.committee_numbers(members, None, None)
    assert corrupt == (members - 1) // 3
    assert 2 <= needed <= members
    assert 2 * needed > members + corrupt
    assert needed == 2 or 2 * (needed - 1) <= members + corrupt
    assert openers.committee_numbers(members, members, None) == (members, corrupt)
    assert openers.committee_numbers(members, None, 0) == (max(2, members // 2 + 1), 0)


def test_the_coordinator_is_told_whom_to_reach_in_the_order_of_the_parameters(cards):
    opened = plan("--committee", *cards[::-1][:4], "--needed", "3", "--max-corrupt-members", "1")
    request = opened.request()
    assert [MemberCard.from_bytes(card).name for card in request.cards] == [f"member-{place}" for place in (6, 5, 4, 3)]
    assert [member.name for member in parameters_of(opened).opening.members] == [f"member-{p}" for p in (6, 5, 4, 3)]
    assert request.context == b""
    assert OneShotOpen.from_bytes(request.parameters) == parameters_of(opened)


def test_what_is_said_of_a_one_shot_session_is_in_its_entry(cards):
    opened = plan(
        "--committee", *cards[:4], "--deadlines", "upload=7,open=9", "--max-corrupt", "0", "--max-contributors", "4",
    )  # fmt: skip
    parameters = parameters_of(opened)
    assert (parameters.deadlines.upload_s, parameters.deadlines.open_s, parameters.deadlines.hold_s) == (7, 9, 600)
    assert (parameters.max_corrupt, parameters.encoding.max_contributors) == (0, 4)
    assert parameters.encoding.usable_bits == parameters.ring_mask().usable_bits > 52


@pytest.mark.parametrize(
    ("more", "kind", "word"),
    [
        ((), "usage", "--committee"),
        (("--committee", "member-0.card"), "record", "there are 1 members"),
        (("--committee", "member-0.card", "member-0.card"), "record", "two members have the same"),
        (("--committee", "member-0.card", "gone.card"), "identity-file", "gone.card"),
        (("--committee", "member-0.card", "r.key"), "identity-file", "r.key"),
        (("--committee", "member-0.card", "authority.card"), "usage", "an authority's card"),
        (("--authority", "member-0.card"), "usage", "a committee member's card"),
        (("--authority", "authority.card", "--committee", "member-0.card"), "usage", "exclude each other"),
        (("--authority", "authority.card", "--needed", "2"), "usage", "--needed"),
        (("--authority", "authority.card", "--max-corrupt-members", "1"), "usage", "--max-corrupt-members"),
        (("--committee", *FOUR, "--needed", "2"), "record", "could open two sets"),
        (("--committee", *FOUR, "--needed", "5"), "record", "there are 4 members"),
        (
            ("--committee", *FOUR, "--needed", "3", "--max-corrupt-members", "2"),
            "record",
            "could open two sets",
        ),
        (("--committee", *FOUR, "--deadlines", "unmask=3"), "usage", "unmask=3"),
        (("--committee", *FOUR, "--deadlines", "hold=0"), "record", "hold_s"),
        (("--committee", *FOUR, "--value-bits", "33"), "record", "value_bits"),
        (("--committee", *FOUR, "--max-contributors", "2"), "record", "exceeds"),
        (("--committee", *FOUR, "--expected-dropout", "0"), "usage", "not for one-shot"),
        (
            ("--committee", *FOUR, "--value-bits", "32", "--max-contributors", "1048576"),
            "arithmetic",
            "does not fit",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_impossible_one_shot_session_is_refused_before_anybody_is_asked(more, kind, word, cards, operator):  # noqa: F811
    authority_card()
    argv = (*OPEN, "--min-contributors", "3", "--protocol", "one-shot", *more)
    code, found, _, message = operator.refusal(*argv)
    assert (code, found) == (2, kind), message
    assert word in message


@pytest.mark.parametrize(
    "more", [("--committee", "member-0.card"), ("--needed", "3"), ("--max-corrupt-members", "1"), ("--authority", "a")]
)
def test_a_pairwise_session_has_nobody_to_open_it(more, cards, operator):  # noqa: F811
    code, kind, _, message = operator.refusal(*OPEN, "--min-contributors", "3", *more)
    assert (code, kind) == (2, "usage")
    assert "not for pairwise" in message


def preparing(monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[tuple[bytes, bytes]]:
    """Let the authority prepare keys, altered; what it was asked."""
    asked = []
    key = key_of("authority")

    async def prepare(card: AuthorityCard, session: bytes, coordinator: bytes) -> PreparedContext:
        assert card == AuthorityCard.from_bytes(authority_card().read_bytes())
        asked.append((session, coordinator))
        digest = hashlib.sha256(KEY_PAIR.public_context()).digest()
        statement = {"session": session, "coordinator": coordinator, "identity": key.public_bytes, "context": digest}
        prepared = PreparedKey(**{**statement, **changes}).to_bytes()
        return PreparedContext(prepared, key.sign_statement(prepared), KEY_PAIR.public_context())

    monkeypatch.setattr(institutions, "prepare", prepare, raising=False)
    return asked


def test_an_authority_makes_a_key_for_the_session_that_is_opened(cards, monkeypatch):
    asked = preparing(monkeypatch)
    opened = plan("--authority", str(authority_card()))
    parameters = parameters_of(opened)
    assert isinstance(parameters.opening, KeyAuthority)
    assert asked == [(parameters.session, parameters.coordinator)]
    assert parameters.opening.context == hashlib.sha256(opened.request().context).digest()
    assert (parameters.opening.attestors, parameters.opening.attestations) == (ATTESTORS, 2)
    assert [AuthorityCard.from_bytes(card).name for card in opened.request().cards] == ["authority"]
    assert any("pinned the key authority" in note for note in opened.notes)


def test_a_session_that_cannot_be_is_not_worth_a_key(cards, monkeypatch, operator):  # noqa: F811
    asked = preparing(monkeypatch)
    argv = (*OPEN, "--min-contributors", "5", "--protocol", "one-shot", "--authority", str(authority_card()))
    assert operator.refusal(*argv)[:2] == (2, "record")
    assert asked == []


@pytest.mark.parametrize("changes", [{"session": bytes(16)}, {"coordinator": bytes(32)}, {"context": bytes(32)}])
def test_a_key_for_something_else_opens_no_session(changes, cards, monkeypatch):
    preparing(monkeypatch, **changes)
    with pytest.raises(RemoteProtocolError):
        plan("--authority", str(authority_card()))


def test_a_session_is_described_with_whoever_opens_it(cards):
    opened = plan("--committee", *cards[:4])
    session = opened.session
    assert isinstance(session, OneShotSession)
    shown = describe_session(session, opened.merging)
    rows = dict(shown.rows)
    assert "any 3 of a committee of 4, of whom 1 may be corrupt" in rows["opened by"]
    for member in session.opening.members:
        assert f"{member.identity.hex()} {member.name}" in rows["opened by"]
    assert "2 fields of 25 bits in 52 of 64" in rows["lanes"]
    assert rows["deadlines"] == "upload 3600 s, hold 600 s, open 3600 s"
    assert shown.value["upload_bytes"] == session.upload_bytes == 8 * 4096
    assert shown.value["opening"]["needed"] == 3
    assert (shown.value["protocol"], "expected_dropout" in shown.value) == ("one-shot", False)
    json.dumps(shown.value)


def test_whom_the_reader_has_not_pinned_is_said(cards):
    opened = plan("--committee", *cards[:4])
    first, *others = opened.session.parameters.opening.members
    lines = opening_words(opened.session.parameters.opening, frozenset({first.identity})).splitlines()[1:]
    assert lines[0].endswith("which you pinned")
    assert len(lines) == 1 + len(others)
    assert all("NOT pinned" in line for line in lines[1:])
    assert all("NOT" in line for line in opening_words(opened.session.parameters.opening, frozenset()).splitlines()[1:])
    assert "pinned" not in opening_words(opened.session.parameters.opening, None)


def test_an_authority_is_described_with_its_attestors(cards, monkeypatch):
    preparing(monkeypatch)
    opened = plan("--authority", str(authority_card()))
    shown = describe_session(opened.session, opened.merging)
    assert "2 of 2 attestors" in dict(shown.rows)["opened by"]
    assert dict(shown.rows)["deadlines"].startswith("commit 3600 s, upload")
    assert shown.value["opening"]["kind"] == "authority"
    authority = opened.session.parameters.opening
    assert opener_identities(authority) == {authority.identity}
    assert "NOT pinned" in opening_words(authority, frozenset(ATTESTORS))


def test_openers_are_pinned_when_a_client_is_set_up(shell):  # noqa: F811
    other = "44" * 32
    code, out, _ = shell(
        "client", "init", "client.toml", *EXPLICIT, "--opener", KEY, "--opener", other, "--format", "json"
    )
    assert (code, json.loads(out)["openers"]) == (0, 2)
    assert ClientConfig.load(Path("client.toml")).openers == {bytes.fromhex(KEY), bytes.fromhex(other)}
    assert shell.refusal("client", "init", "c.toml", *EXPLICIT, "--opener", "12")[:2] == (2, "usage")
    argv = ("session", "list", "--config", "client.toml", "--opener", KEY)
    assert "exclude each other" in shell.refusal(*argv)[3]


def test_missing_encryption_is_a_configuration_error_that_says_what_to_install():
    found = failures.describe(HeUnavailableError())
    assert isinstance(HeUnavailableError(), failures.known_errors())
    assert (found.kind, found.reason, found.code) == ("config", "HE_UNAVAILABLE", ExitCode.UNUSABLE_INPUT)
    assert 'pip install "secagg-lora[he]"' in found.message


@pytest.mark.parametrize("phase", ["commit", "masked-input", "hold-shares", "open-sum"])
def test_every_phase_of_a_one_shot_session_can_be_ended(phase, operator):  # noqa: F811
    argv = ("session", "end-phase", "33" * 16, phase, "--config", "c/coordinator.toml")
    assert operator.refusal(*argv)[:3] == (3, "transport", "UNREACHABLE")


class FakeParticipation(OneShotParticipation):
    """A contribution that was delivered; it says what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def delivered(self) -> None:
        self.asked.append("delivered")

    async def result(self) -> str:
        self.asked.append("result")
        return "the sum"


class FakeKeeper:
    saved = 0

    def save(self) -> None:
        self.saved += 1


def run_to_end(coroutine):
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_a_contributor_leaves_after_delivery_unless_the_result_is_asked_for():
    leaves, keeper = FakeParticipation(), FakeKeeper()
    assert run_to_end(_taken_part(leaves, keeper, _Until.DELIVERED)) is None
    assert (leaves.asked, keeper.saved) == (["delivered"], 1)
    stays = FakeParticipation()
    assert run_to_end(_taken_part(stays, keeper, _Until.PUBLISHED)) == "the sum"
    assert stays.asked == ["delivered", "result"]
