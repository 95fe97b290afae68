"""One client of a large session: in a sparse graph the confirmations of its neighbours alone are not enough.

Its two neighbours only join; of everybody else there is no more than what the coordinator shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.protocol import log
from secagg.protocol.pairwise import client
from secagg.transcript import merkle
from secagg.transcript.entries import KeysAdvertised, KeysShared, SessionClose
from secagg.transcript.statements import (
    ConfirmStatement,
    ContributionHeader,
    ShareStatement,
)
from tests.support.published import NO_WITNESSES
from tests.support.rng import CountingRng
from tests.vectors.session_records import parameters_of, root_of, signed_text
from tests.vectors.session_script import Script, log_of
from tests.vectors.session_stage import Stage
from tests.vectors.static_operations import OTHER, ROOT, hex_of

SIZE = 101
"""The smallest cohort whose graph is not complete."""
QUORUM = 51
SEEDS = sorted(
    (CountingRng(b"vector crowd %d" % i).bytes(32) for i in range(SIZE + 1)),
    key=lambda seed: SigningKey(Secret(seed)).public_bytes,
)


class CrowdPlay(Stage):
    """Client 0 from its join to its answer."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.rngs = [CountingRng(b"vector crowd client %d" % i) for i in range(SIZE)]

    def operations(self) -> Iterator[dict[str, Any]]:
        """The whole file."""
        parameters = parameters_of(SEEDS)
        encoding = dataclasses.replace(parameters.encoding, max_contributors=128)
        parameters = dataclasses.replace(parameters, encoding=encoding, expected_dropout=Fraction(0))
        seeds = {"coordinator_seed": ROOT, "registrar_seed": OTHER, "identity_seeds": [seed.hex() for seed in SEEDS]}
        yield self._ran({"op": "setup"} | seeds | {"parameters": parameters.to_bytes().decode()})
        yield from self.join()
        yield from self.share()
        yield from self.close()
        yield from self.answer()

    def join(self):
        policy = {"min_contributors": 3, "tolerated_corrupt": "0/1", "registrars": []}
        start = {"type": "start", "policy": policy, "log": self.log()}
        statements = [self.advertised(index, start) for index in range(SIZE)]
        self.leaves = [signed_text(key, each) for key, each in zip(self.script.clients, statements, strict=True)]
        self.root = root_of(self.leaves)
        graph = self.script.session.graph(SIZE, self.root)
        self.neighbours = graph.neighbours(0)
        for index in (0, *self.neighbours):
            yield self.client(index, start)
        self.entries = [start["log"]["entries"][0], self.entry(KeysAdvertised, SIZE, self.root)]
        keys = [[other, f"mask_public/{other}", f"share_public/{other}"] for other in self.neighbours]
        yield self.client(0, {"type": "advertised-list", "log": self.shown(), "leaves": self.leaves, "keys": keys})
        self.recipients = {other: graph.neighbours(other) for other in self.neighbours}

    def advertised(self, index, start):
        """What this client will advertise, as it will draw it."""
        context = client.ClientContext(
            self.script.clients[index], self.script.session, client.ClientPolicy(), NO_WITNESSES
        )
        view = log.join(self.script.session.parameters, NO_WITNESSES, log_of(start["log"]))
        rng = CountingRng(b"vector crowd client %d" % index)
        return client.start(context, view, rng).state.sent.statement

    def share(self):
        leaves, inbox = [], []
        for index, key in enumerate(self.script.clients):
            digests = [hashlib.sha256(b"%d %d" % (index, i)).digest() for i in range(3)]
            if index in self.neighbours:
                item, digests[2] = self.dealt(index)
                inbox.append(item)
            statement = ShareStatement(self.script.session.digest, self.root, key.public_bytes, *digests)
            leaves.append(signed_text(key, statement) if index else self.sent[0, "share-keys"]["signed"])
        self.shared = root_of(leaves)
        self.entries.append(self.entry(KeysShared, SIZE, self.shared))
        yield self.client(0, {"type": "shared-list", "log": self.shown(), "leaves": leaves, "inbox": inbox})
        made = self._ran({"op": "upload", "client": 0, "vector": hex_of(np.full(9, 0.125, dtype=np.float32))})
        yield made
        lanes = self.script.session.field_layout.lanes
        digests = {name: made["expected"][name] for name in ("sha256", "linear_hash")}
        yield self.client(0, {"type": "input-masked", "lanes": lanes} | digests)

    def dealt(self, sender):
        """What a neighbour dealt to client 0, and the root over its boxes."""
        session, shares = self.script.session.digest, [bytes([sender]) + bytes(35), bytes(35) + b"\x01"]
        info = boxes.share_box_info(session, self.root, sender, 0)
        name, public = f"share_box/{sender}/0", self.script.table["share_public/0"]
        self.script._named(name, self.script._seal(public, info, Secret(b"".join(shares))))
        promised = boxes.commit_self_mask_share(session, sender, 0, shares[0])
        promised += boxes.commit_root_share(session, sender, 0, shares[1])
        hashes = [
            merkle.leaf_hash(boxes.box_leaf(0, self.script.table[name], b"", promised)) if other == 0 else bytes(32)
            for other in self.recipients[sender]
        ]
        path = merkle.inclusion_proof(hashes, self.recipients[sender].index(0))
        return [sender, name, "", promised.hex(), [node.hex() for node in path]], merkle.root_of_hashes(hashes)

    def close(self):
        lanes, headers = self.script.session.field_layout.lanes, []
        for index, key in enumerate(self.script.clients):
            digests = [hashlib.sha256(b"%s %d" % (name, index)).digest() for name in (b"upload", b"linear hash")]
            header = ContributionHeader(self.script.session.digest, self.shared, key.public_bytes, *digests, lanes, ())
            headers.append(signed_text(key, header) if index else self.sent[0, "contribution"]["signed"])
        leaves = [self.accepted(index, text) for index, text in enumerate(headers)]
        roots = root_of(headers), root_of(leaves)
        entry = SessionClose(self.script.session.parameters.session, SIZE, 0, 0, *roots, bytes(32))
        self.entries.append(entry.to_bytes().decode())
        yield self.client(0, {"type": "closed-list", "log": self.shown(), "leaves": leaves})

    def answer(self):
        close = hashlib.sha256(self.entries[3].encode()).digest()
        signed = {
            index: signed_text(key, ConfirmStatement(self.script.session.digest, close, key.public_bytes))
            for index, key in enumerate(self.script.clients)
        }
        strangers = [index for index in range(1, SIZE) if index not in self.neighbours]

        def confirmed(indices):
            return {"type": "confirmations", "signed": [signed[index] for index in sorted(indices)]}

        yield self.refused("its neighbours' confirmations only", 0, confirmed(self.neighbours))
        others = strangers[: QUORUM - 1 - len(self.neighbours)]
        yield self.refused("one less than the quorum", 0, confirmed([*self.neighbours, *others[:-1]]))
        yield self.refused("everybody but one neighbour", 0, confirmed([self.neighbours[0], *strangers]))
        yield self.client(0, confirmed([*self.neighbours, *others]))

    def entry(self, kind, count, root):
        return kind(self.script.session.parameters.session, count, root).to_bytes().decode()

    def shown(self):
        return self.log(*self.entries)
