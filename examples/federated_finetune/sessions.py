"""Merging as strangers do it: a coordinator in a process of its own, its operator's commands, contributors over TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from own_coordinator import CALL_S, ServiceError, secagg, serving, staying

from secagg.client import Coordinator, Result, SessionDetails, connect
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.roster_file import add_members, sign_roster
from secagg.identity.tls import PinnedCertificate, fetch_pinned_certificate
from secagg.lora.fixed import BASIS_FILE
from secagg.protocol.session import ClientPolicy
from secagg.transcript.merge import PilotMerge, admits

LEAST = 3
"""The fewest in a sum where only a part of the roster is: pilots of a small roster are few."""
_DRAWS = 20
_PPM = 10**6


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of one round.

    Attributes:
        sessions: identifiers, hex, in order; the merged adapter is from the last.
        contributors: positions of those in the last sum.
        upload_bytes: of one contributor, in each session.
        estimated_error: from the sums alone; None for strategies without an estimate.
        scaled_down: which part of the contributors was scaled down to the session's norm; None where nobody counts.
    """

    sessions: tuple[str, ...]
    contributors: tuple[int, ...]
    upload_bytes: tuple[int, ...]
    estimated_error: float | None
    scaled_down: float | None


@dataclass(frozen=True)
class Federation:
    """A coordinator that serves, and the contributors on its roster, with a key each.

    ``private`` is where keys and stores of all of them are, which in earnest nobody has in one place.
    """

    config: Path
    address: str
    key: bytes
    tls: PinnedCertificate
    registrar: SigningKey
    identities: tuple[SigningKey, ...]
    private: Path

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.private / "roster"

    @property
    def record(self) -> Path:
        """The public record."""
        return self.config.parent / "record"

    async def merge(self, options: Sequence[str], example: Path, adapters: Sequence[Path], to: Path) -> Merged:
        """One round: open what the options say, contribute the adapters, and write the merged one to ``to``.

        Args:
            options: of ``secagg session open``, of the strategy.
            example: the adapter that the operator shows: its modules; its A, where that is frozen.
            adapters: one of each contributor.
            to: a directory.

        Raises:
            ServiceError: the session could not be opened.
            SessionAbortedError, LocalProtocolError, RemoteProtocolError: as ``secagg.client``.
        """
        opening = (
            *("session", "open", "--config", str(self.config), "--roster", str(self.roster)),
            *("--adapter", str(example), *options),
        )
        for _ in range(_DRAWS):
            async with staying(self.private / "opening.log", *opening) as said, self.connected() as coordinator:
                first = await coordinator.details(bytes.fromhex((await said())["session"]))
                if not self._is_enough(first):
                    continue  # a small roster: the operator leaves the session to its deadline, and draws again
                published = [await self.contribute(first, adapters)]
                if first.merging.files == (BASIS_FILE,):
                    await said()
                    second = await coordinator.second_session_of(first)
                    published.append(await self.contribute(second, adapters))
                return self._merged(published, to)
        raise ServiceError(f"no pilot of at least {LEAST}, with as many others, in {_DRAWS} draws")

    async def contribute(self, details: SessionDetails, adapters: Sequence[Path]) -> Result:
        """All whom a session admits take part to its end; the checked sum."""
        session = details.session.parameters.session
        admitted = self._admitted(details)
        found = await asyncio.gather(*(self._take_part(session, adapters[at], self.identities[at]) for at in admitted))
        return found[0]

    async def _take_part(self, session: bytes, adapter: Path, identity: SigningKey) -> Result:
        policy = ClientPolicy(LEAST, registrars=frozenset({self.registrar.public_bytes}))
        async with self.connected() as coordinator:
            taking = await coordinator.contribute(session, adapter, identity, self.private / "contributors", policy)
            return await taking.result()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Coordinator]:
        """A connection of its own, as each contributor has."""
        async with await connect(self.address, self.key, self.tls, timeout_s=CALL_S) as coordinator:
            yield coordinator

    def _admitted(self, details: SessionDetails) -> list[int]:
        merge = details.session.parameters.merge
        return [at for at, identity in enumerate(self.identities) if admits(merge, identity.public_bytes)]

    def _is_enough(self, first: SessionDetails) -> bool:
        if not isinstance(first.session.parameters.merge, PilotMerge):
            return True
        pilots = len(self._admitted(first))
        return LEAST <= pilots <= len(self.identities) - LEAST

    def _merged(self, published: Sequence[Result], to: Path) -> Merged:
        report = published[-1].write_adapter(to)
        return Merged(
            sessions=tuple(result.details.session.parameters.session.hex() for result in published),
            contributors=tuple(self._admitted(published[-1].details)),
            upload_bytes=tuple(result.details.session.upload_bytes for result in published),
            estimated_error=None if report is None else report.error_ppm / _PPM,
            scaled_down=None if report is None else report.scaled_down_ppm / _PPM,
        )

    def write_policy(self, out: Path, log_line: str) -> None:
        """What an auditor trusts and demands: this log without witnesses, and this registrar."""
        (out / "policy").write_text(f"{log_line}\nquorum none\n", encoding="utf-8")
        lines = [
            'log_policy = "policy"',
            f'[registrar]\nkeys = ["{self.registrar.public_bytes.hex()}"]',
            f"[session]\nmin_contributors = {LEAST}",
            '[noise]\nmechanism = "none"',
        ]
        (out / "policy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextlib.asynccontextmanager
async def federation(contributors: int, private: Path, out: Path) -> AsyncIterator[Federation]:
    """A coordinator that serves, and a roster of so many; the auditor's policy goes to ``out``."""
    made = await secagg(
        *("coordinator", "init", str(private / "aggregator"), "--listen", "127.0.0.1:0"),
        *("--origin", "aggregator.example/secagg", "--no-passphrase"),
    )
    registrar, *identities = (SigningKey(Secret(SystemRng().bytes(32))) for _ in range(contributors + 1))
    add_members(private / "roster", [(identity.public_bytes, "") for identity in identities])
    sign_roster(private / "roster", registrar)
    async with serving(Path(made["config"]), private / "coordinator.log") as service:
        port = service["port"]
        pinned = await asyncio.to_thread(fetch_pinned_certificate, "127.0.0.1", port, made["tls_fingerprint"], CALL_S)
        found = Federation(
            Path(made["config"]),
            f"127.0.0.1:{port}",
            bytes.fromhex(made["coordinator_key"]),
            PinnedCertificate(*pinned),
            registrar,
            tuple(identities),
            private,
        )
        found.write_policy(out, made["log_line"])
        yield found
