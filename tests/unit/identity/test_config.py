"""Configuration files of coordinators: strict in, commented out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.crypto.notes import witness_key
from secagg.identity.address import Address
from secagg.identity.config import CoordinatorConfig, CoordinatorLimits, LogConfig, ReflectionAudience
from secagg.identity.errors import ConfigError, IdentityFileError
from secagg.identity.tls import LoopbackPlaintext, ServerTls, create_certificate
from secagg.identity.transport import Plaintext, TlsFiles
from secagg.transcript.policy import LogPolicy, WitnessRule
from tests.unit.identity.config_texts import COORDINATOR, edited, keys_without_a_word, refused

LOG = LogConfig("aggregator.example/secagg")
EVERYTHING = CoordinatorConfig(
    state_directory=Path('/srv/"odd" \\ \t\u00e9\x7f'),
    key_file=Path("/k"),
    transport=TlsFiles(Path("c"), Path("k"), Path("ca")),
    log=LogConfig("log.example/\u00fc", Path('odd "name".policy')),
    record_directory=Path("/srv/www/record"),
    listen=Address("::1", 1),
    limits=CoordinatorLimits(10, 11, 9),
    retention_s=0,
    expose_reflection=ReflectionAudience.EVERYONE,
    ingest_processes=3,
)
WITNESS = WitnessRule("w", witness_key("witness.example", bytes(31) + b"\x01"), "http://127.0.0.1:1")


def test_what_is_not_said_has_the_documented_default():
    config = CoordinatorConfig.from_toml(COORDINATOR)
    assert str(config.listen) == "127.0.0.1:7443"
    assert config.limits == CoordinatorLimits(4096, 4294967296, 2000)
    assert config.retention_s == 2592000
    assert config.expose_reflection is ReflectionAudience.OPERATOR
    assert config.ingest_processes == 0
    assert config.transport == TlsFiles(Path("tls.crt"), Path("tls.key"), None)
    assert config.record_directory == Path("record")
    assert config.log == LogConfig("aggregator.example/secagg", None)


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        CoordinatorConfig.from_toml(COORDINATOR),
        CoordinatorConfig(Path("s"), Path("k"), Plaintext(), LOG),
    ],
)
def test_what_is_written_reads_back_equal_and_is_commented(config):
    text = config.to_toml()
    assert CoordinatorConfig.from_toml(text) == config
    assert text.startswith("# ")
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_key_is_documented_and_written():
    assert keys_without_a_word(EVERYTHING) == set()


@pytest.mark.parametrize("key", ["state_directory", "key_file"])
def test_a_missing_key_is_named(key):
    assert refused(CoordinatorConfig, edited(COORDINATOR, **{key: None}), key) == "missing"


def test_a_log_needs_a_name():
    assert refused(CoordinatorConfig, edited(COORDINATOR, log=None), "log.origin") == "missing"
    assert refused(CoordinatorConfig, edited(COORDINATOR, log="{}"), "log.origin") == "missing"


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "a\\nb", "\\u00a0", "x" * 5000])
def test_a_name_that_no_note_could_have_is_refused(origin):
    refused(CoordinatorConfig, edited(COORDINATOR, log=f'{{ origin = "{origin}" }}'), "log.origin")


def test_an_unknown_key_is_named_with_its_table():
    assert refused(CoordinatorConfig, edited(COORDINATOR, lisen='"a"'), "lisen") == "unknown key"
    refused(CoordinatorConfig, COORDINATOR + "cipher = 1", "tls.cipher")
    refused(CoordinatorConfig, COORDINATOR + "[limits]\nmax_rpcs = 1", "limits.max_rpcs")
    refused(CoordinatorConfig, COORDINATOR + "[policy]\n", "policy")
    refused(CoordinatorConfig, edited(COORDINATOR, log='{ origin = "a", key = "b" }'), "log.key")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "7443"),
        ("listen", '"7443"'),
        ("listen", '"0.0.0.0"'),
        ("state_directory", "1"),
        ("state_directory", '""'),
        ("state_directory", '"a\\u0000b"'),
        ("state_directory", '"' + "x" * 4097 + '"'),
        ("key_file", '["a"]'),
        ("transport", '"plaintext"'),
        ("transport", "false"),
        ("record_directory", "1"),
        ("record_directory", '""'),
        ("log", "1"),
        ("log", '"aggregator.example/secagg"'),
        ("log", "{ origin = 1 }"),
        ("log", '{ origin = "a", witnesses = 1 }'),
        ("log", '{ origin = "a", witnesses = "" }'),
        ("retention_s", "-1"),
        ("retention_s", "316224001"),
        ("retention_s", "1.5"),
        ("retention_s", "true"),
        ("retention_s", '"1"'),
        ("expose_reflection", "true"),
        ("ingest_processes", "-1"),
        ("ingest_processes", "65"),
        ("ingest_processes", '"2"'),
        ("expose_reflection", '"all"'),
        ("limits", "3"),
        ("limits", "{ max_concurrent_rpcs = 0 }"),
        ("limits", "{ max_upload_bytes = 0 }"),
        ("limits", "{ max_upload_bytes = 1099511627777 }"),
        ("limits", "{ max_watchers = -1 }"),
        ("limits", "{ max_watchers = true }"),
        ("limits", "{ max_watchers = 100, max_concurrent_rpcs = 100 }"),
    ],
)
def test_each_wrong_value_is_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        CoordinatorConfig.from_toml(edited(COORDINATOR, **{key: value}))
    assert caught.value.key.split(".")[0] == key


def test_nothing_but_the_word_for_it_gives_plaintext():
    assert refused(CoordinatorConfig, COORDINATOR.split("[tls]")[0], "tls") == "missing"
    refused(CoordinatorConfig, edited(COORDINATOR, transport='"loopback-plaintext"'), "tls")


def test_plaintext_is_refused_beyond_loopback():
    text = edited(COORDINATOR.split("[tls]", 1)[0], transport='"loopback-plaintext"')
    assert CoordinatorConfig.from_toml(text).transport == Plaintext()
    refused(CoordinatorConfig, edited(text, listen='"0.0.0.0:7443"'), "listen")


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    witnessed = edited(COORDINATOR, log='{ origin = "a", witnesses = "log.policy" }')
    (tmp_path / "coordinator.toml").write_text(witnessed)
    monkeypatch.chdir(tmp_path.parent)
    config = CoordinatorConfig.load(Path(tmp_path.name) / "coordinator.toml")
    assert config.state_directory == tmp_path / "state"
    assert config.record_directory == tmp_path / "record"
    assert config.transport == TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", None)
    assert config.log == LogConfig("a", tmp_path / "log.policy")
    assert CoordinatorConfig.from_toml(config.to_toml()) == config


def test_a_path_that_cannot_be_written_down_is_refused():
    for path in (Path("a\udcff"), Path("x" * 5000), Path("a\0b")):
        for build in (
            lambda path: CoordinatorConfig(path, Path("k"), Plaintext(), LOG),
            lambda path: CoordinatorConfig(Path("s"), Path("k"), Plaintext(), LOG, path),
            lambda path: LogConfig("a", path),
        ):
            with pytest.raises(ConfigError):
                build(path)


def test_a_log_without_a_policy_file_asks_nobody():
    assert LOG.policy() == LogPolicy.without_witnesses()


def test_the_witnesses_of_a_log_are_those_in_the_file(tmp_path):
    file = tmp_path / "log.policy"
    policy = LogPolicy((), (WITNESS,), (), "w")
    file.write_text(policy.to_text())
    assert LogConfig("a", file).policy() == policy


@pytest.mark.parametrize("text", ["quorum", "witness w not-a-key\nquorum w\n", "quorum nobody\n", "\x00"])
def test_a_policy_file_that_does_not_parse_is_refused_by_its_name(tmp_path, text):
    file = tmp_path / "log.policy"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        LogConfig("a", file).policy()
    assert caught.value.key == str(file)


def test_a_policy_file_that_is_not_there_is_refused_and_never_read_as_no_witnesses(tmp_path):
    with pytest.raises(IdentityFileError):
        LogConfig("a", tmp_path / "gone.policy").policy()
    (tmp_path / "large.policy").write_bytes(b"#" * 70_000)
    with pytest.raises(IdentityFileError):
        LogConfig("a", tmp_path / "large.policy").policy()


def test_a_configuration_opens_its_transport(tmp_path):
    files = create_certificate(tmp_path, ["127.0.0.1"], 2_000_000_000, 30)
    (tmp_path / "coordinator.toml").write_text(COORDINATOR)
    transport = CoordinatorConfig.load(tmp_path / "coordinator.toml").server_transport()
    assert isinstance(transport, ServerTls)
    assert transport.certificate_chain == files.certificate.read_bytes()
    plain = CoordinatorConfig(Path("s"), Path("k"), Plaintext(), LOG)
    assert plain.server_transport() == LoopbackPlaintext(plain.listen)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50))
def test_any_path_in_unicode_survives_being_written(name):
    log = LogConfig("a", Path(name))
    config = CoordinatorConfig(Path(name), Path("k"), TlsFiles(Path("c"), Path(name)), log, Path(name))
    assert CoordinatorConfig.from_toml(config.to_toml()) == config


def test_ingest_processes_listen_on_the_ports_after_that_of_the_service():
    config = CoordinatorConfig.from_toml(edited(COORDINATOR, listen='"127.0.0.1:7443"', ingest_processes="2"))
    assert [str(config.ingest_listen(place)) for place in range(2)] == ["127.0.0.1:7444", "127.0.0.1:7445"]
    free = CoordinatorConfig.from_toml(edited(COORDINATOR, listen='"127.0.0.1:0"', ingest_processes="2"))
    assert {free.ingest_listen(place).port for place in range(2)} == {0}
    beyond = edited(COORDINATOR, listen='"127.0.0.1:65534"', ingest_processes="2")
    assert "no ports" in refused(CoordinatorConfig, beyond, "ingest_processes")
