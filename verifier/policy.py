"""What an auditor trusts and demands: a TOML file that names a policy for logs and adds keys and floors.

Nothing of it ever comes from the record. A key that is not known, or a value of another kind, is refused: a floor
that was misspelt must not be a floor that is not there.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from secagg.transcript.noise import DiscreteGaussianNoise, NoDifferentialPrivacy, SkellamNoise
from secagg.transcript.policy import LogPolicy, PolicyError

MAX_POLICY_BYTES = 1 << 20
MAX_CONTRIBUTORS = 2**28
MAX_AGE_S = 2**40

_KEY = re.compile(r"[0-9a-f]{64}")
_FRACTION = re.compile(r"(0|[1-9][0-9]{0,8})/([1-9][0-9]{0,8})")
_MAX_NUMBER = 40
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?|[0-9]+/[1-9][0-9]*")
_MECHANISMS = (NoDifferentialPrivacy.TYPE, SkellamNoise.TYPE, DiscreteGaussianNoise.TYPE)


_EXAMPLES = {
    "registrar": 'keys = ["<64 hex digits>"]',
    "session": "min_contributors = 3",
    "noise": 'mechanism = "none"',
    "openers": 'keys = ["<64 hex digits>"]',
}
"""What is required in each table, as it could stand there."""


class AuditPolicyError(ValueError):
    """``field`` of a policy file, or the file itself, cannot be used; ``reason`` says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason if reason.startswith("[") else f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SessionFloors:
    """What every session must keep to.

    Attributes:
        min_contributors: the smallest ``min_contributors`` that a session may have opened with.
        tolerated_corrupt: ``max_corrupt`` must be at least this fraction of those who advertised keys.
        base_models: allowed digests of base models; empty allows any.
    """

    min_contributors: int
    tolerated_corrupt: Fraction = Fraction(0)
    base_models: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class PinnedOpeners:
    """Who may open sums of one-shot sessions; whoever is not here counts as corrupt.

    Attributes:
        keys: of members of committees and of key authorities.
        attestors: of those who attest sums of ciphertexts.
    """

    keys: frozenset[bytes] = frozenset()
    attestors: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class PrivacyLimit:
    """What whoever takes part in all sessions of a log may spend at most."""

    epsilon: Fraction
    delta: Fraction


@dataclass(frozen=True, slots=True)
class NoiseDemand:
    """What every session must declare of differential privacy, and what all of a log together may cost.

    Attributes:
        mechanism: none, skellam or discrete-gaussian.
        limit: None for any cost.
    """

    mechanism: str
    limit: PrivacyLimit | None = None


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """The trust roots and floors of an audit.

    Attributes:
        log: logs, witnesses and their quorum.
        registrars: keys that may sign a roster.
        floors: what every session must keep to.
        noise: what sessions must declare of differential privacy.
        max_age_s: how old the newest cosignature may be; None for any age.
        digest: SHA-256 of the TOML file.
        log_digest: SHA-256 of the file of the log policy.
        openers: who may open sums of one-shot sessions.
    """

    log: LogPolicy
    registrars: frozenset[bytes]
    floors: SessionFloors
    noise: NoiseDemand
    max_age_s: int | None
    digest: bytes
    log_digest: bytes
    openers: PinnedOpeners = PinnedOpeners()


def load_policy(path: Path) -> AuditPolicy:
    """The policy in a file; what it names lies relative to it.

    Raises:
        AuditPolicyError: a file cannot be read, or something in it cannot be used.
    """
    data = _read(path, "policy")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise AuditPolicyError("policy", f"not TOML: {error}") from None
    _refuse_unknown("policy", document, {"log_policy", "max_age_s", "registrar", "session", "noise", "openers"})
    log_path = path.parent / _text("log_policy", document.get("log_policy"))
    log_data = _read(log_path, "log_policy")
    registrar = _table("registrar", document, {"keys"})
    keys = frozenset(_digests("registrar.keys", registrar.get("keys")))
    if not keys:
        raise AuditPolicyError("registrar.keys", "none given: a roster counts by who signed it")
    max_age = document.get("max_age_s")
    return AuditPolicy(
        _log_policy(log_path, log_data),
        keys,
        _floors(_table("session", document, {"min_contributors", "tolerated_corrupt", "base_models"})),
        _noise(_table("noise", document, {"mechanism", "epsilon", "delta"})),
        None if max_age is None else _integer("max_age_s", max_age, (1, MAX_AGE_S)),
        hashlib.sha256(data).digest(),
        hashlib.sha256(log_data).digest(),
        _openers(document),
    )


def _noise(table: Mapping[str, object]) -> NoiseDemand:
    mechanism = _text("noise.mechanism", table.get("mechanism"))
    if mechanism not in _MECHANISMS:
        raise AuditPolicyError("noise.mechanism", f"expected one of {', '.join(_MECHANISMS)}")
    if "epsilon" not in table and "delta" not in table:
        return NoiseDemand(mechanism)
    if mechanism == "none":
        raise AuditPolicyError("noise.epsilon", "nothing bounds what sessions without noise show")
    epsilon = _ratio("noise.epsilon", table.get("epsilon"))
    delta = _ratio("noise.delta", table.get("delta"))
    if delta >= 1:
        raise AuditPolicyError("noise.delta", "expected a fraction below 1")
    return NoiseDemand(mechanism, PrivacyLimit(epsilon, delta))


def _read(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise AuditPolicyError(field, f"{path}: {error.strerror or 'cannot be read'}") from None
    if len(data) > MAX_POLICY_BYTES:
        raise AuditPolicyError(field, f"{path}: longer than {MAX_POLICY_BYTES} bytes")
    return data


def _log_policy(path: Path, data: bytes) -> LogPolicy:
    try:
        policy = LogPolicy.parse(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise AuditPolicyError("log_policy", f"{path}: not UTF-8") from None
    except PolicyError as error:
        raise AuditPolicyError("log_policy", f"{path}: {error}") from None
    if not policy.logs:
        raise AuditPolicyError("log_policy", f"{path}: names no log")
    origins = [rule.key.name for rule in policy.logs]
    if len(set(origins)) != len(origins):
        raise AuditPolicyError("log_policy", f"{path}: two logs with one origin")
    return policy


def _floors(table: Mapping[str, object]) -> SessionFloors:
    floor = _integer("session.min_contributors", table.get("min_contributors"), (2, MAX_CONTRIBUTORS))
    models = frozenset(_digests("session.base_models", table.get("base_models", [])))
    tolerated = _fraction("session.tolerated_corrupt", table.get("tolerated_corrupt", "0/1"))
    return SessionFloors(floor, tolerated, models)


def _openers(document: Mapping[str, object]) -> PinnedOpeners:
    """Needed for one-shot sessions only, and so the one table that may be left out."""
    if "openers" not in document:
        return PinnedOpeners()
    table = _table("openers", document, {"keys", "attestors"})
    keys, attestors = (_digests(f"openers.{name}", table.get(name, [])) for name in ("keys", "attestors"))
    return PinnedOpeners(frozenset(keys), frozenset(attestors))


def _table(name: str, document: Mapping[str, object], known: set[str]) -> Mapping[str, object]:
    table = document.get(name)
    if not isinstance(table, dict):
        raise AuditPolicyError(name, f"[{name}] is missing: add [{name}] and {_EXAMPLES[name]}")
    _refuse_unknown(name, table, known)
    return table


def _refuse_unknown(name: str, table: Mapping[str, object], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise AuditPolicyError(f"{name}.{unknown[0]}", f"unknown; known are {', '.join(sorted(known))}")


def _text(field: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        name = field.rsplit(".", maxsplit=1)[-1]
        example = {"log_policy": "policy", "mechanism": "none"}[name]
        raise AuditPolicyError(field, f'missing or not text: add {name} = "{example}"')
    return value


def _integer(field: str, value: object, bounds: tuple[int, int]) -> int:
    least, most = bounds
    if type(value) is not int or not least <= value <= most:
        found = "missing" if value is None else "unusable"
        raise AuditPolicyError(field, f"{found}: expected an integer from {least} to {most}")
    return value


def _fraction(field: str, value: object) -> Fraction:
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) >= int(match[2]):
        raise AuditPolicyError(field, 'expected a fraction below 1, such as "1/10"')
    return Fraction(int(match[1]), int(match[2]))


def _ratio(field: str, value: object) -> Fraction:
    text = str(value) if type(value) in {int, float, str} else ""
    if len(text) > _MAX_NUMBER or _NUMBER.fullmatch(text) is None or not Fraction(text):
        found = "missing: " if value is None else ""
        raise AuditPolicyError(field, f'{found}expected a number above 0, such as 8, 1e-5 or "1/3"')
    return Fraction(text)


def _digests(field: str, value: object) -> list[bytes]:
    if not isinstance(value, list) or not all(isinstance(item, str) and _KEY.fullmatch(item) for item in value):
        raise AuditPolicyError(field, "expected a list of texts of 64 lowercase hex digits")
    return [bytes.fromhex(item) for item in value]
