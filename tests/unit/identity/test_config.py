"""Configuration files: strict in, commented out."""

from __future__ import annotations

import asyncio
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.identity.address import Address
from secagg.identity.config import (
    ClientConfig,
    CoordinatorConfig,
    CoordinatorLimits,
    PolicyConfig,
    ReflectionAudience,
)
from secagg.identity.errors import ConfigError, IdentityFileError, TlsError, TlsRefusal
from secagg.identity.tls import CertificateAuthority, LoopbackPlaintext, ServerTls, create_certificate
from secagg.identity.transport import AuthorityFile, PinnedFingerprint, Plaintext, TlsFiles

PIN = "ab" * 32
COORDINATOR = """
state_directory = "state"
key_file = "coordinator.key"
[tls]
certificate = "tls.crt"
private_key = "tls.key"
"""
CLIENT = f"""
coordinator = "agg.example.org:7443"
coordinator_key = "{"01" * 32}"
identity_key_file = "identity.key"
state_directory = "state"
[tls]
fingerprint = "{PIN}"
"""
EVERYTHING = CoordinatorConfig(
    state_directory=Path('/srv/"odd" \\ \t\u00e9\x7f'),
    key_file=Path("/k"),
    transport=TlsFiles(Path("c"), Path("k"), Path("ca")),
    listen=Address("::1", 1),
    limits=CoordinatorLimits(10, 11, 9),
    retention_s=0,
    expose_reflection=ReflectionAudience.EVERYONE,
)
CLIENT_EVERYTHING = ClientConfig(
    coordinator=Address("10.0.0.1", 443),
    coordinator_key=bytes(32),
    identity_key_file=Path("i"),
    state_directory=Path("s"),
    transport=AuthorityFile(Path("ca.pem")),
    policy=PolicyConfig(40, Fraction(1, 3), frozenset({bytes(32), b"r" * 32}), frozenset({b"m" * 32})),
)


def edited(text, **keys):
    """``text`` with top keys replaced, added, or (None) removed; values are TOML."""
    lines = [line for line in text.strip().splitlines() if line.split(" = ")[0] not in keys]
    return "\n".join([f"{key} = {value}" for key, value in keys.items() if value is not None] + lines)


def refused(kind, text, key):
    with pytest.raises(ConfigError) as caught:
        kind.from_toml(text)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
    return caught.value.reason


def test_what_is_not_said_has_the_documented_default():
    config = CoordinatorConfig.from_toml(COORDINATOR)
    assert str(config.listen) == "127.0.0.1:7443"
    assert config.limits == CoordinatorLimits(4096, 4294967296, 2000)
    assert config.retention_s == 2592000
    assert config.expose_reflection is ReflectionAudience.OPERATOR
    assert config.transport == TlsFiles(Path("tls.crt"), Path("tls.key"), None)
    client = ClientConfig.from_toml(CLIENT)
    assert client.policy == PolicyConfig(3, Fraction(1, 10), frozenset(), frozenset())
    assert client.transport == PinnedFingerprint(PIN)
    assert client.coordinator_key == b"\x01" * 32


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        CoordinatorConfig.from_toml(COORDINATOR),
        CoordinatorConfig(Path("s"), Path("k"), Plaintext()),
        CLIENT_EVERYTHING,
        ClientConfig.from_toml(CLIENT),
        ClientConfig(Address("localhost", 1), bytes(32), Path("i"), Path("s"), Plaintext()),
    ],
)
def test_what_is_written_reads_back_equal_and_is_commented(config):
    text = config.to_toml()
    assert type(config).from_toml(text) == config
    assert text.startswith("# ")
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_key_is_documented_and_written():
    for config in (EVERYTHING, CLIENT_EVERYTHING):
        written = tomllib.loads(config.to_toml())
        keys = {f"{t}.{k}" for t, v in written.items() if isinstance(v, dict) for k in v}
        keys |= {key for key, value in written.items() if not isinstance(value, dict)}
        documented = {
            line.split()[0]
            for line in type(config).__doc__.splitlines()
            if line[4:5].strip() and "  " in line[4:].strip()
        }
        assert keys - documented == set()


@pytest.mark.parametrize("key", ["state_directory", "key_file"])
def test_a_missing_key_of_a_coordinator_is_named(key):
    assert refused(CoordinatorConfig, edited(COORDINATOR, **{key: None}), key) == "missing"


@pytest.mark.parametrize("key", ["coordinator", "coordinator_key", "identity_key_file", "state_directory"])
def test_a_missing_key_of_a_client_is_named(key):
    assert refused(ClientConfig, edited(CLIENT, **{key: None}), key) == "missing"


def test_an_unknown_key_is_named_with_its_table():
    assert refused(CoordinatorConfig, edited(COORDINATOR, lisen='"a"'), "lisen") == "unknown key"
    refused(CoordinatorConfig, COORDINATOR + "cipher = 1", "tls.cipher")
    refused(CoordinatorConfig, COORDINATOR + "[limits]\nmax_rpcs = 1", "limits.max_rpcs")
    refused(CoordinatorConfig, COORDINATOR + "[policy]\n", "policy")
    refused(ClientConfig, edited(CLIENT, listen='"a"'), "listen")
    refused(ClientConfig, CLIENT + "verify = false", "tls.verify")
    refused(ClientConfig, CLIENT + "[policy]\nmax_corrupt = 1", "policy.max_corrupt")


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
        ("retention_s", "-1"),
        ("retention_s", "316224001"),
        ("retention_s", "1.5"),
        ("retention_s", "true"),
        ("retention_s", '"1"'),
        ("expose_reflection", "true"),
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
def test_each_wrong_value_of_a_coordinator_is_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        CoordinatorConfig.from_toml(edited(COORDINATOR, **{key: value}))
    assert caught.value.key.split(".")[0] == key


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
        ("policy", '{ registrars = "ab" }'),
        ("policy", '{ registrars = ["ab"] }'),
        ("policy", "{ registrars = [1] }"),
        ("policy", f'{{ base_models = ["{PIN}", ""] }}'),
        ("policy", f"{{ base_models = [{', '.join(repr(f'{i:064x}') for i in range(1025))}] }}"),
    ],
)
def test_each_wrong_value_of_a_client_is_refused(key, value):
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
    for kind, text in ((CoordinatorConfig, COORDINATOR), (ClientConfig, CLIENT)):
        assert refused(kind, text.split("[tls]")[0], "tls") == "missing"
        refused(kind, edited(text, transport='"loopback-plaintext"'), "tls")


def test_plaintext_is_refused_beyond_loopback():
    text = edited(COORDINATOR.split("[tls]", 1)[0], transport='"loopback-plaintext"')
    assert CoordinatorConfig.from_toml(text).transport == Plaintext()
    refused(CoordinatorConfig, edited(text, listen='"0.0.0.0:7443"'), "listen")
    client = edited(CLIENT.split("[tls]", 1)[0], transport='"loopback-plaintext"')
    refused(ClientConfig, client, "coordinator")
    local = ClientConfig.from_toml(edited(client, coordinator='"[::1]:7443"'))
    assert local.client_tls(1) == LoopbackPlaintext(Address("::1", 7443))


@pytest.mark.parametrize("text", ["=", "a = ", "[tls]\n[tls]", "a = " + "[" * 50_000, "a = " + "9" * 5000, "a = \x00"])
def test_what_is_not_toml_is_refused(text):
    for kind in (CoordinatorConfig, ClientConfig):
        refused(kind, text, "file")


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "coordinator.toml").write_text(COORDINATOR)
    monkeypatch.chdir(tmp_path.parent)
    config = CoordinatorConfig.load(Path(tmp_path.name) / "coordinator.toml")
    assert config.state_directory == tmp_path / "state"
    assert config.transport == TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", None)
    assert CoordinatorConfig.from_toml(config.to_toml()) == config
    (tmp_path / "client.toml").write_text(CLIENT.replace('"identity.key"', '"/etc/identity.key"'))
    client = ClientConfig.load(tmp_path / "client.toml")
    assert (client.identity_key_file, client.state_directory) == (Path("/etc/identity.key"), tmp_path / "state")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(IdentityFileError):
        ClientConfig.load(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(IdentityFileError):
        ClientConfig.load(tmp_path / "large.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        ClientConfig.load(tmp_path / "latin.toml")


def test_a_path_that_cannot_be_written_down_is_refused():
    for path in (Path("a\udcff"), Path("x" * 5000), Path("a\0b")):
        with pytest.raises(ConfigError):
            CoordinatorConfig(path, Path("k"), Plaintext())


def test_a_configuration_opens_its_transport(tmp_path):
    files = create_certificate(tmp_path, ["127.0.0.1"], 2_000_000_000, 30)
    (tmp_path / "coordinator.toml").write_text(COORDINATOR)
    transport = CoordinatorConfig.load(tmp_path / "coordinator.toml").server_transport()
    assert isinstance(transport, ServerTls)
    assert transport.certificate_chain == files.certificate.read_bytes()
    plain = CoordinatorConfig(Path("s"), Path("k"), Plaintext())
    assert plain.server_transport() == LoopbackPlaintext(plain.listen)
    client = ClientConfig(Address("127.0.0.1", 1), bytes(32), Path("i"), Path("s"), AuthorityFile(files.certificate))
    assert client.client_tls(1) == CertificateAuthority(transport.certificate_chain)


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
    "limits",
    "x",
]
TOML_VALUES = st.recursive(
    st.sampled_from(["1", "-1", "true", "1.5", "nan", '""', '"tls"', '"127.0.0.1:1"', f'"{PIN}"', "1979-05-27", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from([*KEYS, "certificate", "fingerprint", "registrars"]), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{k} = {v}" for k, v in table.items()) + "}"
        )
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


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50))
def test_any_path_in_unicode_survives_being_written(name):
    config = CoordinatorConfig(Path(name), Path("k"), TlsFiles(Path("c"), Path(name)))
    assert CoordinatorConfig.from_toml(config.to_toml()) == config
