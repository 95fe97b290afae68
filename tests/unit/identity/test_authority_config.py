"""The configuration of a key authority: what it takes, what it refuses, what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from secagg.identity.address import Address
from secagg.identity.authority_config import DEFAULT_ADDRESS, AuthorityConfig
from secagg.identity.config import ReflectionAudience
from secagg.identity.errors import ConfigError
from secagg.identity.transport import Plaintext, TlsFiles
from secagg.transcript.policy import LogPolicy

KEYS = [bytes([number]) * 32 for number in range(1, 4)]
SMALLEST = (
    f'name = "Institute A"\naddress = "localhost:7446"\nstate_directory = "state"\nkey_file = "authority.key"\n'
    f'transport = "loopback-plaintext"\nattestors = ["{KEYS[0].hex()}", "{KEYS[1].hex()}"]\n'
)
FULL = AuthorityConfig(
    name="Institute A",
    address=Address("a.example", 443),
    state_directory=Path("state"),
    key_file=Path("authority.key"),
    transport=TlsFiles(Path("tls.crt"), Path("tls.key"), Path("clients.pem")),
    attestors=frozenset(KEYS),
    attestations=2,
    listen=Address("192.0.2.1", 443),
    coordinators=frozenset(KEYS[:1]),
    registrars=frozenset(KEYS[1:2]),
    min_contributors=5,
    log_policy=Path("log.policy"),
    expose_reflection=ReflectionAudience.EVERYONE,
)


def test_what_is_left_out_has_its_default_and_everybody_has_to_attest() -> None:
    config = AuthorityConfig.from_toml(SMALLEST)
    assert (config.listen, config.coordinators, config.registrars) == (DEFAULT_ADDRESS, frozenset(), frozenset())
    assert (config.min_contributors, config.attestations, config.log_policy) == (3, 2, None)
    assert config.transport == Plaintext()
    with pytest.raises(ConfigError) as caught:
        config.policy()
    assert caught.value.key == "log_policy"


def test_a_policy_that_asks_for_no_witness_is_refused(tmp_path: Path) -> None:
    (tmp_path / "authority.toml").write_text(FULL.to_toml())
    (tmp_path / "log.policy").write_text(LogPolicy.without_witnesses().to_text())
    with pytest.raises(ConfigError) as caught:
        AuthorityConfig.load(tmp_path / "authority.toml").policy()
    assert caught.value.key == "log_policy"


@pytest.mark.parametrize("config", [FULL, AuthorityConfig.from_toml(SMALLEST)], ids=["full", "smallest"])
def test_what_is_written_reads_back_equal(config: AuthorityConfig) -> None:
    assert AuthorityConfig.from_toml(config.to_toml()) == config


def test_paths_count_from_the_directory_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "authority.toml").write_text(FULL.to_toml())
    config = AuthorityConfig.load(tmp_path / "authority.toml")
    assert config.state_directory == tmp_path / "state"
    assert config.log_policy == tmp_path / "log.policy"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('listen = "here"', "listen"),
        ('listen = "192.0.2.1:443"', "listen"),
        ("min_contributors = 1", "min_contributors"),
        ("attestations = 0", "attestations"),
        ("attestations = 3", "attestations"),
        ('coordinators = ["nonsense"]', "coordinators[0]"),
        ('registrars = "one"', "registrars"),
        ('expose_reflection = "friends"', "expose_reflection"),
        ('expose_reflection = "operator"', "expose_reflection"),
        ("certify = false", "certify"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(line: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        AuthorityConfig.from_toml(SMALLEST + line + "\n")
    assert refused.value.key == key


@pytest.mark.parametrize("attestors", ["", ", ".join(f'"{bytes([n]).hex() * 32}"' for n in range(17))])
def test_without_attestors_or_with_more_than_a_session_names_there_is_no_authority(attestors: str) -> None:
    text = SMALLEST[: SMALLEST.index("attestors")] + f"attestors = [{attestors}]\n"
    with pytest.raises(ConfigError) as refused:
        AuthorityConfig.from_toml(text)
    assert refused.value.key == "attestors"


@pytest.mark.parametrize("key", ["name", "address"])
def test_a_name_and_a_port_to_connect_to_are_needed(key: str) -> None:
    text = SMALLEST.replace('"Institute A"', '""' if key == "name" else '"A"')
    text = text.replace("localhost:7446", "localhost:0") if key == "address" else text
    with pytest.raises(ConfigError) as refused:
        AuthorityConfig.from_toml(text)
    assert refused.value.key == key
