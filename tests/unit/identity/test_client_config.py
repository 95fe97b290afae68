"""Configuration files of clients: strict in, commented out; and what no configuration may do."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.crypto.notes import log_key, witness_key
from secagg.identity.address import Address
from secagg.identity.client_config import ClientConfig, PolicyConfig
from secagg.identity.config import CoordinatorConfig
from secagg.identity.errors import ConfigError, IdentityFileError, TlsError, TlsRefusal
from secagg.identity.tls import CertificateAuthority, LoopbackPlaintext, create_certificate
from secagg.identity.transport import AuthorityFile, PinnedFingerprint, Plaintext
from secagg.transcript.policy import LogPolicy, LogRule, WitnessRule
from tests.unit.identity.config_texts import CLIENT, COORDINATOR, PIN, edited, keys_without_a_word, refused

EVERYTHING = ClientConfig(
    coordinator=Address("10.0.0.1", 443),
    coordinator_key=bytes(32),
    identity_key_file=Path("i"),
    state_directory=Path("s"),
    transport=AuthorityFile(Path("ca.pem")),
    policy=PolicyConfig(
        40, Fraction(1, 3), frozenset({bytes(32), b"r" * 32}), frozenset({b"m" * 32}), Path('odd "name".policy')
    ),
    openers=frozenset({bytes(32), b"o" * 32}),
)
POLICY = LogPolicy(
    (LogRule(log_key("aggregator.example/secagg", bytes(31) + b"\x02")),),
    (WitnessRule("w", witness_key("witness.example", bytes(31) + b"\x01")),),
    (),
    "w",
)


def test_what_is_not_said_has_the_documented_default():
    client = ClientConfig.from_toml(CLIENT)
    assert client.policy == PolicyConfig(3, Fraction(1, 10), frozenset(), frozenset(), None)
    assert client.transport == PinnedFingerprint(PIN)
    assert client.coordinator_key == b"\x01" * 32
    assert client.openers == frozenset()


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        ClientConfig.from_toml(CLIENT),
        ClientConfig(Address("localhost", 1), bytes(32), Path("i"), Path("s"), Plaintext()),
    ],
)
def test_what_is_written_reads_back_equal_and_is_commented(config):
    text = config.to_toml()
    assert ClientConfig.from_toml(text) == config
    assert text.startswith("# ")
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_key_is_documented_and_written():
    assert keys_without_a_word(EVERYTHING) == set()


@pytest.mark.parametrize("key", ["coordinator", "coordinator_key", "identity_key_file", "state_directory"])
def test_a_missing_key_is_named(key):
    assert refused(ClientConfig, edited(CLIENT, **{key: None}), key) == "missing"


def test_an_unknown_key_is_named_with_its_table():
    refused(ClientConfig, edited(CLIENT, listen='"a"'), "listen")
    refused(ClientConfig, CLIENT + "verify = false", "tls.verify")
    refused(ClientConfig, CLIENT + "[policy]\nmax_corrupt = 1", "policy.max_corrupt")
    refused(ClientConfig, CLIENT + "[policy]\nwitnesses = false", "policy.witnesses")
    refused(ClientConfig, CLIENT + "[openers]\nany = true", "openers.any")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("coordinator", '"agg.example.org"'),
        ("coordinator", '"agg.example.org:0"'),
        ("coordinator_key", f'"{"01" * 31}"'),
        ("coordinator_key", f'"{"AB" * 32}"'),
        ("coordinator_key", f'"{"zz" * 32}"'),
        ("identity_key_file", "{}"),
        ("transport", '"none"'),
        ("policy", "{ min_contributors = 1 }"),
        ("policy", "{ min_contributors = 1048577 }"),
        ("policy", '{ min_contributors = "3" }'),
        ("policy", "{ tolerated_corrupt = 0.1 }"),
        ("policy", '{ tolerated_corrupt = "2/20" }'),
        ("policy", '{ tolerated_corrupt = "1/1" }'),
        ("policy", '{ tolerated_corrupt = "3/2" }'),
        ("policy", '{ tolerated_corrupt = "-1/2" }'),
        ("policy", '{ tolerated_corrupt = "1/0" }'),
        ("policy", "{ log = 1 }"),
        ("policy", '{ log = "" }'),
        ("policy", '{ log = ["log.policy"] }'),
        ("policy", '{ registrars = "ab" }'),
        ("policy", '{ registrars = ["ab"] }'),
        ("policy", "{ registrars = [1] }"),
        ("policy", f'{{ base_models = ["{PIN}", ""] }}'),
        ("policy", f"{{ base_models = [{', '.join(repr(f'{i:064x}') for i in range(1025))}] }}"),
        ("openers", f'["{PIN}"]'),
        ("openers", '{ keys = "ab" }'),
        ("openers", '{ keys = ["ab"] }'),
        ("openers", "{ keys = [1] }"),
        ("openers", f"{{ keys = [{', '.join(repr(f'{i:064x}') for i in range(1025))}] }}"),
    ],
)
def test_each_wrong_value_is_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_toml(edited(CLIENT, **{key: value}))
    assert caught.value.key.split(".")[0] == key


def test_a_client_pins_either_a_fingerprint_or_an_authority():
    without = CLIENT.replace(f'fingerprint = "{PIN}"', "")
    refused(ClientConfig, without, "tls")
    refused(ClientConfig, CLIENT + 'ca_file = "ca.pem"', "tls")
    refused(ClientConfig, CLIENT.replace(PIN, PIN[:-1]), "tls.fingerprint")
    refused(ClientConfig, CLIENT.replace(PIN, PIN.upper()), "tls.fingerprint")
    assert ClientConfig.from_toml(without + 'ca_file = "ca.pem"').transport == AuthorityFile(Path("ca.pem"))


def test_nothing_but_the_word_for_it_gives_plaintext():
    assert refused(ClientConfig, CLIENT.split("[tls]")[0], "tls") == "missing"
    refused(ClientConfig, edited(CLIENT, transport='"loopback-plaintext"'), "tls")


def test_plaintext_is_refused_beyond_loopback():
    client = edited(CLIENT.split("[tls]", 1)[0], transport='"loopback-plaintext"')
    refused(ClientConfig, client, "coordinator")
    local = ClientConfig.from_toml(edited(client, coordinator='"[::1]:7443"'))
    assert local.client_tls(1) == LoopbackPlaintext(Address("::1", 7443))


def test_openers_are_read_from_a_table_of_their_own():
    client = ClientConfig.from_toml(f'{CLIENT}[openers]\nkeys = ["{PIN}", "{"cd" * 32}"]\n')
    assert client.openers == {bytes.fromhex(PIN), b"\xcd" * 32}
    refused(ClientConfig, f'{CLIENT}[openers]\nkeys = ["{PIN}", "ab"]\n', "openers.keys[1]")


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    text = CLIENT.replace('"identity.key"', '"/etc/identity.key"') + '[policy]\nlog = "log.policy"\n'
    (tmp_path / "client.toml").write_text(text)
    monkeypatch.chdir(tmp_path.parent)
    client = ClientConfig.load(Path(tmp_path.name) / "client.toml")
    assert (client.identity_key_file, client.state_directory) == (Path("/etc/identity.key"), tmp_path / "state")
    assert client.policy.log == tmp_path / "log.policy"


def test_without_a_policy_file_nobody_is_asked_for():
    assert PolicyConfig().log_policy() == LogPolicy.without_witnesses()


def test_the_log_and_its_witnesses_are_those_in_the_file(tmp_path):
    file = tmp_path / "log.policy"
    file.write_text(POLICY.to_text())
    found = PolicyConfig(log=file).log_policy()
    assert found == POLICY
    assert not found.is_met_by([])


@pytest.mark.parametrize("text", ["quorum", "witness w not-a-key\nquorum w\n", "quorum nobody\n", "\x00"])
def test_a_policy_file_that_does_not_parse_is_refused_by_its_name(tmp_path, text):
    file = tmp_path / "log.policy"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(log=file).log_policy()
    assert caught.value.key == str(file)


def test_a_policy_file_that_is_not_there_is_refused_and_never_read_as_no_witnesses(tmp_path):
    with pytest.raises(IdentityFileError):
        PolicyConfig(log=tmp_path / "gone.policy").log_policy()
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(log=Path("a\0b"))
    assert caught.value.key == "policy.log"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(IdentityFileError):
        ClientConfig.load(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(IdentityFileError):
        ClientConfig.load(tmp_path / "large.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        ClientConfig.load(tmp_path / "latin.toml")


def test_an_authority_is_read_from_its_file(tmp_path):
    files = create_certificate(tmp_path, ["127.0.0.1"], 2_000_000_000, 30)
    client = ClientConfig(Address("127.0.0.1", 1), bytes(32), Path("i"), Path("s"), AuthorityFile(files.certificate))
    assert client.client_tls(1) == CertificateAuthority(files.certificate.read_bytes())


def test_a_pinned_transport_is_fetched_from_the_coordinator():
    async def hang_up(reader, writer):
        writer.close()

    async def scenario():
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            config = ClientConfig(address, bytes(32), Path("i"), Path("s"), PinnedFingerprint(PIN))
            with pytest.raises(TlsError) as caught:
                await asyncio.to_thread(config.client_tls, 5)
            assert caught.value.reason is TlsRefusal.UNREACHABLE

    asyncio.run(scenario())


# Of either kind of file.


@pytest.mark.parametrize("text", ["=", "a = ", "[tls]\n[tls]", "a = " + "[" * 50_000, "a = " + "9" * 5000, "a = \x00"])
def test_what_is_not_toml_is_refused(text):
    for kind in (CoordinatorConfig, ClientConfig):
        refused(kind, text, "file")


KEYS = [
    "listen",
    "state_directory",
    "key_file",
    "transport",
    "coordinator",
    "coordinator_key",
    "retention_s",
    "tls",
    "policy",
    "openers",
    "limits",
    "log",
    "x",
]
TOML_VALUES = st.recursive(
    st.sampled_from(["1", "-1", "true", "1.5", "nan", '""', '"tls"', '"127.0.0.1:1"', f'"{PIN}"', "1979-05-27", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(
            st.sampled_from([*KEYS, "certificate", "fingerprint", "registrars", "keys", "origin"]), inner, max_size=3
        ).map(lambda table: "{" + ", ".join(f"{k} = {v}" for k, v in table.items()) + "}")
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=200)
    | st.dictionaries(st.sampled_from(KEYS), TOML_VALUES).map(
        lambda keys: "\n".join(f"{k} = {v}" for k, v in keys.items())
    )
)
def test_arbitrary_text_gives_only_the_declared_error(text):
    for kind in (CoordinatorConfig, ClientConfig):
        with pytest.raises(ConfigError):
            kind.from_toml(text)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KEYS), TOML_VALUES)
def test_a_value_of_any_type_is_taken_or_refused_with_the_declared_error(key, value):
    for kind, text in ((CoordinatorConfig, COORDINATOR), (ClientConfig, CLIENT)):
        try:
            config = kind.from_toml(edited(text, **{key: value}))
        except ConfigError:
            continue
        assert kind.from_toml(config.to_toml()) == config


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_give_only_the_declared_errors(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)
    for kind in (CoordinatorConfig, ClientConfig):
        with pytest.raises((ConfigError, IdentityFileError)):
            kind.load(path)
