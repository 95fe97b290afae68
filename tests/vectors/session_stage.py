"""What the lists and the lies of the session are made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from secagg.protocol.pairwise import tables
from secagg.protocol.rows import RowKind, row_key
from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionClose,
)
from secagg.transcript.statements import (
    Accepted,
    Signed,
    UnmaskStatement,
)
from tests.support.published import evidence_of
from tests.support.rng import CountingRng
from tests.vectors.session_records import DROPPED, root_of, signed_text, texts_of
from tests.vectors.session_script import RecordingRng, Script


class Stage:
    """The session as it stands: what is shown, sent and said."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rngs = [CountingRng(b"vector client %d" % i) for i in range(4)]
        self.sent: dict[tuple[int, str], dict[str, Any]] = {}

    def operations(self) -> Iterator[dict[str, Any]]:
        """The operations of the file, each with its outcome."""
        raise NotImplementedError

    def contributors(self):
        return [client for client in range(4) if client != DROPPED]

    def identity(self, client):
        return self.script.clients[client].public_bytes

    def registrar(self):
        return self.script.session.parameters.registrar.hex()

    def log(self, *entries, key=None):
        """These entries after the roster's, or the log as it is, signed by the coordinator or by ``key``."""
        shown = evidence_of(
            key or self.script.key, texts_of(entries) or tuple(self.script.entries), [self.script.roster_entry]
        )
        return {
            "start": shown.start,
            "prefix": [node.hex() for node in shown.prefix],
            "entries": [entry.decode() for entry in shown.entries],
            "checkpoint": shown.checkpoint.decode(),
        }

    def advertised_list(self, client):
        cohort = self.script.cohort
        leaves = [leaf.decode() for leaf in tables.advertised_leaves(self.script.rows, cohort.positions)]
        keys = [[other, f"mask_public/{other}", f"share_public/{other}"] for other in range(4) if other != client]
        return {"type": "advertised-list", "log": self.log(), "leaves": leaves, "keys": keys}

    def shared_list(self, client):
        script, inbox = self.script, []
        leaves = [leaf.decode() for leaf in tables.shared_leaves(script.rows, script.cohort)]
        for sender in script.graph.neighbours(client):
            row = script.rows[row_key(script.cohort.positions[sender], RowKind.SHARE)]
            place = script.graph.neighbours(sender).index(client)
            path = merkle.inclusion_proof([row.hashes[i : i + 32] for i in range(0, len(row.hashes), 32)], place)
            pair = f"pair_box/{sender}/{client}" if sender < client else ""
            commitments = row.commitments[place].hex()
            inbox.append([sender, f"share_box/{sender}/{client}", pair, commitments, [node.hex() for node in path]])
        return {"type": "shared-list", "log": self.log(), "leaves": leaves, "inbox": inbox}

    def closed_list(self):
        state, rows = self.script.state, self.script.rows
        leaves = tables.disposition_leaves(rows, state.cohort, state.present, state.accepted)
        return {"type": "closed-list", "log": self.log(), "leaves": [leaf.decode() for leaf in leaves]}

    def told_u1(self, leaves, good, count=None):
        opened = good["log"]["entries"][0]
        entry = KeysAdvertised(self.script.session.parameters.session, count or len(leaves), root_of(leaves))
        return good | {"log": self.log(opened, entry.to_bytes().decode()), "leaves": leaves}

    def told_u2(self, leaves, good):
        present = sum('"type":"signed"' in leaf for leaf in leaves)
        entry = KeysShared(self.script.session.parameters.session, present, root_of(leaves))
        return good | {"log": self.log(*good["log"]["entries"][:2], entry.to_bytes().decode()), "leaves": leaves}

    def told_u3(self, leaves, good, **changes):
        headers = [canonical.encode(json.loads(leaf)["contribution"]).decode() for leaf in leaves if "accepted" in leaf]
        session = self.script.session.parameters.session
        rejected, dropped = (sum(f'"type":"{kind}"' in leaf for leaf in leaves) for kind in ("rejected", "dropped"))
        roots = root_of(headers), root_of(leaves)
        entry = SessionClose(session, len(headers), rejected, dropped, *roots, bytes(32))
        text = dataclasses.replace(entry, **changes).to_bytes().decode()
        return good | {"log": self.log(*good["log"]["entries"][:3], text), "leaves": leaves}

    def accepted(self, index, contribution):
        value = json.loads(contribution) if isinstance(contribution, str) else contribution
        return Accepted(index, Signed.from_value(value)).to_bytes().decode()

    def resigned(self, event, client, key=None, **changes):
        """A message with its statement changed and signed again, by its client or by ``key``."""
        statement = Signed.from_bytes(event["signed"].encode()).statement
        return event | {
            "signed": signed_text(key or self.script.clients[client], dataclasses.replace(statement, **changes))
        }

    def made_up_answer(self, client):
        close = hashlib.sha256(self.script.entries[3]).digest()
        statement = UnmaskStatement(self.script.session.digest, close, self.identity(client), ())
        return {"type": "unmask", "signed": signed_text(self.script.clients[client], statement)}

    def client(self, client, event):
        rng = RecordingRng(self.rngs[client])
        outcome = self.script.run({"op": "client", "client": client, "event": event, "randomness": rng})
        if not outcome["success"]:
            raise AssertionError(f"client {client}, {event['type']}: {outcome['error']}")
        message = outcome["expected"].get("sent")
        if message is not None:
            self.sent[client, message["type"]] = message
        return {"op": "client", "client": client, "event": event, "randomness": rng.taken.hex()} | outcome

    def refused(self, name, client, event):
        entry = {"op": "client", "attack": name, "client": client, "event": event, "randomness": ""}
        return self._refused(entry)

    def lie(self, name, event):
        return self._refused({"op": "coordinator", "attack": name, "event": event})

    def coordinator(self, event):
        return self._ran({"op": "coordinator", "event": event})

    def _ran(self, entry):
        outcome = self.script.run(entry)
        if not outcome["success"]:
            raise AssertionError(f"{entry['op']}: {outcome['error']}")
        return entry | outcome

    def _refused(self, entry):
        outcome = self.script.run(entry)
        if outcome["success"]:
            raise AssertionError(f"{entry['attack']}: not refused")
        return entry | outcome
