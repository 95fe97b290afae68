"""Moves the real machines by the operations of ``session.json``."""

from __future__ import annotations

import hashlib
import inspect
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np

from secagg.arith import shamir
from secagg.arith.keystream import add_masks
from secagg.crypto.labels import Label
from secagg.crypto.sealing import SealingError, SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.derive.opening import Removal
from secagg.derive.result import decode
from secagg.protocol import log
from secagg.protocol.errors import ProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    IncomingBoxes,
    NeighbourKeys,
    OutgoingBoxes,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise import client as machine
from secagg.protocol.pairwise import coordinator, dealing, recovery, tables
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.client_states import Aborted, InputMasked, MaskInput
from secagg.protocol.pairwise.coordinator_states import RecoverSum, SharesStored, SumRecovered, phase_of
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.rows import (
    DeadlinePassed,
    EntryPublished,
    FoldUploads,
    PublishEntry,
    RowKind,
    SetupRow,
    SumFolded,
    UploadStaged,
    require,
)
from secagg.protocol.session import ClientPolicy
from secagg.runtime import vectors
from secagg.runtime.adapters import AdapterMerge
from secagg.runtime.limb_sums import Folded, SessionSum, masked_sum
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.partial_sum import HashedUpload
from secagg.transcript import merkle
from secagg.transcript.encoding import Encoding
from secagg.transcript.entries import SessionOpen, SignedRoster
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.roster import Roster, RosterMember
from secagg.transcript.statements import (
    Receipt,
    Signed,
)
from tests.support.cohort import setup_of
from tests.support.published import NO_WITNESSES, evidence_of
from tests.support.rng import CountingRng
from tests.vectors.session_records import AWAY, LANES, START_S, texts_of
from tests.vectors.static_operations import hex_of, lanes_of, raw, secret

EVENTS = {
    "start": {"policy", "log"},
    "advertised-list": {"log", "leaves", "keys"},
    "shared-list": {"log", "leaves", "inbox"},
    "input-masked": {"sha256", "lanes", "linear_hash"},
    "receipt": {"receipt", "signature"},
    "closed-list": {"log", "leaves"},
    "confirmations": {"signed"},
    "session-ended": {"log"},
    "advertise-keys": {"signed", "mask_public", "share_public"},
    "share-keys": {"signed", "boxes"},
    "contribution": {"signed", "linear_hash"},
    "upload-staged": {"signed", "sha256"},
    "confirm-close": {"signed"},
    "unmask": {"signed"},
    "deadline": {"now_s"},
}
"""Members of each event beside ``type``."""
MEMBERS = {
    "log": {"start", "prefix", "entries", "checkpoint"},
    "policy": {"min_contributors", "tolerated_corrupt", "registrars"},
}


def check_members(event: dict[str, Any] | None) -> None:
    """Raise KeyError for an event of an unknown type, or with a member missing or unknown."""
    if event is None:
        return
    if event.keys() != EVENTS[event["type"]] | {"type"}:
        raise KeyError(f"{event['type']}: members {sorted(event)}")
    for name in event.keys() & MEMBERS.keys():
        if event[name].keys() != MEMBERS[name]:
            raise KeyError(f"{event['type']}.{name}: members {sorted(event[name])}")


class ScriptedRng:
    """Gives the bytes of a script, and no more."""

    def __init__(self, script: bytes) -> None:
        self.rest = script

    def bytes(self, count: int) -> bytes:
        if count > len(self.rest):
            raise AssertionError("more randomness is drawn than the vector gives")
        out, self.rest = self.rest[:count], self.rest[count:]
        return out


class RecordingRng:
    """Passes bytes on and remembers them."""

    def __init__(self, source: CountingRng) -> None:
        self.source = source
        self.taken = b""

    def bytes(self, count: int) -> bytes:
        out = self.source.bytes(count)
        self.taken += out
        return out


class Script:
    """Coordinator and clients, moved by the operations of ``session.json``; ``table`` is its ``bytes``.

    With ``seals`` a box that is not in the table, or does not open to what it should, is sealed anew.
    """

    def __init__(self, table: dict[str, bytes], *, seals: bool) -> None:
        self.table = table
        self.seals = seals
        self.used: set[str] = set()
        self.sealing_keys: dict[bytes, SealingKey] = {}
        self.states: dict[int, Any] = {}
        self.policies: dict[int, ClientPolicy] = {}
        self.masks: dict[int, MaskInput] = {}
        self.rows: dict[int, Any] = {}
        self.blobs = MemoryBlobStore()
        self.now_s = START_S
        self.removal: Removal | None = None
        self.folded = self.opened = np.zeros(0, dtype=np.uint64)

    def run(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The outcome of one operation."""
        operations = {
            "setup": self.setup, "client": self.client, "upload": self.upload, "coordinator": self.coordinator,
            "reconstruct": reconstructed, "removed": removed, "decoded": decoded,
        }  # fmt: skip
        function = operations[entry["op"]]
        outcome = ("op", "attack", "success", "expected", "error")
        inputs = {name: value for name, value in entry.items() if name not in outcome}
        unknown = inputs.keys() ^ inspect.signature(function).parameters.keys()
        if unknown:
            raise KeyError(f"{entry['op']}: missing or unknown inputs {sorted(unknown)}")
        check_members(inputs.get("event"))
        try:
            return {"success": True, "expected": function(**inputs)}
        except ProtocolError as refused:
            return {"success": False, "error": refused.reason.name}

    def setup(self, coordinator_seed, registrar_seed, identity_seeds, parameters):
        self.key = SigningKey(secret(coordinator_seed))
        registrar = SigningKey(secret(registrar_seed))
        self.identities = [SigningKey(secret(seed)) for seed in identity_seeds]
        roster = Roster.of([RosterMember(key.public_bytes, "") for key in self.identities])
        self.session = PairwiseSession(SessionOpen.from_bytes(parameters.encode()), roster)
        self.clients = [key for position, key in enumerate(self.identities) if position != AWAY]
        head = roster.head(registrar.public_bytes).to_bytes()
        self.roster_entry = SignedRoster(roster.head(registrar.public_bytes), registrar.sign_statement(head)).to_bytes()
        self.entries: list[bytes] = []
        self.state: Any = None
        published = self._carry_on(coordinator.start(self.session, setup_of(self.session, self.blobs)))
        found = self.session.graph_parameters(len(self.clients))
        return {
            "roster": [leaf.decode() for leaf in roster.leaves()],
            "roster_head": head.decode(),
            "roster_signature": registrar.sign_statement(head).hex(),
            "digest": self.session.digest.hex(),
            "degree": found.degree,
            "threshold": found.threshold,
            "upload_bytes": self.session.upload_bytes,
            "published": published,
        }

    def client(self, client, event, randomness):
        rng = ScriptedRng(raw(randomness)) if isinstance(randomness, str) else randomness
        policy = self.policies.get(client, ClientPolicy())
        if event["type"] == "start":
            policy = policy_of(event["policy"])
        context = ClientContext(self.clients[client], self.session, policy, NO_WITNESSES)
        with mock.patch.object(dealing, "seal", self._seal):
            transition = self._client_step(context, client, event, rng)
        self.states[client], self.policies[client] = transition.state, policy
        expected: dict[str, Any] = {"state": type(transition.state).__name__}
        if isinstance(transition.state, Aborted):
            expected["reason"] = transition.state.reason.name
        for effect in transition.effects:
            if isinstance(effect, MaskInput):
                self.masks[client] = effect
                expected["rounding"] = effect.rounding.expose().hex()
                expected["keystream_keys"] = {
                    "self_mask": effect.self_mask.expose().hex(),
                    "add": [key.expose().hex() for key in effect.add],
                    "subtract": [key.expose().hex() for key in effect.subtract],
                }
            else:
                expected["sent"] = self._message_to_json(client, effect.message)
        return expected

    def _client_step(self, context: ClientContext, client: int, event: dict[str, Any], rng: Any) -> Any:
        if event["type"] != "start":
            return machine.step(context, self.states[client], self._client_event(event), rng)
        view = log.join(self.session.parameters, NO_WITNESSES, log_of(event["log"]))
        transition = machine.start(context, view, rng)
        for key in (
            SealingKey(boxes.mask_key_seed(transition.state.root, self.session.digest)),
            SealingKey(transition.state.share_seed),
        ):
            self.sealing_keys[key.public_bytes] = key
        return transition

    def upload(self, client, vector):
        values = np.frombuffer(raw(vector), dtype="<f4").astype(np.float32)
        encoding, noise = self.session.parameters.encoding, self.session.parameters.noise
        lanes, _ = vectors.encode(encoding, noise, values, self.masks[client].rounding)
        plain = hex_of(lanes)
        vectors.mask(lanes, self.masks[client])
        return {
            "lanes": plain,
            "masked": hex_of(lanes),
            "sha256": self.blobs.put(vectors.as_bytes(lanes)).hex(),
            "linear_hash": self._named(f"linear_hash/{client}", vectors.linear_hash_of(lanes)),
        }

    def coordinator(self, event):
        if event["type"] == "deadline":
            self.now_s = event["now_s"]
        published = self._carry_on(self._coordinator_step(self._coordinator_event(event)))
        expected: dict[str, Any] = {"phase": phase_of(self.state).value, "published": published}
        if event["type"] == "upload-staged":
            signed = Signed.from_bytes(event["signed"].encode())
            receipt = Receipt(self.session.digest, hashlib.sha256(signed.to_bytes()).digest()).to_bytes()
            expected |= {"receipt": receipt.decode(), "signature": self.key.sign_statement(receipt).hex()}
        return expected

    def _coordinator_step(self, event: Any) -> Any:
        return coordinator.step(coordinator.Moment(self.session, self.rows, self.now_s), self.state, event)

    def _carry_on(self, transition: Any) -> list[dict[str, str]]:
        """Take a step's outcome and do what it asks for, until nothing is left; what was published meanwhile."""
        published = []
        self.state = transition.state
        self.rows.update(transition.rows)
        for effect in transition.effects:
            match effect:
                case PublishEntry(position, entry):
                    self.entries.append(entry)
                    done: Any = EntryPublished(position, position + 1)
                    note = evidence_of(self.key, self.entries, [self.roster_entry]).checkpoint
                    published.append({"entry": entry.decode(), "checkpoint": note.decode()})
                case FoldUploads(accepted):
                    headers = tables.staged_headers(self.rows, self.cohort, accepted)
                    items = {index: HashedUpload(each.upload, each.linear_hash) for index, each in headers.items()}
                    folded = SessionSum(self.blobs, LANES.lanes).fold(items)
                    if not isinstance(folded, Folded):
                        raise AssertionError("no client of the vectors lies about its upload")
                    done = SumFolded(folded.limb_sum)
                case RecoverSum():
                    done = self._recover()
            published += self._carry_on(self._coordinator_step(done))
        return published

    def _recover(self) -> SumRecovered:
        state = self.state.unmasking
        self.removal = recovery.recover(self.session, self.rows, state, self.blobs.read)
        limb_sum = tables.close_entry(self.rows).limb_sum
        self.folded = masked_sum(self.blobs, limb_sum, len(state.accepted), LANES.lanes)
        self.opened = self.folded.copy()
        vectors.remove_masks(self.opened, self.removal, 1)
        made = decode(self.session.parameters.encoding, self.session.parameters.noise, self.opened, len(state.accepted))
        setup = require(self.rows, 0, RowKind.SETUP, SetupRow)
        return SumRecovered(
            merkle.root(recovery.answers(self.rows, state)[1]),
            *(vectors.digest_of(each) for each in (made.integer_sum, made.mean)),
            AdapterMerge(self.session.parameters, setup, self.blobs).keep(made.mean, len(state.accepted)),
            openings_file=bytes(32),
            pairs_file=bytes(32),
        )

    @property
    def graph(self) -> Any:
        """The masking graph, once U1 is fixed."""
        return self.session.graph(len(self.clients), self.cohort.root)

    @property
    def cohort(self) -> Any:
        """U1 as logged."""
        state = getattr(self.state, "unmasking", self.state)
        return state.cohort

    def _seal(self, public_key: bytes, info: bytes, plaintext: Secret) -> bytes:
        """In place of ``seal``: the recorded box, if it opens to what it should."""
        label = b"share" if Label.SHARE_BOX.value.encode() in info else b"pair"
        sender, recipient = (int.from_bytes(info[at:][:4], "big") for at in (-16, -4))
        name = f"{label.decode()}_box/{sender}/{recipient}"
        try:
            if self.sealing_keys[public_key].open(self.table.get(name, b""), info) == plaintext:
                return self.table[name]
        except SealingError:
            pass
        if not self.seals:
            raise AssertionError(f"{name} does not open to what it should")
        return seal(public_key, info, plaintext)

    def _named(self, name: str, data: bytes) -> str:
        if self.seals:
            self.table[name] = data
        if self.table[name] != data:
            raise AssertionError(f"{name} is another value")
        self.used.add(name)
        return name

    def _get(self, name: str) -> bytes:
        self.used.add(name)
        return self.table[name]

    def _message_to_json(self, client: int, message: Any) -> dict[str, Any]:
        out: dict[str, Any] = {"type": message.signed.statement.TYPE, "signed": message.signed.to_bytes().decode()}
        if isinstance(message, AdvertiseKeys):
            for name in ("mask_public", "share_public"):
                out[name] = self._named(f"{name}/{client}", getattr(message, name))
        if isinstance(message, Contribution):
            out["linear_hash"] = self._named(f"linear_hash/{client}", message.linear_hash)
        if isinstance(message, ShareKeys):
            out["boxes"] = [
                [
                    box.recipient,
                    self._named(f"share_box/{client}/{box.recipient}", box.share_box),
                    self._named(f"pair_box/{client}/{box.recipient}", box.pair_box) if box.pair_box else "",
                    box.commitments.hex(),
                ]
                for box in message.boxes
            ]
        return out

    def _client_event(self, event: dict[str, Any]) -> Any:
        match event:
            case {"type": "advertised-list", "log": shown, "leaves": leaves, "keys": keys}:
                found = tuple(NeighbourKeys(index, self._get(mask), self._get(share)) for index, mask, share in keys)
                return AdvertisedList(log_of(shown), texts_of(leaves), found)
            case {"type": "shared-list", "log": shown, "leaves": leaves, "inbox": inbox}:
                items = tuple(
                    IncomingBoxes(
                        sender,
                        self._get(share),
                        self._get(pair) if pair else b"",
                        raw(commitments),
                        tuple(map(raw, path)),
                    )
                    for sender, share, pair, commitments, path in inbox
                )
                return SharedList(log_of(shown), texts_of(leaves), items)
            case {"type": "input-masked", "sha256": digest, "lanes": lanes, "linear_hash": name}:
                return InputMasked(raw(digest), lanes, self._get(name))
            case {"type": "receipt", "receipt": receipt, "signature": signature}:
                return SignedReceipt(receipt.encode(), raw(signature))
            case {"type": "closed-list", "log": shown, "leaves": leaves}:
                return ClosedList(log_of(shown), texts_of(leaves))
            case {"type": "confirmations", "signed": given}:
                return Confirmations(tuple(map(Signed.from_bytes, texts_of(given))))
            case {"type": "session-ended", "log": shown}:
                return SessionEnded(log_of(shown))
            case _:
                raise KeyError(event["type"])

    def _coordinator_event(self, event: dict[str, Any]) -> Any:
        signed = Signed.from_bytes(event["signed"].encode()) if "signed" in event else None
        match event, signed:
            case {"type": "deadline"}, None:
                return DeadlinePassed()
            case {"type": "advertise-keys", "mask_public": mask, "share_public": share}, Signed():
                return AdvertiseKeys(signed, self._get(mask), self._get(share))
            case {"type": "share-keys", "boxes": given}, Signed():
                made = tuple(
                    OutgoingBoxes(recipient, self._get(share), self._get(pair) if pair else b"", raw(commitments))
                    for recipient, share, pair, commitments in given
                )
                blob = self.blobs.put(b"".join(box.share_box + box.pair_box for box in made))
                return SharesStored(ShareKeys(signed, made), blob)
            case {"type": "contribution", "linear_hash": name}, Signed():
                self.blobs.put(self._get(name))
                return Contribution(signed, self._get(name))
            case {"type": "upload-staged", "sha256": digest}, Signed():
                return UploadStaged(signed.statement.identity, raw(digest))
            case {"type": "confirm-close"}, Signed():
                return ConfirmClose(signed)
            case {"type": "unmask"}, Signed():
                return UnmaskAnswer(signed)
            case _:
                raise KeyError(event["type"])


def reconstructed(threshold, shares):
    """``shares``: [index of the neighbour who released it, 36 bytes]."""
    points = np.array([index + 1 for index, _ in shares[:threshold]], dtype=np.uint64)
    values = np.stack([shamir.share_from_bytes(raw(data)) for _, data in shares[:threshold]])
    return shamir.limbs_to_secret(shamir.reconstruct(points, values)).hex()


def removed(lanes, add, subtract):
    out = lanes_of(lanes)
    add_masks(out, [raw(key) for key in add], [raw(key) for key in subtract])
    return hex_of(out)


def decoded(encoding, lanes, contributors):
    made = decode(Encoding.from_bytes(encoding.encode()), NoDifferentialPrivacy(), lanes_of(lanes), contributors)
    return {
        "integer_sum": made.integer_sum.tolist(),
        "integer_sum_sha256": vectors.digest_of(made.integer_sum).hex(),
        "mean": hex_of(made.mean),
        "mean_sha256": vectors.digest_of(made.mean).hex(),
    }


def policy_of(given):
    registrars = frozenset(map(raw, given["registrars"]))
    return ClientPolicy(given["min_contributors"], Fraction(given["tolerated_corrupt"]), registrars=registrars)


def log_of(shown):
    prefix = tuple(raw(node) for node in shown["prefix"])
    return LogEvidence(shown["start"], prefix, texts_of(shown["entries"]), shown["checkpoint"].encode())
