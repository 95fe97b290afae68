"""The configuration of a witness: what it takes, what it refuses, what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from secagg.crypto.notes import log_key, witness_key
from secagg.identity.address import Address
from secagg.identity.errors import ConfigError
from secagg.identity.witness_config import DEFAULT_ADDRESS, WitnessConfig

KEY = bytes(range(32))
LOG = log_key("aggregator.example/log", KEY)
SMALLEST = 'name = "witness.example/w1"\nstate_directory = "state"\nkey_file = "witness.key"\n'
FULL = WitnessConfig(
    "witness.example/w1",
    Path("state"),
    Path("witness.key"),
    Address("192.0.2.1", 80),
    "https://witness.example",
    (LOG, log_key("other.example", KEY)),
)


def test_what_is_left_out_has_its_default():
    config = WitnessConfig.from_toml(SMALLEST)
    assert (config.listen, config.url, config.logs) == (DEFAULT_ADDRESS, "", ())


@pytest.mark.parametrize("config", [FULL, WitnessConfig.from_toml(SMALLEST)], ids=["full", "smallest"])
def test_what_is_written_reads_back_equal(config):
    assert WitnessConfig.from_toml(config.to_toml()) == config


def test_paths_count_from_the_directory_of_the_file(tmp_path):
    (tmp_path / "witness.toml").write_text(FULL.to_toml())
    config = WitnessConfig.load(tmp_path / "witness.toml")
    assert (config.state_directory, config.key_file) == (tmp_path / "state", tmp_path / "witness.key")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('url = "witness.example"', "url"),
        ('url = "http://witness example"', "url"),
        ('listen = "here"', "listen"),
        ('logs = ["nonsense"]', "logs[0]"),
        (f'logs = ["{LOG.to_text()}", "{LOG.to_text()[:-4]}AAA="]', "logs[1]"),
        (f'logs = ["{LOG.to_text()}", "{log_key(LOG.name, bytes(32)).to_text()}"]', "logs"),
        (f'logs = ["{witness_key("w", KEY).to_text()}"]', "logs"),
        ('logs = "one"', "logs"),
        ("verify = false", "verify"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(line, key):
    with pytest.raises(ConfigError) as refused:
        WitnessConfig.from_toml(SMALLEST + line + "\n")
    assert refused.value.key == key


@pytest.mark.parametrize("name", ["two words", "plus+sign", "none"])
def test_a_name_that_policies_or_notes_cannot_hold_is_refused(name):
    with pytest.raises(ConfigError) as refused:
        WitnessConfig.from_toml(SMALLEST.replace("witness.example/w1", name))
    assert refused.value.key == "name"


@pytest.mark.parametrize(
    ("listen", "url", "port", "expected"),
    [
        ("127.0.0.1:80", "", 80, "http://127.0.0.1:80"),
        ("[::1]:0", "", 8080, "http://[::1]:8080"),
        ("127.0.0.1:0", "", 0, ""),
        ("0.0.0.0:80", "", 80, ""),
        ("0.0.0.0:80", "https://witness.example", 80, "https://witness.example"),
    ],
)
def test_the_line_for_policies_has_an_address_only_if_others_can_use_it(listen, url, port, expected):
    config = WitnessConfig("w1", Path("state"), Path("witness.key"), Address.parse(listen), url)
    rule = config.rule(KEY, port)
    assert (rule.name, rule.key, rule.url) == ("w1", witness_key("w1", KEY), expected)
