"""Replays the vectors of the protocol and holds them to their generator."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.protocol.errors import RejectReason
from tests.vectors import generate_session as vectors
from tests.vectors.session_records import DROPPED
from tests.vectors.session_script import Script
from tests.vectors.static_operations import DIRECTORY, OPERATIONS, hex_of, lanes_of, replay, sealing_key

OUTCOME = ("success", "expected", "error")


def content(name: str) -> dict:
    return json.loads((DIRECTORY / name).read_text(encoding="utf-8"))


def recorded(entry: dict) -> dict:
    return {key: entry[key] for key in OUTCOME if key in entry}


SESSIONS = {name: content(name) for name in vectors.SESSIONS}
SESSION = SESSIONS[vectors.NAME]


def script(session: dict = SESSION) -> Script:
    return Script({name: bytes.fromhex(data) for name, data in session["bytes"].items()}, seals=False)


@pytest.mark.parametrize("name", vectors.FILES)
def test_every_operation_of_the_file_has_its_recorded_outcome(name):
    assert content(name).keys() == {"description", "operations"}
    for entry in content(name)["operations"]:
        assert replay(entry) == recorded(entry), entry


@pytest.mark.parametrize("name", vectors.SESSIONS)
def test_the_session_replays_through_the_machines(name):
    session = SESSIONS[name]
    played = script(session)
    assert session.keys() == {"description", "bytes", "operations"}
    for place, entry in enumerate(session["operations"]):
        assert played.run(entry) == recorded(entry), f"operation {place}: {entry.get('attack', entry['op'])}"
    assert played.used == session["bytes"].keys()


@pytest.mark.parametrize("name", [*vectors.FILES, *vectors.SESSIONS])
def test_the_generator_reproduces_the_file_byte_for_byte(name):
    same = vectors.render(name).encode() == (DIRECTORY / name).read_bytes()
    assert same, f"{name} is stale: run python -m tests.vectors.generate_session"


def test_every_operation_occurs_and_every_refusal_names_its_attack():
    entries = [entry for name in vectors.FILES for entry in content(name)["operations"]]
    assert {entry["op"] for entry in entries if entry["success"]} == set(OPERATIONS)
    for entry in [*entries, *(entry for session in SESSIONS.values() for entry in session["operations"])]:
        assert ("attack" in entry) is ("error" in entry) is not entry["success"], entry
    assert sum(not entry["success"] for entry in entries) > 60
    named = {entry["error"] for entry in SESSION["operations"] if not entry["success"]}
    assert named <= RejectReason.__members__.keys()
    assert len(named) >= 29


@pytest.mark.parametrize(
    "entry",
    [
        {"op": "unheard_of", "success": True, "expected": 0},
        {"op": "tree_root", "leaves": [], "more": 1, "success": True, "expected": ""},
        {"op": "tree_root", "success": True, "expected": ""},
    ],
)
def test_unknown_operations_and_inputs_fail_the_runner(entry):
    with pytest.raises(KeyError):
        replay(entry)


def started() -> Script:
    played = script()
    played.run(SESSION["operations"][0])
    return played


def first_start() -> dict:
    return copy.deepcopy(next(e for e in SESSION["operations"] if e["op"] == "client" and e["success"]))


@pytest.mark.parametrize(
    ("where", "name"), [((), "more"), (("event",), "more"), (("event", "log"), "more"), (("event", "policy"), "more")]
)
def test_unknown_members_anywhere_fail_the_runner_of_the_session(where, name):
    entry = first_start()
    inner = entry
    for step in where:
        inner = inner[step]
    inner[name] = 1
    with pytest.raises(KeyError):
        started().run(entry)


def test_unknown_operations_and_events_fail_the_runner_of_the_session():
    with pytest.raises(KeyError):
        started().run({"op": "unheard_of"})
    with pytest.raises(KeyError):
        started().run(first_start() | {"event": {"type": "unheard-of"}})


def test_other_randomness_gives_another_outcome():
    entry = first_start()
    altered = entry | {"randomness": "00" + entry["randomness"][2:]}
    with pytest.raises(AssertionError):
        started().run(altered)
    with pytest.raises(AssertionError):
        started().run(entry | {"randomness": entry["randomness"][2:]})


def operations(op: str, kind: str = "") -> list[dict]:
    return [
        entry
        for entry in SESSION["operations"]
        if entry["op"] == op and entry["success"] and (not kind or kind == entry["event"]["type"])
    ]


def test_the_recovered_seeds_the_sum_and_the_mean_are_those_of_the_contributors():
    uploads = {entry["client"]: entry["expected"] for entry in operations("upload")}
    # An input is encoded again after a crash: to the same bytes.
    assert all(uploads[entry["client"]] == entry["expected"] for entry in operations("upload"))
    assert len(operations("upload")) > len(uploads)
    contributors = [client for client in uploads if client != DROPPED]
    # Drawn at the start: the root, the seed of the share key; at U1 first of all the self-mask seed.
    roots = {e["client"]: e["randomness"][:64] for e in operations("client", "start")}
    self_masks = {e["client"]: e["randomness"][:64] for e in operations("client", "advertised-list")}
    secrets = [roots[i] if i == DROPPED else self_masks[i] for i in range(4)]
    assert [entry["expected"] for entry in operations("reconstruct")] == secrets
    plain = sum(lanes_of(uploads[client]["lanes"]) for client in contributors)
    masked = sum(lanes_of(uploads[client]["masked"]) for client in contributors)
    (opened,), (decoded,) = operations("removed"), operations("decoded")
    assert lanes_of(opened["lanes"]).tolist() == masked.tolist()
    assert opened["expected"] == decoded["lanes"] == hex_of(plain)
    entries = [json.loads(p["entry"]) for e in operations("coordinator") for p in e["expected"]["published"]]
    assert [entry["type"] for entry in entries] == [
        "keys-advertised", "keys-shared", "session-close", "session-result",
    ]  # fmt: skip
    limbs = [lanes_of(uploads[client]["masked"]).astype("<u8").view("<u2").astype("<u8") for client in contributors]
    assert entries[2]["limb_sum"] == hashlib.sha256(sum(limbs).tobytes()).hexdigest()
    assert (entries[2]["rejected"], entries[2]["dropped"]) == (0, 1)
    total = decoded["expected"]
    assert entries[3]["integer_sum"] == total["integer_sum_sha256"]
    assert entries[3]["mean"] == total["mean_sha256"]
    fields = np.concatenate([[lane & 0x3FFFF, lane >> 18 & 0x3FFFF, lane >> 36] for lane in plain.tolist()])
    assert fields[0] == 3
    assert [int(field) - 3 * 2**14 for field in fields[1:10]] == total["integer_sum"]
    assert fields[10:].tolist() == [0, 0]


def test_neighbours_alone_are_not_a_quorum():
    entries = [e for e in SESSIONS["quorum.json"]["operations"] if e.get("event", {}).get("type") == "confirmations"]
    *refused, answered = entries
    assert {entry["error"] for entry in refused} == {"TOO_FEW_CONFIRMATIONS"}
    assert answered["expected"]["state"] == "Answered"
    # Its own counts: 51 of 101.
    assert len(answered["event"]["signed"]) == 50
    assert any(set(answered["event"]["signed"]) > set(entry["event"]["signed"]) for entry in refused)


# Opening a box as docs/protocol.md writes it down, without the library's HPKE.

SUITE = b"HPKE" + (0x647A).to_bytes(2, "big") + (1).to_bytes(2, "big") + (2).to_bytes(2, "big")


def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + ikm, "sha256")


def expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # One block of HKDF-Expand is enough for 32 bytes.
    data = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info
    return hmac.digest(prk, data + b"\x01", "sha256")[:length]


def opened_by_hand(parts: bytes, info: bytes, box: bytes) -> bytes:
    mlkem = MLKEM768PrivateKey.from_seed_bytes(parts[:64])
    x25519 = X25519PrivateKey.from_private_bytes(parts[64:])
    first = mlkem.decapsulate(box[:1088])
    second = x25519.exchange(X25519PublicKey.from_public_bytes(box[1088:1120]))
    own = x25519.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(first + second + box[1088:1120] + own + b"\\.//^\\").digest()
    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, box[1120:], b"")


def test_the_recorded_boxes_open_by_the_steps_of_the_description():
    entries = [entry for entry in content("sealing.json")["operations"] if entry["op"] == "box_opened"]
    assert len([entry for entry in entries if entry["success"]]) == 4
    for entry in entries:
        parts = bytes.fromhex(sealing_key(entry["seed"])["parts"])
        given = parts, bytes.fromhex(entry["info"]), bytes.fromhex(entry["box"])
        if entry["success"]:
            assert opened_by_hand(*given).hex() == entry["expected"]
        else:
            with pytest.raises((InvalidTag, ValueError)):
                opened_by_hand(*given)
