"""An honest session, and at every step what a liar would send."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive import boxes
from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    SessionAbort,
)
from secagg.transcript.statements import (
    Absent,
    AdvertiseStatement,
    ContributionHeader,
    Dropped,
    RootShare,
    SelfMaskShare,
    ShareStatement,
    Signed,
)
from tests.vectors.session_records import AWAY, DROPPED, LANES, SEEDS, START_S, identity_of, parameters_of, signed_text
from tests.vectors.session_stage import Stage
from tests.vectors.static_operations import OTHER, ROOT, hex_of, raw


class Play(Stage):
    """An honest session, and at every step what a liar would send."""

    def operations(self) -> Iterator[dict[str, Any]]:
        seeds = {"coordinator_seed": ROOT, "registrar_seed": OTHER, "identity_seeds": [seed.hex() for seed in SEEDS]}
        text = parameters_of(SEEDS).to_bytes().decode()
        yield self._ran({"op": "setup"} | seeds | {"parameters": text})
        yield from self.advertise()
        yield from self.share()
        yield from self.contribute()
        yield from self.close()
        yield from self.answer()
        yield from self.end()

    def advertise(self):
        policy = {"min_contributors": 3, "tolerated_corrupt": "0/1", "registrars": [self.registrar()]}
        start = {"type": "start", "policy": policy, "log": self.log()}
        floor = {"policy": policy | {"min_contributors": 4}}
        yield self.refused("a session below the client's own floor", 0, start | floor)
        pinned = {"policy": policy | {"registrars": [self.identity(0).hex()]}}
        yield self.refused("a registrar that this client did not pin", 0, start | pinned)
        yield self.refused("a log signed by somebody else", 0, start | {"log": self.log(key=self.script.identities[0])})
        for client in range(4):
            yield self.client(client, start)
        first = self.sent[0, "advertise-keys"]
        stranger = SigningKey(Secret(bytes(32)))
        statement = self.script.states[0].sent.statement
        yield self.lie("a key that is not the signed one", first | {"mask_public": "share_public/0"})
        junk = self.script._named("junk_public", bytes(1216))
        unusable = self.resigned(first, 0, mask_key=hashlib.sha256(bytes(1216)).digest()) | {"mask_public": junk}
        yield self.lie("a key that cannot be sealed to", unusable)
        yield self.lie("another's signature", self.resigned(first, 0, key=self.script.clients[1]))
        yield self.lie("another session", self.resigned(first, 0, session=bytes(32)))
        unknown = dataclasses.replace(statement, identity=stranger.public_bytes)
        yield self.lie("outside the roster", first | {"signed": signed_text(stranger, unknown)})
        for client in range(4):
            yield self.coordinator(self.sent[client, "advertise-keys"])
            if client == 0:
                yield self.coordinator(first)
                other = self.resigned(first, 0, mask_key=statement.share_key)
                yield self.lie("other keys of the same client", other | {"mask_public": "share_public/0"})
        yield self.coordinator({"type": "deadline", "now_s": START_S + 59})
        yield self.coordinator({"type": "deadline", "now_s": START_S + 60})
        late = self.script.identities[AWAY]
        yield self.lie("keys after the phase", self.resigned(first, 0, key=late, identity=late.public_bytes))

    def share(self):
        good = [self.advertised_list(client) for client in range(4)]
        yield from self.lies_about_u1(good[0])
        for client in range(4):
            yield self.client(client, good[client])
        yield self.refused("U1 a second time", 0, good[0])
        first = self.sent[0, "share-keys"]
        swapped = [[recipient, share, "", promised] for recipient, share, _, promised in first["boxes"]]
        yield self.lie("a recipient left out", first | {"boxes": first["boxes"][1:]})
        yield self.lie("a pair box left out", first | {"boxes": swapped})
        moved = [[r, s, p, c] for (r, _, p, c), (_, s, _, _) in zip(first["boxes"], first["boxes"][::-1], strict=True)]
        yield self.lie("boxes in exchange", first | {"boxes": moved})
        cut = [[*box[:3], box[3][:-2]] for box in first["boxes"]]
        yield self.lie("commitments cut short", first | {"boxes": cut})
        other = [[*box[:3], "00" * (len(box[3]) // 2)] for box in first["boxes"]]
        yield self.lie("commitments that were not signed", first | {"boxes": other})
        yield self.lie("over another U1", self.resigned(first, 0, advertised=bytes(32)))
        nothing = self.script._named("linear_hash_of_zeros", bytes(HASH_BYTES))
        digests = bytes(32), self.identity(0), bytes(32), hashlib.sha256(bytes(HASH_BYTES)).digest()
        early = ContributionHeader(self.script.session.digest, *digests, LANES.lanes, ())
        signed = signed_text(self.script.clients[0], early)
        header = {"type": "contribution", "signed": signed, "linear_hash": nothing}
        yield self.lie("a header before its phase", header)
        for client in range(4):
            yield self.coordinator(self.sent[client, "share-keys"])

    def lies_about_u1(self, good):
        leaves = good["leaves"]
        altered = json.loads(self.sent[0, "advertise-keys"]["signed"])["statement"]
        mine = signed_text(self.script.clients[0], AdvertiseStatement.from_value(altered | {"mask_key": "00" * 32}))
        stranger = SigningKey(Secret(bytes(32)))
        foreign = AdvertiseStatement.from_value(altered | {"identity": stranger.public_bytes.hex()})
        outside = sorted([*leaves[:3], signed_text(stranger, foreign)], key=identity_of)
        junk = self.script._named("junk_public", bytes(1216))
        other = self.resigned(self.sent[3, "advertise-keys"], 3, mask_key=hashlib.sha256(bytes(1216)).digest())[
            "signed"
        ]
        yield self.refused("a list with another root", 0, good | {"leaves": [*leaves[:3], other]})
        unusable = [*good["keys"][:2], [3, junk, good["keys"][2][2]]]
        told = self.told_u1([*leaves[:3], other], good) | {"keys": unusable}
        yield self.refused("a neighbour's key that cannot be sealed to", 0, told)
        yield self.refused("another count", 0, self.told_u1(leaves, good, count=3))
        yield self.refused("two clients only", 0, self.told_u1(leaves[:2], good))
        yield self.refused("identities out of order", 0, self.told_u1(leaves[::-1], good))
        yield self.refused("a client twice", 0, self.told_u1([*leaves, leaves[3]], good))
        yield self.refused("without this client", 0, self.told_u1(leaves[1:], good))
        yield self.refused("this client's keys exchanged", 0, self.told_u1([mine, *leaves[1:]], good))
        yield self.refused("somebody outside the roster", 0, self.told_u1(outside, good))
        value = json.loads(leaves[2])
        value["statement"]["mask_key"] = "00" * 32
        forged = canonical.encode(value).decode()
        yield self.refused("an altered statement of another", 0, self.told_u1([*leaves[:2], forged, leaves[3]], good))
        keys = [[index, share, mask] for index, mask, share in good["keys"]]
        yield self.refused("a neighbour's key substituted", 0, good | {"keys": keys})
        yield self.refused("a neighbour's key withheld", 0, good | {"keys": good["keys"][1:]})
        again = self.script.entries[0].decode().replace('"retention_s":0', '"retention_s":1')
        yield self.refused(
            "other parameters than before", 0, good | {"log": self.log(again, good["log"]["entries"][1])}
        )
        yield self.refused("no second entry", 0, good | {"log": self.log(good["log"]["entries"][0])})

    def contribute(self):
        good = [self.shared_list(client) for client in range(4)]
        yield from self.lies_about_u2(good[0])
        for client in range(4):
            yield self.client(client, good[client])
        for client in range(4):
            vector = np.linspace(-0.25, 0.25, 9, dtype=np.float32) * np.float32(client + 1) / np.float32(4)
            made = self._ran({"op": "upload", "client": client, "vector": hex_of(vector)})
            yield made
            if client == 0:
                # Encoding again, as after a crash, gives the same bytes.
                yield self._ran({"op": "upload", "client": client, "vector": hex_of(vector)})
            digests = {name: made["expected"][name] for name in ("sha256", "linear_hash")}
            masked_event = {"type": "input-masked", "lanes": LANES.lanes} | digests
            if client == 0:
                yield self.refused("an upload of another length", 0, masked_event | {"lanes": LANES.lanes + 1})
                short = {"linear_hash": self.script._named("short_linear_hash", bytes(HASH_BYTES - 8))}
                yield self.refused("a linear hash of another length", 0, masked_event | short)
            yield self.client(client, masked_event)
        yield from self.lies_to_the_collector()
        for client in self.contributors():
            header = self.sent[client, "contribution"]
            digest = json.loads(header["signed"])["statement"]["upload"]
            yield self.coordinator(header)
            if client == 0:
                yield self.lie("a second header", self.resigned(header, 0, upload=bytes(32)))
                yield self.lie("another linear hash afterwards", header | {"linear_hash": "linear_hash/1"})
                staged = {"type": "upload-staged", "signed": header["signed"], "sha256": "00" * 32}
                yield self.lie("other bytes than announced", staged)
            made = self.coordinator({"type": "upload-staged", "signed": header["signed"], "sha256": digest})
            yield made
            receipt = {"type": "receipt"} | {name: made["expected"][name] for name in ("receipt", "signature")}
            if client == 0:
                other = canonical.encode(json.loads(receipt["receipt"]) | {"contribution": "00" * 32}).decode()
                yield self.refused("a receipt for something else", 0, receipt | {"receipt": other})
                yield self.refused("a receipt signed by nobody", 0, receipt | {"signature": "00" * 64})
            yield self.client(client, receipt)
        yield self.coordinator({"type": "deadline", "now_s": START_S + 120})

    def lies_about_u2(self, good):
        leaves, inbox = good["leaves"], good["inbox"]
        absent = [Absent(index).to_bytes().decode() for index in range(4)]
        other = self.resigned(self.sent[3, "share-keys"], 3, boxes=bytes(32))["signed"]
        yield self.refused("a list with another root", 0, good | {"leaves": [*leaves[:3], other]})
        yield self.refused("this client said to be absent", 0, self.told_u2([absent[0], *leaves[1:]], good))
        yield self.refused("two clients only", 0, self.told_u2([*leaves[:2], *absent[2:]], good))
        yield self.refused("an absence out of place", 0, self.told_u2([*leaves[:3], absent[2]], good))
        yield self.refused("leaves exchanged", 0, self.told_u2([leaves[0], leaves[2], leaves[1], leaves[3]], good))
        yield self.refused("fewer leaves than members", 0, self.told_u2(leaves[:3], good))
        yield self.refused("the boxes of one neighbour withheld", 0, good | {"inbox": inbox[1:]})
        exchanged = [[1, *inbox[1][1:]], [2, *inbox[0][1:]], inbox[2]]
        yield self.refused("boxes of another sender", 0, good | {"inbox": exchanged})
        meant = [[1, "share_box/1/2", "pair_box/1/2", *inbox[0][3:]], *inbox[1:]]
        yield self.refused("boxes meant for another", 0, good | {"inbox": meant})
        yield self.refused("a path cut short", 0, good | {"inbox": [[*inbox[0][:4], inbox[0][4][:-1]], *inbox[1:]]})
        altered = [[*inbox[0][:3], "00" * 64, inbox[0][4]], *inbox[1:]]
        yield self.refused("commitments that their dealer did not sign", 0, good | {"inbox": altered})
        junk = self.script._named("junk", bytes(boxes.SHARE_BOX_BYTES))
        does_not_open = {sender: [sender, junk, "", "00" * 64] for sender in (1, 2)}
        yield self.refused("signed boxes of two neighbours that do not open", 0, self.redealt(good, does_not_open))
        for name, place in (("self-mask", 0), ("root", 64)):
            broken = {item[0]: [*item[:3], self.promise(item[3], place)] for item in inbox[:2]}
            told = self.redealt(good, broken)
            yield self.refused(f"boxes of two neighbours that promised other {name} shares", 0, told)
        middle = self.shared_list(3)
        broken = {item[0]: [*item[:3], self.promise(item[3], 128)] for item in middle["inbox"][:2]}
        yield self.refused("boxes of two neighbours that promised other pair seeds", 3, self.redealt(middle, broken, 3))
        position = good["log"]["entries"]
        yield self.refused(
            "two entries in exchange", 0, good | {"log": self.log(position[0], position[2], position[1])}
        )

    def promise(self, commitments, place):
        """Commitments with the one that begins at this hexadecimal digit made to something else."""
        return commitments[:place] + hashlib.sha256(b"something else").hexdigest() + commitments[place + 64 :]

    def redealt(self, good, dealt, client=0):
        """The senders in ``dealt`` collude: these boxes for ``client``, under roots that they signed."""
        leaves, inbox = list(good["leaves"]), list(good["inbox"])
        for sender, item in dealt.items():
            data = [self.script.table[name] if name else b"" for name in item[1:3]]
            recipients = self.script.graph.neighbours(sender)
            place = recipients.index(client)
            hashes = [merkle.leaf_hash(boxes.box_leaf(client, *data, raw(item[3])))] * len(recipients)
            path = [node.hex() for node in merkle.inclusion_proof(hashes, place)]
            inbox = [[*item, path] if other[0] == sender else other for other in inbox]
            value = json.loads(leaves[sender])["statement"] | {"boxes": merkle.root_of_hashes(hashes).hex()}
            leaves[sender] = signed_text(self.script.clients[sender], ShareStatement.from_value(value))
        return self.told_u2(leaves, good) | {"inbox": inbox}

    def lies_to_the_collector(self):
        header = self.sent[0, "contribution"]
        yield self.lie("a header over another U2", self.resigned(header, 0, shared=bytes(32)))
        yield self.lie("an upload of another length", self.resigned(header, 0, lanes=LANES.lanes + 1))
        yield self.lie("a linear hash that is not the signed one", header | {"linear_hash": "linear_hash/1"})
        short = hashlib.sha256(self.script.table["short_linear_hash"]).digest()
        cut = self.resigned(header, 0, linear_hash=short) | {"linear_hash": "short_linear_hash"}
        yield self.lie("a signed linear hash of another length", cut)
        yield self.lie("missing somebody who is no neighbour", self.resigned(header, 0, missing=(0,)))
        yield self.lie("masked with fewer than the threshold", self.resigned(header, 0, missing=(1, 2)))
        staged = {"type": "upload-staged", "signed": header["signed"], "sha256": "00" * 32}
        yield self.lie("bytes without a header", staged)
        alien = self.script.identities[AWAY]
        yield self.lie(
            "a member who did not advertise", self.resigned(header, 0, key=alien, identity=alien.public_bytes)
        )

    def close(self):
        good = self.closed_list()
        leaves = good["leaves"]
        for name, client, event in self.lies_about_u3(good):
            yield self.refused(name, client, event)
        for client in self.contributors():
            yield self.client(client, good)
        yield self.refused("a second close entry", 0, self.told_u3(leaves, good))
        # Left out, and out of the session: no other close entry is looked at.
        yield self.client(DROPPED, good)
        mine = self.accepted(DROPPED, self.sent[DROPPED, "contribution"]["signed"])
        fork = self.told_u3([leaves[0], mine, *leaves[2:]], good)
        yield self.refused("a close entry with it for a client that another one left out", DROPPED, fork)
        first = self.sent[0, "confirm-close"]
        yield self.lie("a confirmation of another close entry", self.resigned(first, 0, close=bytes(32)))
        dropped = self.resigned(first, 0, key=self.script.clients[DROPPED], identity=self.identity(DROPPED))
        yield self.lie("a confirmation of a client left out", dropped)
        yield self.lie("an answer before its phase", self.made_up_answer(0))
        for client in self.contributors():
            yield self.coordinator(self.sent[client, "confirm-close"])

    def lies_about_u3(self, good):
        leaves, entries = good["leaves"], good["log"]["entries"]
        gone = [Dropped(index, "masked-input").to_bytes().decode() for index in range(4)]
        earlier = Dropped(DROPPED, "share-keys").to_bytes().decode()
        yield "a list with another root", 0, good | {"leaves": [leaves[0], earlier, *leaves[2:]]}
        yield "left out of a sum over two", 0, self.told_u3([gone[0], *leaves[1:]], good)
        yield "a sum over two", 0, self.told_u3([leaves[0], gone[1], gone[2], leaves[3]], good)
        yield "another count", 0, self.told_u3(leaves, good, count=4)
        yield "a client that dropped counted as rejected", 0, self.told_u3(leaves, good, rejected=1, dropped=0)
        yield "another root of the contributions", 0, self.told_u3(leaves, good, contributions=bytes(32))
        yield (
            "a header in another's place",
            0,
            self.told_u3(
                [leaves[0], leaves[1], self.accepted(2, json.loads(leaves[3])["contribution"]), leaves[3]], good
            ),
        )
        one_end = json.loads(self.resigned(self.sent[3, "contribution"], 3, missing=(0,))["signed"])
        yield "an edge applied at one end only", 2, self.told_u3([*leaves[:3], self.accepted(3, one_end)], good)
        lost = json.loads(leaves[3])["contribution"] | {"signature": "00" * 64}
        yield "a header that nobody signed", 0, self.told_u3([*leaves[:3], self.accepted(3, lost)], good)
        second = self.told_u3([gone[0], *leaves[1:]], good)["log"]["entries"][3]
        yield "two close entries in one log", 0, good | {"log": self.log(*entries, second)}
        fork = entries[2].replace('"count":4', '"count":3')
        yield "another U2 than before", 0, good | {"log": self.log(*entries[:2], fork, entries[3])}
        yield "no close entry", 0, good | {"log": self.log(*entries[:3])}

    def answer(self):
        for client in self.contributors():
            others = [other for other in self.contributors() if other != client]
            good = {
                "type": "confirmations",
                "signed": [self.sent[other, "confirm-close"]["signed"] for other in others],
            }
            if client == 0:
                yield from self.lies_about_confirmations(good)
            yield self.client(client, good)
        yield self.refused("confirmations a second time", 0, good)
        first = self.sent[0, "unmask"]
        shares = list(Signed.from_bytes(first["signed"].encode()).statement.shares)
        opposite = [RootShare(shares[1].index, shares[1].share) if i == 1 else s for i, s in enumerate(shares)]
        yield self.lie("a root share of a contributor", self.resigned(first, 0, shares=tuple(opposite)))
        opposite = [SelfMaskShare(s.index, s.share) if s.index == DROPPED else s for s in shares]
        yield self.lie("a self-mask share of a client left out", self.resigned(first, 0, shares=tuple(opposite)))
        wrong = [dataclasses.replace(shares[0], share=bytes(36)), *shares[1:]]
        yield self.lie("a self-mask share that its owner did not deal", self.resigned(first, 0, shares=tuple(wrong)))
        wrong = [RootShare(s.index, bytes(36)) if s.index == DROPPED else s for s in shares]
        yield self.lie("a root share that its owner did not deal", self.resigned(first, 0, shares=tuple(wrong)))
        yield self.lie("a share left out", self.resigned(first, 0, shares=tuple(shares[1:])))
        yield self.lie("an answer for another close entry", self.resigned(first, 0, close=bytes(32)))
        yield self.lie("an answer of a client left out", self.made_up_answer(DROPPED))
        for client in self.contributors():
            yield self.coordinator(self.sent[client, "unmask"])

    def lies_about_confirmations(self, good):
        first = self.sent[2, "confirm-close"]
        for name, event in (
            ("one confirmation twice", first),
            ("a confirmation of another close entry", self.resigned(first, 2, close=bytes(32))),
            ("a confirmation from another session", self.resigned(first, 2, session=bytes(32))),
            ("another's signature", self.resigned(first, 2, key=self.script.clients[3])),
            ("a client left out", self.resigned(first, 1, identity=self.identity(1))),
            ("this client's own", self.sent[0, "confirm-close"]),
            ("a statement of another phase", self.sent[2, "contribution"]),
        ):
            yield self.refused(name, 0, good | {"signed": [first["signed"], event["signed"]]})

    def end(self):
        answers = {
            client: Signed.from_bytes(self.sent[client, "unmask"]["signed"].encode()) for client in self.contributors()
        }
        for owner in range(4):
            shares = [
                [client, share.share.hex()]
                for client, signed in answers.items()
                for share in signed.statement.shares
                if share.index == owner
            ]
            yield self._ran({"op": "reconstruct", "threshold": 2, "shares": shares})
        removal = self.script.removal
        keys = {name: [key.expose().hex() for key in getattr(removal, name)] for name in ("add", "subtract")}
        yield self._ran({"op": "removed", "lanes": hex_of(self.script.folded)} | keys)
        encoding = self.script.session.parameters.encoding.to_bytes().decode()
        lanes = hex_of(self.script.opened)
        yield self._ran({"op": "decoded", "encoding": encoding, "lanes": lanes, "contributors": 3})
        entries = [entry.decode() for entry in self.script.entries]
        ended = {"type": "session-ended", "log": self.log(*entries)}
        yield self.refused("no end", 0, ended | {"log": self.log(*entries[:4])})
        yield self.refused("a second result", 0, ended | {"log": self.log(*entries, entries[4])})
        aborted = (
            SessionAbort(self.script.session.parameters.session, "why not", 0, merkle.root(())).to_bytes().decode()
        )
        yield self.refused("an abort after the result", 0, ended | {"log": self.log(*entries, aborted)})
        fourth = entries[4].replace('"count":3', '"count":4')
        yield self.refused("a result over another count", 0, ended | {"log": self.log(*entries[:4], fourth)})
        for client in self.contributors()[:-1]:
            yield self.client(client, ended)
        yield self.client(self.contributors()[-1], ended | {"log": self.log(*entries[:4], aborted)})
        yield self.refused("anything after the end", 0, ended)
        yield self.refused("a result after an abort", self.contributors()[-1], ended)
        yield self.lie("an answer after the end", self.made_up_answer(DROPPED))
        yield self.lie("another answer of the same client", self.resigned(self.sent[0, "unmask"], 0, close=bytes(32)))
        yield self.coordinator(self.sent[0, "unmask"])
