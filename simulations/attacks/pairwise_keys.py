"""A coordinator of pairwise sessions that lies about keys and boxes, before anybody has masked an input."""

from __future__ import annotations

import dataclasses

from secagg.crypto.sealing import SealingError, SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    Contribution,
    IncomingBoxes,
    NeighbourKeys,
    OutgoingBoxes,
    SharedList,
    ShareKeys,
)
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.pairwise.client_states import Contributed
from simulations.attacks.attack import AttackResult
from simulations.attacks.notebook import numbered
from simulations.attacks.pairwise_stage import People, plan_of, scene_of
from simulations.attacks.storyteller import Storyteller, Tale, note_verdicts, state_of
from simulations.world.randomness import SeededRng
from simulations.world.world import World

ALL = 8


# Pair seeds and boxes.


class ForgingSeeds(Storyteller):
    """Seals pair seeds of its own to the client with the highest index, in the names of the others."""

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, _no_tale, world.plan.clients)
        self._victim = people.victim
        self._rng = SeededRng(world.plan.seed, "forged pair seeds")

    async def shared_list(self, caller: bytes) -> SharedList:
        """U2; the victim's boxes are forged."""
        honest = await super().shared_list(caller)
        if self._number(caller) != self._victim:
            return honest
        return dataclasses.replace(honest, inbox=tuple(map(self._forged, honest.inbox)))

    def _forged(self, item: IncomingBoxes) -> IncomingBoxes:
        own, digest = self.loot.index_of(self._victim), self.loot.session.digest
        seed = self.loot.forged[own, item.sender] = Secret(self._rng.bytes(32))
        info = boxes.pair_box_info(digest, self.loot.advertised, item.sender, own)
        promised = item.commitments[:64] + boxes.commit_pair_seed(digest, item.sender, own, seed)
        other = self.world.clients[self.loot.members[item.sender]].identity
        shown = self.loot.host.advertised_list(other).keys
        public = next(keys.mask_public for keys in shown if keys.index == own)
        return dataclasses.replace(item, pair_box=seal(public, info, seed), commitments=promised)


async def forges_pair_seeds(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    people = People.of(plan_of(seed))
    people = dataclasses.replace(people, victim=people.order[-1])
    scene = scene_of(plan_of(seed), ForgingSeeds, people)
    await scene.play()
    book = scene.notebook
    book.step(
        f"Client {people.victim} has the highest index: every pair mask of it comes from a seed that another client "
        "sends it in a box. The coordinator seals seven seeds of its own to that client's key, in the others' names."
    )
    book.step("The self mask it would learn in a normal unmasking; then no mask of that client would be left.")
    note_verdicts(scene.liar, book, "boxes with forged pair seeds")
    return scene.result()


class Thinning(Storyteller):
    """Keeps back from the victim the boxes of all honest clients, and then closes over everybody."""

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, self._over_all, world.plan.clients)
        self._people = people

    async def shared_list(self, caller: bytes) -> SharedList:
        """U2; the victim gets boxes of the corrupt only."""
        honest = await super().shared_list(caller)
        if self._number(caller) != self._people.victim:
            return honest
        kept = tuple(item for item in honest.inbox if self.loot.members[item.sender] in self.corrupt)
        return dataclasses.replace(honest, inbox=kept)

    def _over_all(self, _liar: Storyteller) -> list[Tale]:
        return [self.tale_over("the close over everybody", self._people.everybody)]


async def withholds_boxes(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    scene = scene_of(plan_of(seed), Thinning)
    people, book = scene.people, scene.notebook
    await scene.play()
    book.step(
        f"The coordinator keeps the boxes of all honest clients back from client {people.victim}. Left are those of "
        f"{numbered(people.corrupt)}, whose pair seeds it knows."
    )
    book.step("Were it to mask with those it heard from, only its self mask would hide its input, and that is opened.")
    note_verdicts(scene.liar, book, "a set of boxes that is not complete")
    return scene.result()


class Moving(Storyteller):
    """Puts boxes where they do not belong.

    Attributes:
        senders: two honest clients; of the first a box goes to the wrong client, of the second one is passed off as
            the first's.
        wrong, victim: who gets those.
        taken: whether the victim, when it uploads, holds one share as that of both senders.
    """

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, _no_tale, world.plan.clients)
        self.senders = people.honest[0], people.honest[1]
        self.wrong, self.victim = people.honest[-2:]
        self.taken = False

    async def shared_list(self, caller: bytes) -> SharedList:
        """U2; two clients find a box that is not theirs, or not its sender's."""
        honest, number = await super().shared_list(caller), self._number(caller)
        first, second = map(self.loot.index_of, self.senders)
        if number == self.wrong:
            theirs = await super().shared_list(self.world.clients[self.victim].identity)
            moved = next(item for item in theirs.inbox if item.sender == first)
        elif number == self.victim:
            source = next(item for item in honest.inbox if item.sender == second)
            moved = dataclasses.replace(source, sender=first)
        else:
            return honest
        inbox = tuple(moved if item.sender == first else item for item in honest.inbox)
        return dataclasses.replace(honest, inbox=inbox)

    async def announce(self, caller: bytes, message: Contribution | OneShotContribution) -> bool:
        """Take a header, and look at what the victim holds by now."""
        if self._number(caller) == self.victim:
            state = state_of(self.world.clients[self.victim])
            shares = state.shares if isinstance(state, Contributed) else ()
            held = {each.index: each.self_mask.expose() for each in shares}
            first, second = (held.get(self.loot.index_of(sender)) for sender in self.senders)
            self.taken = first is not None and first == second
        return await super().announce(caller, message)


async def moves_boxes(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    liars: list[Moving] = []

    def make(world: World, people: People) -> Moving:
        liars.append(Moving(world, people))
        return liars[-1]

    scene = scene_of(plan_of(seed), make)
    (liar,), book = liars, scene.notebook
    await scene.play()
    first, second = liar.senders
    book.step(f"The box that client {first} sealed for client {liar.victim} goes to client {liar.wrong} instead.")
    book.step(f"Client {liar.victim} gets the box of client {second} in the name of client {first}.")
    opened, tried = liar.loot.opened_by_accomplices()
    book.step(
        f"{numbered(liar.corrupt).capitalize()} try their own keys on the {tried} share boxes between honest clients: "
        f"{opened} open."
    )
    note_verdicts(liar, book, "a box that was meant for another place")
    if liar.taken:
        book.step(f"Client {liar.victim} took the shares of client {second} for those of client {first}.")
    ended = scene.result()
    return dataclasses.replace(ended, succeeded=ended.succeeded or liar.taken or opened > 0)


def _no_tale(_liar: Storyteller) -> list[Tale]:
    return []


# Keys.


async def substitutes_keys(seed: int) -> AttackResult:
    """See ``simulations.attacks.pairwise_attacks``."""
    scene = scene_of(plan_of(seed), Impersonating)
    people, book = scene.people, scene.notebook
    await scene.play()
    book.step(
        f"The coordinator shows client {people.victim} sealing keys of its own in place of those of all other clients: "
        "whatever that client seals, it can read."
    )
    self_masks, roots = scene.loot.shares_of(people.victim)
    book.step(
        f"It holds {self_masks} shares of that client's self-mask seed and {roots} of its root; {scene.loot.threshold} "
        "open a secret."
    )
    note_verdicts(scene.liar, book, "keys that their owners did not sign")
    return scene.result()


class Impersonating(Storyteller):
    """Puts its own sealing keys between the victim and everybody else."""

    def __init__(self, world: World, people: People) -> None:
        super().__init__(world, people.corrupt, _no_tale, world.plan.clients)
        rng = SeededRng(world.plan.seed, "impersonator")
        self._victim = people.victim
        self._keys = [SealingKey(Secret(rng.bytes(32))) for _ in range(2 * world.plan.clients)]

    async def advertised_list(self, caller: bytes) -> AdvertisedList:
        """U1; the victim finds the coordinator's keys under all other names."""
        honest = await super().advertised_list(caller)
        if self._number(caller) != self._victim:
            return honest
        keys = (NeighbourKeys(each.index, *self._public(each.index)) for each in honest.keys)
        return dataclasses.replace(honest, keys=tuple(keys))

    async def send(self, caller: bytes, message: ClientMessage) -> None:
        """Read what the victim sealed to keys of the coordinator's, then go on."""
        if isinstance(message, ShareKeys) and self._number(caller) == self._victim:
            for box in message.boxes:
                self._read(box)
        await super().send(caller, message)

    def _public(self, index: int) -> tuple[bytes, bytes]:
        return self._keys[2 * index].public_bytes, self._keys[2 * index + 1].public_bytes

    def _read(self, box: OutgoingBoxes) -> None:
        own = self.loot.index_of(self._victim)
        info = boxes.share_box_info(self.loot.session.digest, self.loot.advertised, own, box.recipient)
        try:
            self_mask, root = boxes.split_share_plaintext(self._keys[2 * box.recipient + 1].open(box.share_box, info))
        except SealingError:
            return
        self.loot.held_self_mask(own, box.recipient, self_mask.expose())
        self.loot.held_root(own, box.recipient, root.expose())
