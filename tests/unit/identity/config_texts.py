"""Configuration files for tests, and what a strict reader says of them."""

from __future__ import annotations

import tomllib

import pytest

from secagg.identity.errors import ConfigError

PIN = "ab" * 32
COORDINATOR = """
state_directory = "state"
key_file = "coordinator.key"
log = { origin = "aggregator.example/secagg" }
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


def keys_without_a_word(config):
    """What a written configuration holds, or documents, and not both."""
    written = tomllib.loads(config.to_toml())
    keys = {f"{t}.{k}" for t, v in written.items() if isinstance(v, dict) for k in v}
    keys |= {key for key, value in written.items() if not isinstance(value, dict)}
    documented = {
        line.split()[0] for line in type(config).__doc__.splitlines() if line[4:5].strip() and "  " in line[4:].strip()
    }
    return keys - documented
