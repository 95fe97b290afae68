"""The naive model: client and server of masked aggregation with everybody's neighbours everybody.

The phases are those of Bonawitz et al. 2017 (ePrint 2017/281) without its defences against a server that lies: keys
are advertised, secrets shared, vectors masked, masks removed. `setting` says what each weakness rests on. A client
without a weakness makes the check that the weakness names, in the plainest form; how this project makes it in earnest
stands in `secagg.protocol.pairwise`. For attacks on the model and for nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from enum import Enum, unique

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from secagg.arith import shamir
from secagg.crypto.rng import Rng
from simulations.naive.masks import Mask, expand, pair_seed, public_key, seal, signed, unseal
from simulations.naive.setting import Setting, Weakness

ByClient = Mapping[int, bytes]
"""Something of each client named: a share, a box, a signature, an identity key."""


@unique
class Refusal(Enum):
    """Why a client of the model does not go on."""

    KEYS_NOT_DISTINCT = "two of the keys it was sent are the same"
    OWN_KEY_MISSING = "its own key is not among those it was sent"
    KEY_NOT_SIGNED = "a key it was sent is not signed by the client it is said to belong to"
    BOX_DOES_NOT_OPEN = "a box of shares does not open"
    BELOW_THRESHOLD = "fewer are named alive than the threshold"
    BELOW_MINIMUM = "fewer are named alive than its minimum"
    NAMED_TWICE = "a client is named both alive and dropped"
    OTHER_LISTS = "it has confirmed other lists before"
    NOT_CONFIRMED = "a client named alive has not confirmed the same lists"
    ANSWERED_BEFORE = "it has answered an unmask request in this session"


class RefusedError(Exception):
    """A client refuses what the server asks.

    Attributes:
        client: index of the client that refuses.
        reason: why.
    """

    def __init__(self, client: int, reason: Refusal) -> None:
        """Builds the error."""
        super().__init__(f"client {client} refuses: {reason.value}")
        self.client = client
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AdvertisedKeys:
    """A client's public keys for masks and for boxes of shares, and the signature of its identity key over both."""

    mask_key: bytes
    share_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class View:
    """What the server tells a client of who is still there."""

    alive: frozenset[int]
    dropped: frozenset[int] = frozenset()

    def statement(self) -> bytes:
        """What a client signs to confirm that it was told this."""
        return hashlib.sha256(repr((sorted(self.alive), sorted(self.dropped))).encode()).digest()


@dataclass(frozen=True, slots=True)
class UnmaskAnswer:
    """A client's shares of the self-mask seeds of those named alive, of the mask secrets of those named dropped."""

    sender: int
    seed_shares: ByClient
    secret_shares: ByClient


@dataclass(frozen=True, slots=True)
class Opened:
    """A sum that was opened, modulo 2^32, and what the server wrote in its log about it."""

    total: Mask
    warnings: tuple[str, ...] = ()


class NaiveClient:
    """One client of the model, through one session.

    Args:
        index: its number, from 0.
        setting: of the session.
        vector: uint32[dimension], its values.
        rng: where its secrets come from.
    """

    def __init__(self, index: int, setting: Setting, vector: Mask, rng: Rng) -> None:
        self.index = index
        self._setting = setting
        self._vector = vector
        self._rng = rng
        self._identity = Ed25519PrivateKey.from_private_bytes(rng.bytes(32))
        self._share_secret = rng.bytes(32)
        self._self_seed = rng.bytes(32)
        self.mask_secret = rng.bytes(32)  # open, because a corrupt client hands it to the server
        self._keys: Mapping[int, AdvertisedKeys] = {}
        self._shares: dict[int, tuple[bytes, bytes]] = {}
        self._confirmed: View | None = None
        self._answered = False

    @property
    def identity(self) -> bytes:
        """The public key that the others know this client by before the session."""
        return self._identity.public_key().public_bytes_raw()

    def advertise(self) -> AdvertisedKeys:
        """Its public keys for this session."""
        mask_key, share_key = public_key(self.mask_secret), public_key(self._share_secret)
        return AdvertisedKeys(mask_key, share_key, self._identity.sign(mask_key + share_key))

    def deal(self, keys: Mapping[int, AdvertisedKeys], identities: ByClient) -> dict[int, bytes]:
        """Shares its two secrets among all clients.

        Args:
            keys: of every client, as the server presents them.
            identities: of every client, known beforehand; looked at where keys must be signed.

        Returns:
            A box for every other client.

        Raises:
            RefusedError: the keys are not as they should be.
        """
        self._check_keys(keys, identities)
        self._keys = keys
        points = np.arange(1, len(keys) + 1, dtype=np.uint64)
        seed_shares, secret_shares = (self._split(secret, points) for secret in (self._self_seed, self.mask_secret))
        self._shares[self.index] = (seed_shares[self.index], secret_shares[self.index])
        return {
            other: seal(
                self._share_secret,
                keys[other].share_key,
                (self.index, other),
                seed_shares[other] + secret_shares[other],
            )
            for other in keys
            if other != self.index
        }

    def mask(self, boxes: ByClient) -> Mask:
        """Masks its vector with its own seed and with a seed for every client it has a box of.

        Args:
            boxes: by sender.

        Returns:
            uint32[dimension].

        Raises:
            RefusedError: a box does not open.
        """
        masked = self._vector + expand(self._self_seed, self._setting)
        for sender, box in boxes.items():
            content = unseal(self._share_secret, self._keys[sender].share_key, (sender, self.index), box)
            if content is None:
                raise RefusedError(self.index, Refusal.BOX_DOES_NOT_OPEN)
            self._shares[sender] = (content[: shamir.SHARE_BYTES], content[shamir.SHARE_BYTES :])
            seed = pair_seed(self.mask_secret, self._keys[sender].mask_key)
            masked += signed(expand(seed, self._setting), self.index, sender)
        return masked

    def confirm(self, view: View) -> bytes:
        """Signs the lists it is told, once; the phase exists where clients compare them.

        Raises:
            RefusedError: it has confirmed other lists.
        """
        if self._confirmed not in (None, view):
            raise RefusedError(self.index, Refusal.OTHER_LISTS)
        self._confirmed = view
        return self._identity.sign(view.statement())

    def unmask(self, view: View, confirmations: ByClient, identities: ByClient) -> UnmaskAnswer:
        """Answers, once, the request to take masks off.

        Args:
            view: who is named alive, who dropped.
            confirmations: signatures over the lists, by client; looked at where clients compare them.
            identities: of every client.

        Raises:
            RefusedError: what it is asked it does not do.
        """
        self._check_view(view)
        if not self._setting.has(Weakness.NO_CONSISTENCY):
            for other in view.alive:
                if not _is_signed(identities[other], confirmations.get(other, b""), view.statement()):
                    raise RefusedError(self.index, Refusal.NOT_CONFIRMED)
        self._answered = True
        return UnmaskAnswer(
            self.index,
            {other: self._shares[other][0] for other in view.alive},
            {other: self._shares[other][1] for other in view.dropped},
        )

    def _check_keys(self, keys: Mapping[int, AdvertisedKeys], identities: ByClient) -> None:
        every = [key for each in keys.values() for key in (each.mask_key, each.share_key)]
        if len(set(every)) != len(every):
            raise RefusedError(self.index, Refusal.KEYS_NOT_DISTINCT)
        if keys.get(self.index) != self.advertise():
            raise RefusedError(self.index, Refusal.OWN_KEY_MISSING)
        if not self._setting.has(Weakness.UNSIGNED_KEYS):
            for other, each in keys.items():
                if not _is_signed(identities[other], each.signature, each.mask_key + each.share_key):
                    raise RefusedError(self.index, Refusal.KEY_NOT_SIGNED)

    def _check_view(self, view: View) -> None:
        if self._answered:
            raise RefusedError(self.index, Refusal.ANSWERED_BEFORE)
        if len(view.alive) < self._setting.threshold:
            raise RefusedError(self.index, Refusal.BELOW_THRESHOLD)
        if len(view.alive) < self._setting.minimum and not self._setting.has(Weakness.NO_MINIMUM):
            raise RefusedError(self.index, Refusal.BELOW_MINIMUM)
        if view.alive & view.dropped and not self._setting.has(Weakness.BOTH_SHARES):
            raise RefusedError(self.index, Refusal.NAMED_TWICE)

    def _split(self, secret: bytes, points: NDArray[np.uint64]) -> list[bytes]:
        limbs = shamir.secret_to_limbs(secret)
        coefficients = shamir.uniform_elements(self._rng.bytes, (self._setting.threshold - 1, limbs.size))
        return [shamir.share_to_bytes(row) for row in shamir.share(limbs, coefficients, points)]


class NaiveServer:
    """The server of the model: it passes on keys and boxes, adds masked vectors and takes the masks off.

    Args:
        setting: of the session.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.keys: dict[int, AdvertisedKeys] = {}
        self.boxes: dict[int, dict[int, bytes]] = {}
        self.masked: dict[int, Mask] = {}

    def keys_for(self, recipient: int) -> Mapping[int, AdvertisedKeys]:
        """The keys that this client is shown: the same for all, if the server is honest."""
        del recipient
        return self.keys

    def boxes_for(self, recipient: int) -> ByClient:
        """The boxes that others sealed for this client, by sender."""
        return {sender: sealed[recipient] for sender, sealed in self.boxes.items() if sender != recipient}

    def self_seed(self, client: int, answers: Iterable[UnmaskAnswer]) -> bytes | None:
        """The seed of a client's self mask, or None if there are fewer shares of it than the threshold."""
        return self._join({each.sender: each.seed_shares for each in answers}, client)

    def mask_secret(self, client: int, answers: Iterable[UnmaskAnswer]) -> bytes | None:
        """A client's secret key for pairwise masks, or None if there are too few shares of it."""
        return self._join({each.sender: each.secret_shares for each in answers}, client)

    def open(self, alive: Set[int], answers: Iterable[UnmaskAnswer]) -> Opened | None:
        """The sum over those alive, if the answers have enough shares of what masks it.

        Args:
            alive: whose masked vectors to add; everybody else who dealt counts as dropped.
            answers: of the clients that answered.

        Returns:
            The sum, or None if a mask cannot be taken off.
        """
        asked = tuple(answers)
        total = np.zeros(self.setting.dimension, dtype=np.uint32)
        for client in alive:
            seed = self.self_seed(client, asked)
            if seed is None:
                return None
            total += self.masked[client] - expand(seed, self.setting)
        for gone in self.boxes.keys() - alive:
            secret = self.mask_secret(gone, asked)
            if secret is None:
                return None
            for client in alive:
                seed = pair_seed(secret, self.keys[client].mask_key)
                total -= signed(expand(seed, self.setting), client, gone)
        warnings = ("values may outgrow the modulus",) if self.setting.may_wrap else ()
        return Opened(total, warnings)

    def _join(self, shares: Mapping[int, ByClient], client: int) -> bytes | None:
        held = [sender for sender in sorted(shares) if client in shares[sender]][: self.setting.threshold]
        if len(held) < self.setting.threshold:
            return None
        points = np.array([sender + 1 for sender in held], dtype=np.uint64)
        rows = np.stack([shamir.share_from_bytes(shares[sender][client]) for sender in held])
        return shamir.limbs_to_secret(shamir.reconstruct(points, rows))


def _is_signed(identity: bytes, signature: bytes, statement: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, statement)
    except InvalidSignature:
        return False
    return True
