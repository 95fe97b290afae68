"""The session: a coordinator of its own, started as an operator starts it, and contributors over gRPC and TLS."""

import asyncio
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from own_coordinator import CALL_S, ServiceError, secagg, serving

from secagg.client import Result, connect
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.roster_file import add_members, sign_roster
from secagg.identity.tls import PinnedCertificate, fetch_pinned_certificate
from secagg.protocol.session import ClientPolicy, PrivacyAllowance


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator asks of the session, and what it may cost each contributor."""

    epsilon: str
    delta: str
    clip_norm: Fraction
    min_contributors: int
    max_corrupt: int

    def options(self) -> list[str]:
        """Of ``secagg session open``."""
        pairs = {
            # All start from one public adapter of one rank: their factors can be averaged, and are small.
            "--merge": "factors",
            "--min-contributors": self.min_contributors,
            "--max-corrupt": self.max_corrupt,
            "--clip-norm": self.clip_norm,
            "--dp-epsilon": self.epsilon,
            "--dp-delta": self.delta,
        }
        return [str(word) for pair in pairs.items() for word in pair]

    def policy(self, registrar: bytes) -> ClientPolicy:
        """What every contributor insists on; its own ledger allows one session like this, not two."""
        return ClientPolicy(
            min_contributors=self.min_contributors,
            registrars=frozenset({registrar}),
            allowance=PrivacyAllowance(Fraction(self.epsilon), Fraction(self.delta)),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """Where the coordinator serves and how contributors know it."""

    address: str
    key: bytes
    tls: PinnedCertificate
    session: bytes
    policy: ClientPolicy


@dataclass(frozen=True, slots=True)
class Outcome:
    """The published sum, what ``session open`` printed, and what contributors alone know: their norms."""

    result: Result
    described: dict[str, Any]
    norms: list[float]


async def run_session(adapters: list[Path], example: Path, terms: Terms, out: Path, private: Path) -> Outcome:
    """One session in which these adapters are added up.

    Args:
        adapters: one of each contributor.
        example: any adapter of that shape; only names, shapes and rank of it go into the session.
        terms: what the operator asks for.
        out: where the merged adapter, the record and its auditor's policy go.
        private: where keys, ledgers and stores are.
    """
    home, roster = private / "aggregator", private / "roster"
    made = await secagg(
        *("coordinator", "init", str(home), "--listen", "127.0.0.1:0"),
        *("--origin", "aggregator.example/secagg", "--no-passphrase"),
    )
    registrar, *identities = (SigningKey(Secret(SystemRng().bytes(32))) for _ in range(len(adapters) + 1))
    add_members(roster, [(identity.public_bytes, "") for identity in identities])
    sign_roster(roster, registrar)
    async with serving(Path(made["config"]), private / "coordinator.log") as service:
        described = await secagg(
            *("session", "open", "--config", made["config"], "--roster", str(roster), "--adapter", str(example)),
            *terms.options(),
        )
        fingerprint, port = made["tls_fingerprint"], service["port"]
        pinned = await asyncio.to_thread(fetch_pinned_certificate, "127.0.0.1", port, fingerprint, CALL_S)
        where = Where(
            f"127.0.0.1:{port}",
            bytes.fromhex(made["coordinator_key"]),
            PinnedCertificate(*pinned),
            bytes.fromhex(described["session"]),
            terms.policy(registrar.public_bytes),
        )
        states = private / "contributors"
        found = await asyncio.gather(
            *(contribute(where, *each, states) for each in zip(adapters, identities, strict=True))
        )
    result = found[0][0]
    result.write_adapter(out / "merged")
    shutil.copytree(home / "record", out / "record")
    _write_policy(out, made["log_line"], registrar.public_bytes, terms)
    return Outcome(result, described, [norm for _, norm in found])


async def contribute(where: Where, adapter: Path, identity: SigningKey, states: Path) -> tuple[Result, float]:
    """What one contributor does: take part to the end; the checked sum, and the norm of its own adapter."""
    async with await connect(where.address, where.key, where.tls, timeout_s=CALL_S) as coordinator:
        participation = await coordinator.contribute(where.session, adapter, identity, states, where.policy)
        result = await participation.result()
    if participation.encoding is None:
        raise ServiceError("a contribution was never encoded")
    return result, participation.encoding.norm


def _write_policy(out: Path, log_line: str, registrar: bytes, terms: Terms) -> None:
    """What an auditor trusts and demands: a log without witnesses, and Skellam noise."""
    (out / "policy").write_text(f"{log_line}\nquorum none\n", encoding="utf-8")
    epsilon, delta = (f"{value.numerator}/{value.denominator}" for value in map(Fraction, (terms.epsilon, terms.delta)))
    lines = [
        'log_policy = "policy"',
        f'[registrar]\nkeys = ["{registrar.hex()}"]',
        f"[session]\nmin_contributors = {terms.min_contributors}",
        f'[noise]\nmechanism = "skellam"\nepsilon = "{epsilon}"\ndelta = "{delta}"',
    ]
    (out / "policy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
