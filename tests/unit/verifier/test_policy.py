"""The policy file: what it can say, and that nothing misspelt passes for nothing said."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction

import pytest

from tests.support.forge import Forge, key_of
from verifier.policy import (
    AuditPolicyError,
    NoiseDemand,
    PinnedOpeners,
    PrivacyLimit,
    SessionFloors,
    load_policy,
)

KEY = key_of("registrar").public_bytes.hex()
FULL = f"""\
log_policy = "policy"
max_age_s = 86400
[registrar]
keys = ["{KEY}"]
[session]
min_contributors = 3
tolerated_corrupt = "1/10"
base_models = ["{"ab" * 32}"]
[noise]
mechanism = "none"
[openers]
keys = ["{"cd" * 32}", "{"ce" * 32}"]
attestors = ["{"ef" * 32}"]
"""


def load(tmp_path, text, log_policy=None):
    (tmp_path / "policy").write_text(Forge().log_policy().to_text() if log_policy is None else log_policy)
    (tmp_path / "policy.toml").write_text(text)
    return load_policy(tmp_path / "policy.toml")


def test_a_policy_says_whom_to_trust_and_what_to_ask_for(tmp_path):
    policy = load(tmp_path, FULL)
    assert policy.registrars == {bytes.fromhex(KEY)}
    assert policy.floors == SessionFloors(3, Fraction(1, 10), frozenset({b"\xab" * 32}))
    assert (policy.noise.mechanism, policy.max_age_s) == ("none", 86400)
    assert policy.openers == PinnedOpeners(frozenset({b"\xcd" * 32, b"\xce" * 32}), frozenset({b"\xef" * 32}))
    assert policy.log == Forge().log_policy()
    assert policy.digest == hashlib.sha256(FULL.encode()).digest()
    assert policy.log_digest == hashlib.sha256((tmp_path / "policy").read_bytes()).digest()


NOISY = FULL.replace('mechanism = "none"', 'mechanism = "skellam"\nepsilon = "17/2"\ndelta = "1/100000"')


def test_a_policy_can_ask_for_noise_and_limit_what_all_sessions_cost(tmp_path):
    assert load(tmp_path, NOISY).noise == NoiseDemand("skellam", PrivacyLimit(Fraction(17, 2), Fraction(1, 100_000)))
    assert load(tmp_path, FULL.replace('"none"', '"skellam"')).noise == NoiseDemand("skellam")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('epsilon = "17/2"', "", "noise.epsilon"),
        ('epsilon = "17/2"', "epsilon = inf", "noise.epsilon"),
        ('epsilon = "17/2"', 'epsilon = "8.5.1"', "noise.epsilon"),
        ('epsilon = "17/2"', 'epsilon = "0/1"', "noise.epsilon"),
        ('epsilon = "17/2"', 'epsilon = "-1/2"', "noise.epsilon"),
        ('epsilon = "17/2"', 'epsilon = "1e999"', "noise.epsilon"),
        ('delta = "1/100000"', "", "noise.delta"),
        ('delta = "1/100000"', 'delta = "1/1"', "noise.delta"),
        ('delta = "1/100000"', 'delta = "0/1"', "noise.delta"),
        ('delta = "1/100000"', 'delta = "1/0"', "noise.delta"),
        ('mechanism = "skellam"', 'mechanism = "none"', "noise.epsilon"),
        ("epsilon", "epsilom", "noise.epsilom"),
    ],
)
def test_a_limit_on_epsilon_that_cannot_be_used_is_refused_by_name(tmp_path, old, new, field):
    assert old in NOISY
    with pytest.raises(AuditPolicyError) as refused:
        load(tmp_path, NOISY.replace(old, new))
    assert refused.value.field == field


def test_floors_but_the_smallest_number_of_contributors_may_be_left_out(tmp_path):
    lines = [line for line in FULL.splitlines() if not line.startswith(("max_age_s", "tolerated", "base_models"))]
    policy = load(tmp_path, "\n".join(lines))
    assert policy.floors == SessionFloors(3, Fraction(0), frozenset())
    assert policy.max_age_s is None


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[noise]", "[nose]", "policy.nose"),
        ("min_contributors", "min_contributor", "session.min_contributor"),
        ("min_contributors = 3", "", "session.min_contributors"),
        ("min_contributors = 3", "min_contributors = true", "session.min_contributors"),
        ("min_contributors = 3", 'min_contributors = "3"', "session.min_contributors"),
        ("min_contributors = 3", "min_contributors = 1", "session.min_contributors"),
        ('"1/10"', '"1/1"', "session.tolerated_corrupt"),
        ('"1/10"', '"10%"', "session.tolerated_corrupt"),
        ('"1/10"', "0.1", "session.tolerated_corrupt"),
        ('["abab', '["ab', "session.base_models"),
        (f'["{KEY}"]', "[]", "registrar.keys"),
        (f'["{KEY}"]', f'"{KEY}"', "registrar.keys"),
        (KEY, KEY.upper(), "registrar.keys"),
        ("keys = ", "key = ", "registrar.key"),
        ("86400", "0", "max_age_s"),
        ("86400", "1.5", "max_age_s"),
        ('log_policy = "policy"', "", "log_policy"),
        ('log_policy = "policy"', 'log_policy = "missing"', "log_policy"),
        ('mechanism = "none"', "", "noise.mechanism"),
        ('mechanism = "none"', 'mechanism = "None!"', "noise.mechanism"),
        ("[session]", "[session", "policy"),
        ("[openers]", "[opener]", "policy.opener"),
        ("attestors = ", "attestor = ", "openers.attestor"),
        ("attestors = ", "quorum = 1\nattestors = ", "openers.quorum"),
        ('["cdcd', '["cd', "openers.keys"),
        ('["efef', '["EFef', "openers.attestors"),
        ("[openers]", "openers = 1\n[other]", "policy.other"),
        ("[registrar]", "[registrar]\nsecret = 1", "registrar.secret"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, old, new, field):
    assert old in FULL
    with pytest.raises(AuditPolicyError) as refused:
        load(tmp_path, FULL.replace(old, new))
    assert refused.value.field == field


def test_a_table_that_is_missing_is_refused(tmp_path):
    blocks = re.split(r"(?m)^(?=\[)", FULL)
    # The last is of those who open one-shot sessions, and may be left out.
    assert blocks[-1].startswith("[openers]")
    assert load(tmp_path, "".join(blocks[:-1])).openers == PinnedOpeners()
    for missing in blocks[1:-1]:
        with pytest.raises(AuditPolicyError) as refused:
            load(tmp_path, "".join(block for block in blocks if block != missing))
        # What it says to add is a line that it then takes, but for the key.
        table, line = re.fullmatch(r"(\[\w+\]) is missing: add \1 and (.*)", str(refused.value)).groups()
        load(tmp_path, FULL.replace(missing, f"{table}\n{line}\n".replace("<64 hex digits>", KEY)))


@pytest.mark.parametrize("log_policy", ["", "quorum none\n", "nonsense\nquorum none\n", "witness w x\nquorum w\n"])
def test_a_log_policy_that_is_none_or_names_no_log_is_refused(tmp_path, log_policy):
    with pytest.raises(AuditPolicyError) as refused:
        load(tmp_path, FULL, log_policy)
    assert refused.value.field == "log_policy"


def test_two_logs_of_one_origin_are_refused(tmp_path):
    first = Forge().log_policy().logs[0]
    other = type(first.key)(first.key.name, first.key.kind, key_of("other").public_bytes)
    text = first.to_line() + type(first)(other).to_line() + "quorum none\n"
    with pytest.raises(AuditPolicyError, match="two logs with one origin"):
        load(tmp_path, FULL, text)


def test_a_file_that_is_missing_binary_or_too_long_is_refused(tmp_path):
    with pytest.raises(AuditPolicyError):
        load_policy(tmp_path / "none")
    for data in (b"\xff", b"#" * (2 << 20)):
        (tmp_path / "policy.toml").write_bytes(data)
        with pytest.raises(AuditPolicyError):
            load_policy(tmp_path / "policy.toml")
