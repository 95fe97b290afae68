"""A forge of whole records: a log, three sessions in it, witnesses, policies, a receipt; every key is known.

``write_record(directory, edits)`` is all that most tests need. An edit changes something before it is hashed or signed
further: by its name what the finished session ``main`` makes (see ``forge_session`` and ``forge_closing``), as
``second.close`` or ``aborted.open`` what the others make, and ``roster``, ``roster_entry``, ``entries``,
``checkpoint`` and ``note`` what the log is made of. What nobody could have signed or logged so is done to the files
afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secagg.crypto.notes import cosign, log_key, sign_checkpoint, witness_key
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import SignedRoster
from secagg.transcript.note import Note
from secagg.transcript.policy import GroupRule, LogPolicy, LogRule, WitnessRule
from secagg.transcript.proof import LogProof
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.roster import Roster, RosterMember
from simulations.attacks.published_record import log_files
from tests.support.forge_closing import SessionForge
from tests.support.forge_session import MODEL_DIGEST, Edit, Plan, Surroundings

ORIGIN = "example.org/log"
COSIGNED_AT_S = 1_700_010_000
WITNESSES = 3
QUORUM = 2 * WITNESSES // 3 + 1

MAIN = Plan(
    members=(0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11),
    absent=frozenset({7}),
    dropped=frozenset({4}),
    rejected={2: "WRONG_UPLOAD"},
    missing={6: frozenset({4}), 8: frozenset({9}), 9: frozenset({8})},
)
"""Eleven clients, threshold 6: eight contribute, one drops in each phase, one is rejected, three miss somebody."""
SECOND = Plan(members=(3, 4, 5, 6, 7), opened_at_s=MAIN.opened_at_s + 5)
ABORTED = Plan(members=(0, 1, 2, 3), opened_at_s=MAIN.opened_at_s + 9)
ROSTER_SIZE = 13

POLICY = """\
log_policy = "policy"

[registrar]
keys = ["{registrar}"]

[session]
min_contributors = 3
tolerated_corrupt = "1/20"
base_models = ["{model}"]

[noise]
mechanism = "none"
"""


def key_of(name: str) -> SigningKey:
    """A signing key that follows from a name."""
    return SigningKey(Secret(hashlib.sha256(f"forged key of {name}".encode()).digest()))


@dataclass(frozen=True)
class Written:
    """Where a record and what goes with it lie."""

    record: Path
    policy: Path
    masked_inputs: Path
    receipt: Path
    forge: Forge

    @property
    def session(self) -> Path:
        """The files of the session ``main``."""
        return self.record / "sessions" / self.forge.main.session_id.hex()


class Forge:
    """A record in the making.

    ``run`` plays the sessions, interleaved; a test may also call their steps itself and ``append`` entries in any
    order. ``write`` signs the log and writes everything.
    """

    policy_text = POLICY

    def __init__(
        self,
        edits: Mapping[str, Edit] | None = None,
        main: Plan = MAIN,
        roster_size: int = ROSTER_SIZE,
    ) -> None:
        self.edits = dict(edits or {})
        self.coordinator, self.registrar = key_of("coordinator"), key_of("registrar")
        self.witnesses = [key_of(f"witness {number}") for number in range(WITNESSES)]
        identities = sorted((key_of(f"client {n}") for n in range(roster_size)), key=lambda key: key.public_bytes)
        members = [RosterMember(key.public_bytes, "") for key in identities]
        self.roster = Roster(tuple(self._made("roster", members)))
        around = Surroundings(ORIGIN, self.coordinator, self.registrar, tuple(identities), self.roster)
        self.around = around
        self.main = self._session(around, "main", main)
        self.second = self._session(around, "second", SECOND)
        self.aborted = self._session(around, "aborted", ABORTED)
        self.entries: list[bytes] = []

    @property
    def sessions(self) -> list[SessionForge]:
        """All sessions."""
        return [self.main, self.second, self.aborted]

    def run(self) -> Forge:
        """Play all sessions, their entries interleaved."""
        main, second, aborted = self.sessions
        self.append(self.roster_entry())
        for step in (
            main.open,
            second.open,
            main.advertise,
            aborted.open,
            second.advertise,
            main.share,
            aborted.advertise,
            second.share,
            main.close,
            aborted.abort,
            second.close,
            second.result,
            main.result,
        ):
            self.append(step())
        return self

    def run_main(self) -> Forge:
        """Play the session ``main`` alone."""
        self.append(self.roster_entry())
        main = self.main
        for step in (main.open, main.advertise, main.share, main.close, main.result):
            self.append(step())
        return self

    def roster_entry(self) -> SignedRoster:
        """The roster, signed by the registrar."""
        head = self.roster.head(self.registrar.public_bytes)
        entry = SignedRoster(head, self.registrar.sign_statement(head.to_bytes()))
        made: SignedRoster = self._made("roster_entry", entry)
        return made

    def append(self, entry: Any) -> None:
        """Log an entry."""
        self.entries.append(entry.to_bytes())

    def note(self) -> Note:
        """The checkpoint over all entries, signed by the log and cosigned by every witness."""
        hashes = [merkle.leaf_hash(entry) for entry in self.entries]
        checkpoint = self._made("checkpoint", Checkpoint(ORIGIN, len(hashes), merkle.root_of_hashes(hashes)))
        note = sign_checkpoint(self.coordinator, checkpoint)
        lines = [
            cosign(key, f"witness{number}.example", note.text, COSIGNED_AT_S + number)
            for number, key in enumerate(self.witnesses)
        ]
        made: Note = self._made("note", note.with_signatures(lines))
        return made

    def log_policy(self) -> LogPolicy:
        """The log, its witnesses and their quorum."""
        names = tuple(f"w{number}" for number in range(WITNESSES))
        rules = tuple(
            WitnessRule(name, witness_key(f"witness{number}.example", key.public_bytes))
            for number, (name, key) in enumerate(zip(names, self.witnesses, strict=True))
        )
        log = LogRule(log_key(ORIGIN, self.coordinator.public_bytes))
        return LogPolicy((log,), rules, (GroupRule("all-witnesses", QUORUM, names),), "all-witnesses")

    def receipt(self, index: int, note: bytes) -> bytes:
        """The receipt of a contributor to ``main``."""
        main = self.main
        position = main.accepted.index(index)
        leaves = [merkle.leaf_hash(signed.to_bytes()) for signed in main.contributed]
        close = main.closing.to_bytes()
        extra = ContributionProof(
            close.decode(), main.contributions[index], position, merkle.inclusion_proof(leaves, position)
        )
        at = self.entries.index(close)
        path = merkle.inclusion_proof([merkle.leaf_hash(entry) for entry in self.entries], at)
        return LogProof(extra.to_bytes(), at, path, note).to_bytes()

    def write(self, directory: Path) -> Written:
        """Write the record as played so far, policies and masked inputs, and the receipt of the first contributor."""
        self.entries = self._made("entries", list(self.entries))
        note = self.note().to_bytes()
        record = directory / "record"
        files = {"checkpoint": note, **log_files(self.entries)}
        for session in self.sessions:
            for name, data in session.final_files().items():
                files[f"sessions/{session.session_id.hex()}/{name}"] = data
        _write(record, files)
        policy = self.policy_text.format(registrar=self.registrar.public_bytes.hex(), model=MODEL_DIGEST.hex())
        beside = {"policy": self.log_policy().to_text().encode(), "policy.toml": policy.encode()}
        if hasattr(self.main, "closing"):
            beside["receipt"] = self.receipt(self.main.accepted[0], note)
        for session in self.sessions:
            for lanes in session.uploads.values():
                beside[f"masked-inputs/{hashlib.sha256(lanes.tobytes()).hexdigest()}.bin"] = lanes.tobytes()
        _write(directory, beside)
        return Written(record, directory / "policy.toml", directory / "masked-inputs", directory / "receipt", self)

    def _session(self, around: Surroundings, name: str, plan: Plan) -> SessionForge:
        prefix = f"{name}."
        own = {key.removeprefix(prefix): edit for key, edit in self.edits.items() if key.startswith(prefix)}
        if name == "main":
            own |= {key: edit for key, edit in self.edits.items() if "." not in key}
        return self._session_forge(around, name, plan, own)

    def _session_forge(self, around: Surroundings, name: str, plan: Plan, edits: Mapping[str, Edit]) -> SessionForge:
        return SessionForge(around, name, plan, edits)

    def _made(self, name: str, value: Any) -> Any:
        edit = self.edits.get(name)
        return value if edit is None else edit(value, self)


def write_record(directory: Path, edits: Mapping[str, Edit] | None = None) -> Written:
    """A complete record in ``directory``, edited on the way."""
    return Forge(edits).run().write(directory)


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
