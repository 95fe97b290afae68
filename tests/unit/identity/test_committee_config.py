"""The configuration of a committee member and the cards of institutions: what they take and what they refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from secagg.identity.address import Address
from secagg.identity.cards import AuthorityCard, MemberCard, load_card, read_card
from secagg.identity.committee_config import CommitteeConfig
from secagg.identity.config import ReflectionAudience
from secagg.identity.errors import ConfigError, IdentityFileError
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.identity.transport import Plaintext, TlsFiles
from secagg.transcript.record import RecordError
from tests.support import one_shot

KEY = bytes(range(32)).hex()
SMALLEST = (
    'name = "A"\naddress = "localhost:7445"\nstate_directory = "state"\nkey_file = "committee.key"\n'
    'transport = "loopback-plaintext"\n'
)
FULL = CommitteeConfig(
    name="Institute A",
    address=Address("a.example", 443),
    listen=Address("192.0.2.1", 7445),
    state_directory=Path("state"),
    key_file=Path("committee.key"),
    transport=TlsFiles(Path("tls.crt"), Path("tls.key"), Path("ca.pem")),
    coordinators=frozenset({bytes(32), bytes(range(32))}),
    registrars=frozenset({bytes(31) + b"\x01"}),
    min_contributors=100,
    log_policy=Path("log.policy"),
    expose_reflection=ReflectionAudience.EVERYONE,
)


def test_what_is_left_out_has_its_default():
    config = CommitteeConfig.from_toml(SMALLEST)
    assert (config.listen, config.coordinators, config.registrars) == (
        Address("127.0.0.1", 7445),
        frozenset(),
        frozenset(),
    )
    assert (config.min_contributors, config.log_policy) == (3, None)
    assert (config.transport, config.expose_reflection) == (Plaintext(), ReflectionAudience.NOBODY)
    assert config.policy().quorum == "none"


@pytest.mark.parametrize("config", [FULL, CommitteeConfig.from_toml(SMALLEST)], ids=["full", "smallest"])
def test_what_is_written_reads_back_equal(config):
    assert CommitteeConfig.from_toml(config.to_toml()) == config


def test_paths_count_from_the_directory_of_the_file(tmp_path):
    (tmp_path / "committee.toml").write_text(FULL.to_toml())
    config = CommitteeConfig.load(tmp_path / "committee.toml")
    assert config.log_policy == tmp_path / "log.policy"
    assert config.transport == TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('coordinators = ["nonsense"]', "coordinators[0]"),
        (f'registrars = ["{KEY}", "{KEY[:-2]}"]', "registrars[1]"),
        ('coordinators = "one"', "coordinators"),
        ("min_contributors = 1", "min_contributors"),
        ("min_contributors = 268435457", "min_contributors"),
        ('expose_reflection = "operator"', "expose_reflection"),
        ('expose_reflection = "all"', "expose_reflection"),
        ('listen = "0.0.0.0:7445"', "listen"),
        ('listen = "here"', "listen"),
        ('[tls]\ncertificate = "a"\nprivate_key = "b"', "tls"),
        ("verify = false", "verify"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(line, key):
    with pytest.raises(ConfigError) as refused:
        CommitteeConfig.from_toml(SMALLEST + line + "\n")
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "A"', 'name = ""', "name"),
        ('name = "A"', f'name = "{"x" * 65}"', "name"),
        ('name = "A"', 'name = "a\\tb"', "name"),
        ("localhost:7445", "localhost:0", "address"),
        ("localhost:7445", "a.example:7445", "address"),
        ('key_file = "committee.key"\n', "", "key_file"),
    ],
)
def test_what_is_changed_to_nonsense_is_refused_with_its_key(old, new, key):
    with pytest.raises(ConfigError) as refused:
        CommitteeConfig.from_toml(SMALLEST.replace(old, new))
    assert refused.value.key == key


@pytest.fixture
def pem(tmp_path) -> str:
    return create_certificate(tmp_path, ["a.example"], one_shot.NOW_S, 30).certificate.read_text()


def member_card(pem: str) -> MemberCard:
    return MemberCard.of(one_shot.committee_of().members[0], "a.example:7445", pem)


def authority_card(pem: str) -> AuthorityCard:
    return AuthorityCard("A", bytes(32), "a.example:7446", pem, (bytes(32), bytes(range(32))), 2)


@pytest.mark.parametrize("make", [member_card, authority_card])
def test_a_card_is_one_line_that_reads_back_equal(tmp_path, pem, make):
    card = make(pem)
    (tmp_path / "card").write_bytes(card.to_bytes() + b"\n")
    assert load_card(tmp_path / "card") == card
    assert card.tls() == PinnedCertificate(pem.encode(), "a.example")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sealing_key": bytes(1216)}, "member-card.sealing_key"),
        ({"address": "a.example"}, "member-card.address"),
        ({"address": "A.EXAMPLE:7445"}, "member-card.address"),
        ({"address": "a.example:0"}, "member-card.address"),
        ({"certificate": ""}, "member-card.certificate"),
        ({"certificate": "-----BEGIN"}, "member-card.certificate"),
    ],
)
def test_a_member_that_nobody_could_use_has_no_card(pem, changes, field):
    with pytest.raises(RecordError) as refused:
        dataclasses.replace(member_card(pem), **changes)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"attestors": (bytes(32), bytes(32))}, "authority-card.attestors"),
        ({"attestations": 3}, "authority-card.attestations"),
        ({"certificate": ""}, "authority-card.certificate"),
    ],
)
def test_an_authority_that_nobody_could_use_has_no_card(pem, changes, field):
    with pytest.raises(RecordError) as refused:
        dataclasses.replace(authority_card(pem), **changes)
    assert refused.value.field == field


def test_what_is_no_card_is_refused(tmp_path):
    for data in (b"", b"{}", b"[]", b"x" * 70_000):
        with pytest.raises(RecordError):
            read_card(data)
    (tmp_path / "card").write_text("{}\n")
    with pytest.raises(IdentityFileError):
        load_card(tmp_path / "card")
