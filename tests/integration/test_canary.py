"""A whole session with known secrets, over gRPC and stores on disk; then everything that is left is searched for them.

Five clients, one of which shares its keys and drops out, so that shares of both kinds are released. Searched are log
lines of all loggers, ``repr`` and ``str`` of every state, event, effect and row that a machine saw, the texts of
exceptions, every byte of the state directories, and what was published; for each secret raw, in hex, base64, decimal
and as Python and JSON write bytes.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import dataclasses
import io
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secagg.participation
from secagg.client import connect
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes, opening
from secagg.identity.errors import IdentityFileError
from secagg.identity.keys import KeyKind, ScryptCost, create_key_file, load_key_file
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import read_adapter
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import Confirmations
from secagg.protocol.pairwise import client, coordinator
from secagg.protocol.pairwise.client_states import ClientState, Masking, MaskInput, Send, SharedKeys
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import end_phase
from secagg.runtime import vectors
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.ports import StoreError
from secagg.services.logs import JsonFormatter
from secagg.store.checkpoints import FileCheckpointMemory
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.statements import UnmaskStatement
from tests.support.cohort import key_of
from tests.support.published import NO_WITNESSES
from tests.support.record_rules import FILES_OF
from tests.support.rng import CountingRng
from tests.support.service import RunningService, open_example_session, serving, tiny_adapter

SIZE = 5
DROPPED = 3
PASSPHRASE = "correct canary battery staple"  # noqa: S105 - to be found nowhere
_PIECE = 16
"""Of a secret, its first and its last 16 bytes are looked for: a part of it is a leak as well."""


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways in which ``secret`` could have been written down."""
    found = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "decimal": str(int.from_bytes(secret, "big")).encode(),
        "decimal, little-endian": str(int.from_bytes(secret, "little")).encode(),
        "Python bytes": repr(secret)[2:-1].encode(),
        "list": ", ".join(map(str, secret)).encode(),
        "dense list": ",".join(map(str, secret)).encode(),
    }
    for shift in range(3):
        # Within longer data: the digits that depend on no other byte.
        text = base64.b64encode(bytes(shift) + secret)
        inner = text[(0, 2, 3)[shift] : len(text) - (0, 3, 2)[(len(secret) + shift) % 3]]
        found[f"base64 at {shift}"] = inner
        found[f"base64url at {shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    if len(secret) % 4 == 0:
        words = np.frombuffer(secret, dtype="<u4").tolist()
        found["words"] = ", ".join(map(str, words)).encode()
        found["dense words"] = ",".join(map(str, words)).encode()
        found["array"] = " ".join(map(str, words)).encode()
    return found


class Haystack:
    """Many texts under names, searched at once."""

    def __init__(self, texts: Mapping[str, bytes]) -> None:
        self._names = list(texts)
        self._starts = []
        joined = bytearray()
        for text in texts.values():
            self._starts.append(len(joined))
            joined += text + b"\0\0\0"
        self._joined = bytes(joined + bytes(16))

    def where(self, secrets: Mapping[str, bytes]) -> list[str]:
        """Which secret lies where, in which form: every place once.

        All needles in one pass: a place is looked at if its first three bytes are those of some needle.
        """
        by_start: dict[bytes, list[tuple[str, bytes]]] = {}
        begins = np.zeros(1 << 24, dtype=bool)
        for name, secret in secrets.items():
            for form, needle in _needles(secret):
                by_start.setdefault(needle[:8], []).append((f"{name} as {form}", needle))
                begins[int.from_bytes(needle[:3], "little")] = True
        found = []
        data = np.frombuffer(self._joined, dtype=np.uint8)
        for start in range(0, data.size - 2, 1 << 22):
            block = data[start : start + (1 << 22) + 2].astype(np.uint32)
            triples = block[:-2] | block[1:-1] << 8 | block[2:] << 16
            for place in np.flatnonzero(begins[triples]).tolist():
                at = start + place
                for said, needle in by_start.get(self._joined[at : at + 8], ()):
                    if self._joined.startswith(needle, at):
                        found.append(f"{said} in {self._names[bisect.bisect_right(self._starts, at) - 1]}")
        return found


def _needles(secret: bytes) -> Iterator[tuple[str, bytes]]:
    seen = set()
    for piece in (secret, secret[:_PIECE], secret[-_PIECE:]):
        for form, needle in forms(piece).items():
            if needle not in seen:
                seen.add(needle)
                yield form, needle


def files_under(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def bytes_in(value: object) -> Iterator[bytes]:
    """Every bytes object in a value, but for those that are declared secret."""
    if isinstance(value, bytes):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from bytes_in(getattr(value, each.name))
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from bytes_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from bytes_in(item)


def secrets_in(value: object) -> Iterator[bytes]:
    """Every Secret in a value."""
    if isinstance(value, Secret):
        yield value.expose()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from secrets_in(getattr(value, each.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from secrets_in(item)


class KnownRng(CountingRng):
    """The randomness of all clients, all of it known."""

    drawn: list[bytes]
    _instances = 0

    def __init__(self) -> None:
        KnownRng._instances += 1
        super().__init__(b"canary %d" % KnownRng._instances)

    def bytes(self, count: int) -> bytes:
        drawn = super().bytes(count)
        KnownRng.drawn.append(drawn)
        return drawn


@dataclass
class Watch:
    """What the machines saw, and how the disks looked at the moment before the first share was released."""

    seen: list[object] = field(default_factory=list)
    client_steps: list[tuple[client.ClientContext, ClientState, object]] = field(default_factory=list)
    coordinator_steps: list[tuple[coordinator.Moment, Any, object]] = field(default_factory=list)
    lanes: list[bytes] = field(default_factory=list)
    reconstructed: list[bytes] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    before_release: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    """The real session, with every step of its machines written down."""
    watch = Watch()
    KnownRng.drawn = []
    client_start, client_step, coordinator_step = client.start, client.step, coordinator.step
    encode, reconstruct, upload = vectors.encode, opening._reconstruct, GrpcCoordinator.upload

    def started(context, view, rng):
        transition = client_start(context, view, rng)
        watch.seen += [context, view, transition]
        return transition

    def stepped(context, state, event, rng):
        if isinstance(event, Confirmations) and not watch.before_release:
            watch.before_release = files_under(tmp_path)
        watch.client_steps.append((context, state, event))
        transition = client_step(context, state, event, rng)
        watch.seen += [state, event, transition]
        return transition

    def coordinated(moment, state, event):
        watch.coordinator_steps.append((moment, state, event))
        transition = coordinator_step(moment, state, event)
        watch.seen += [moment.session, state, event, transition]
        return transition

    def encoded(*arguments):
        lanes, report = encode(*arguments)
        watch.lanes.append(lanes.tobytes())
        watch.seen.append(report)
        return lanes, report

    def reconstructed(*arguments):
        secret = reconstruct(*arguments)
        watch.reconstructed.append(secret.expose())
        watch.seen.append(secret)
        return secret

    async def uploaded(port, session, message, blobs):
        if message.signed.statement.identity == key_of(f"id{DROPPED}").public_bytes:
            await asyncio.Event().wait()  # it is never heard of again
        return await upload(port, session, message, blobs)

    monkeypatch.setattr(client, "start", started)
    monkeypatch.setattr(client, "step", stepped)
    monkeypatch.setattr(coordinator, "step", coordinated)
    monkeypatch.setattr(vectors, "encode", encoded)
    monkeypatch.setattr(opening, "_reconstruct", reconstructed)
    monkeypatch.setattr(GrpcCoordinator, "upload", uploaded)
    monkeypatch.setattr(secagg.client, "SystemRng", KnownRng)
    return watch


async def run_session(directory: Path, watch: Watch) -> dict[str, bytes]:
    """Everybody takes part; the files as they are while the stores are still open."""
    identities = [key_of(f"id{number}") for number in range(SIZE)]
    adapters = [tiny_adapter(directory / "inputs" / str(number), number) for number in range(SIZE)]
    # Inputs belong to their owner and lie outside the state directories.
    async with serving(directory / "coordinator") as service:
        parameters = await open_example_session(service, identities, adapters[0])
        taking_part = [
            asyncio.ensure_future(_contribute(service, parameters.session, adapter, identity, directory / "clients"))
            for adapter, identity in zip(adapters, identities, strict=True)
        ]
        host = await service.registry.find(parameters.session)
        async with asyncio.timeout(60):
            while (host.status().phase, host.status().received) != (Phase.MASKED_INPUT, SIZE - 1):
                await asyncio.sleep(0.01)  # a poll
            await end_phase(service.state, parameters.session, Phase.MASKED_INPUT, 10.0)
            for ended in await asyncio.gather(*taking_part, return_exceptions=True):
                if isinstance(ended, BaseException):
                    watch.errors.append(ended)
        assert host.status().phase is Phase.FINISHED
        watch.seen += [*host.rows.values(), host.evidence(), host.setup()]
        return files_under(directory / "coordinator") | files_under(directory / "clients")


async def _contribute(service: RunningService, session: bytes, adapter: Path, identity: SigningKey, state: Path) -> Any:
    memory = FileCheckpointMemory.of_coordinator(state / identity.public_bytes.hex(), service.key)
    trust = LogTrust(NO_WITNESSES, memory)
    async with await connect(service.address, service.key, service.tls, trust) as coordinator_:
        participation = await coordinator_.contribute(session, adapter, identity, state, ClientPolicy())
        return await participation.result()


def known_secrets(watch: Watch) -> dict[str, bytes]:
    """Everything a client draws or derives in the session, by name."""
    secrets = {f"draw {number}": drawn for number, drawn in enumerate(KnownRng.drawn) if len(drawn) >= 32}
    for number, value in enumerate(watch.seen):
        for place, secret in enumerate(secrets_in(value)):
            secrets[f"secret {place} of {type(value).__name__} {number}"] = secret
    for _, state, _ in watch.client_steps:
        if isinstance(state, SharedKeys):
            session = _session_digest(watch)
            secrets[f"mask key of {state.place.index}"] = boxes.mask_key_seed(state.root, session).expose()
            for other in range(SIZE):
                seed = boxes.pair_seed(state.root, session, other)
                secrets[f"pair seed {state.place.index} {other}"] = seed.expose()
                secrets[f"pair keystream {state.place.index} {other}"] = boxes.pair_mask_keystream(
                    seed, session
                ).expose()
    for number, secret in enumerate(watch.reconstructed):
        secrets[f"reconstructed {number}"] = secret
    # Once each; the longest-lived name is as good as any.
    return {name: secret for secret, name in {secret: name for name, secret in secrets.items()}.items()}


def _session_digest(watch: Watch) -> bytes:
    return watch.client_steps[0][0].session.digest


def long_term_secrets() -> dict[str, bytes]:
    """What outlives the session, and what follows from it."""
    secrets = {"passphrase": PASSPHRASE.encode()}
    for name in ("coordinator", "registrar", *(f"id{number}" for number in range(SIZE))):
        secrets[f"seed of {name}"] = CountingRng(name.encode()).bytes(32)
        for label in (Label.STORE_KEY, Label.UPLOAD_KEY):
            secrets[f"{label.name} of {name}"] = key_of(name).derive_seed(label).expose()
    return secrets


def input_secrets(directory: Path, watch: Watch) -> dict[str, bytes]:
    """Vectors in float32, and as packed before they are masked; by pieces, so that a part is found."""
    whole = {f"lanes {number}": lanes for number, lanes in enumerate(watch.lanes)}
    for number in range(SIZE):
        adapter = read_adapter(directory / "inputs" / str(number), None)
        vector = adapter_to_vector(adapter, adapter.layout)
        whole[f"vector {number}"] = vector.astype("<f4").tobytes()
        whole[f"decimals {number}"] = ", ".join(str(value) for value in vector[:3].tolist()).encode()
    return {
        f"{name} at {start}": data[start : start + 32]
        for name, data in whole.items()
        for start in range(0, len(data) - 31, 32)
        if any(data[start : start + 32])
    }


def released_shares(watch: Watch) -> set[bytes]:
    released = set()
    for value in watch.seen:
        for effect in getattr(value, "effects", ()):
            if isinstance(effect, Send) and isinstance(effect.message.signed.statement, UnmaskStatement):
                released |= {share.share for share in effect.message.signed.statement.shares}
    return released


def provoke_errors(watch: Watch, directory: Path) -> list[BaseException]:
    """Every machine in every state is given every event that it ever saw; then the stores and keys are mistreated."""
    errors = list(watch.errors)
    events: dict[type, object] = {type(event): event for _, _, event in watch.client_steps}
    for context, state, _ in list(watch.client_steps):
        for event in events.values():
            try:
                client.step(context, state, event, CountingRng(b"provoked"))
            except ProtocolError as error:
                errors.append(error)
    happened: dict[type, object] = {type(event): event for _, _, event in watch.coordinator_steps}
    for moment, state, _ in list(watch.coordinator_steps):
        for event in happened.values():
            try:
                coordinator.step(moment, state, event)
            except ProtocolError as error:
                errors.append(error)
    errors += asyncio.run(_misuse_stores(watch, directory))
    path = directory / "identity.key"
    create_key_file(path, KeyKind.IDENTITY, Secret(PASSPHRASE.encode()), CountingRng(b"id0"), ScryptCost(1 << 14, 8, 1))
    assert load_key_file(path, KeyKind.IDENTITY, lambda: Secret(PASSPHRASE.encode())).public_bytes
    for attempt in (lambda: Secret(PASSPHRASE[:-1].encode()), None):
        with pytest.raises(IdentityFileError) as caught:
            load_key_file(path, KeyKind.IDENTITY, attempt)
        errors.append(caught.value)
    return errors


async def _misuse_stores(watch: Watch, directory: Path) -> list[BaseException]:
    identity = key_of("id0")
    session = watch.client_steps[0][0].session.parameters.session
    own = directory / "clients" / identity.public_bytes.hex()
    sqlite = SqliteSessionStore(own / "sessions.db")
    errors: list[BaseException] = []
    try:
        for key in (identity, key_of("id1")):
            store = SealedSessionStore(sqlite, key.derive_seed(Label.STORE_KEY).expose(), KnownRng().bytes)
            try:
                assert await store.load(session) is not None
            except StoreError as error:
                errors.append(error)
    finally:
        await sqlite.close()
    assert len(errors) == 1
    return errors


def told_about(error: BaseException) -> bytes:
    lines = traceback.format_exception(error)
    return "\n".join([repr(error), str(error), repr(error.args), repr(vars(error)), *lines]).encode()


def described(values: Iterable[object]) -> dict[str, bytes]:
    texts = {}
    for number, value in enumerate(values):
        parts = [repr(value).encode(), str(value).encode(), f"{value}".encode()]
        texts[f"{type(value).__name__} {number}"] = b"\n".join(parts)
    return texts


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """Everything that any logger says, as the service writes it and as Python does by default."""
    lines = io.StringIO()
    root = logging.getLogger()
    handlers = [logging.StreamHandler(lines), logging.StreamHandler(lines)]
    handlers[0].setFormatter(JsonFormatter())
    before = root.level, logging.getLogger("secagg").level
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("secagg").setLevel(logging.DEBUG)
    yield lines
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(before[0])
    logging.getLogger("secagg").setLevel(before[1])


def test_no_secret_is_left_anywhere(watch: Watch, tmp_path: Path, log_lines: io.StringIO) -> None:
    open_files = asyncio.run(run_session(tmp_path, watch))
    session_secrets, long_term, inputs = known_secrets(watch), long_term_secrets(), input_secrets(tmp_path, watch)
    released = released_shares(watch)
    sealed_shares = {
        share
        for _, state, _ in watch.client_steps
        if isinstance(state, Masking)
        for held in state.shares
        for share in (held.self_mask.expose(), held.root.expose())
    }
    # The run is what it is meant to be: both kinds were released, and as many were never released.
    assert len(released) == 4 * 4
    assert released < sealed_shares
    assert len(sealed_shares) == 2 * SIZE * (SIZE - 1)
    assert len(watch.reconstructed) == SIZE
    assert len(watch.lanes) == SIZE
    assert [isinstance(error, ProtocolError) for error in watch.errors] == [True], watch.errors
    assert {type(state).__name__ for _, state, _ in watch.client_steps} >= {"Advertised", "Masking", "Confirmed"}
    assert [name for name, data in open_files.items() if name.endswith("coordinator/sessions.db-wal") and data]
    # What is published is searched like everything else: the log, and all files of the session.
    published = {name.rpartition("/record/")[2] for name in open_files if "/record/" in name}
    assert {"checkpoint", "tile/entries/000.p/6"} <= published
    assert {Path(name).name for name in published} >= {Path(name).name for names in FILES_OF.values() for name in names}
    assert len([name for name in open_files if name.endswith(".checkpoint")]) == SIZE

    secrets = {name: secret for name, secret in session_secrets.items() if secret not in released}
    secrets |= long_term | inputs
    public = {str(number): b"".join(bytes_in(value)) for number, value in enumerate(watch.seen)}
    errors = provoke_errors(watch, tmp_path)
    assert len(errors) > 50
    closed_files = files_under(tmp_path / "coordinator") | files_under(tmp_path / "clients")
    assert log_lines.getvalue().count("\n") > 10
    places = {
        "reprs": Haystack(described(watch.seen)),
        "errors": Haystack({f"{type(error).__name__} {n}": told_about(error) for n, error in enumerate(errors)}),
        "log lines": Haystack({"log": log_lines.getvalue().encode()}),
        "open files": Haystack(open_files),
        "closed files": Haystack(closed_files),
        "what was published or sent": Haystack(public),
    }
    for place, haystack in places.items():
        assert haystack.where(secrets) == [], place
    # Before the first answer the shares that it holds were nowhere either.
    before = {name: data for name, data in watch.before_release.items() if "/inputs/" not in name}
    assert before
    shares = {f"released share {number}": share for number, share in enumerate(sorted(released))}
    assert Haystack(before).where(secrets | shares) == []
    # Afterwards the coordinator holds them, so the search looks in the right place.
    assert len({line.split(" as ")[0] for line in Haystack(closed_files).where(shares)}) == len(shares)


def test_the_search_finds_what_a_client_would_write_without_sealing(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secagg.participation, "SealedSessionStore", lambda inner, key, read_random: inner)
    asyncio.run(run_session(tmp_path, watch))
    files = {name: data for name, data in watch.before_release.items() if "/inputs/" not in name}
    found = Haystack(files).where(known_secrets(watch))
    assert len({line.split(" as ")[0] for line in found}) > 50
    assert all("/clients/" in line for line in found)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("form", list(forms(bytes(32))))
def test_the_search_finds_a_secret_in_every_form_at_every_place(form: str, place: int) -> None:
    secret = CountingRng(b"needle").bytes(32)
    written = forms(secret)[form]
    if form.startswith("base64"):
        written = base64.b64encode(b"x" * place + secret + b"yz")
        if form.startswith("base64url"):
            written = base64.urlsafe_b64encode(b"x" * place + secret + b"yz")
    found = Haystack({"a": b"nothing here", "b": b"." * place + written + b"."}).where({"needle": secret})
    assert found
    assert all(line.endswith(" in b") for line in found)


def test_masks_and_seeds_do_not_show_in_the_repr_of_what_holds_them() -> None:
    secret = Secret(CountingRng(b"needle").bytes(32))
    value = MaskInput(secret, secret, (secret,), (secret,))
    assert Haystack(described([value, secret, [secret], {"k": secret}])).where({"needle": secret.expose()}) == []
    assert RejectReason.LEFT_OUT.name in str(RemoteProtocolError(RejectReason.LEFT_OUT))
