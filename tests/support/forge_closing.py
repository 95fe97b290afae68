"""The second half of a forged session: contributions, close, opening and result (see ``forge_session``)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from secagg.arith import linear_hash
from secagg.arith.keystream import Keystream, add_masks
from secagg.arith.quantiser import clip
from secagg.crypto.secret import Secret
from secagg.derive import boxes
from secagg.derive.result import flatten_map, mean_of
from secagg.privacy.noise_share import add_noise
from secagg.transcript import merkle
from secagg.transcript.encoding import Encoding, Flattening
from secagg.transcript.entries import SessionAbort, SessionClose, SessionOpen, SessionResult
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.published import PairBox, PairPromise
from secagg.transcript.statements import (
    Accepted,
    ContributionHeader,
    Disposition,
    Dropped,
    Rejected,
    RootShare,
    SelfMaskShare,
    Signed,
    UnmaskStatement,
)
from tests.support.aggregates import aggregate_of
from tests.support.forge_session import OpeningForge, lines, sha256


class SessionForge(OpeningForge):
    """All steps of a session: those of ``OpeningForge``, then ``close``, then ``result`` or ``abort``."""

    def close(self) -> SessionClose:
        """U3: uploads, headers, dispositions and the limb sum."""
        self._upload()
        self.contributions: dict[int, Signed] = self._made(
            "contributions", {index: self.signed(index, header) for index, header in self.headers.items()}
        )
        self.dispositions: list[Disposition] = self._made(
            "dispositions", [self._disposition(index) for index in range(self.size)]
        )
        self.accepted = [leaf.index for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.contributed = [leaf.contribution for leaf in self.dispositions if isinstance(leaf, Accepted)]
        self.limb_sum = self._made("limb_sum", self._sum_limbs())
        self.files["dispositions.jsonl"] = lines(self.dispositions)
        self.files["contributions.jsonl"] = lines(self.contributed)
        self.files["linear-hashes.bin"] = b"".join(self.hashes[index].tobytes() for index in self.accepted)
        self.files["masked-limb-sum.bin"] = self.limb_sum.tobytes()
        counts = [sum(isinstance(leaf, kind) for leaf in self.dispositions) for kind in (Accepted, Rejected, Dropped)]
        self.closing = self._made(
            "close",
            SessionClose(
                self.session_id,
                *counts,
                contributions=merkle.root([signed.to_bytes() for signed in self.contributed]),
                dispositions=merkle.root([leaf.to_bytes() for leaf in self.dispositions]),
                limb_sum=sha256(self.files["masked-limb-sum.bin"]),
            ),
        )
        return self.closing

    def result(self) -> SessionResult:
        """The openings and what they open."""
        plan = self.plan
        answering = [index for index in self.accepted if plan.answering is None or index in plan.answering]
        self.answers = self._made("answers", {index: self._answer(index) for index in answering})
        self.openings: list[Signed] = self._made(
            "openings", [self.signed(index, answer) for index, answer in self.answers.items()]
        )
        self.pairs = self._made("pairs", self._published_pairs())
        self.lanes_sum = self._made("lanes_sum", self._unmasked())
        self.integer_sum = self._made("integer_sum", unpacked(self.parameters.encoding, self.lanes_sum, self.count))
        mean = mean_of(self.parameters.encoding, self.parameters.noise, self.integer_sum, self.count)
        self.mean = self._made("mean", mean)
        self.aggregate: dict[str, bytes] = self._made("aggregate", self.merged_files(self.mean, self.count))
        self.files["openings.jsonl"] = lines(self.openings)
        self.files["pair-boxes.jsonl"] = lines(self.pairs)
        self.files["integer-sum.bin"] = self.integer_sum.astype("<i8").tobytes()
        self.files |= {f"aggregate/{name}": data for name, data in self.aggregate.items()}
        self.finished = self._made(
            "result",
            SessionResult(
                self.session_id,
                self.count,
                merkle.root([signed.to_bytes() for signed in self.openings]),
                sha256(self.files["integer-sum.bin"]),
                sha256(self.mean.astype("<f4").tobytes()),
                aggregate_of(self.aggregate),
            ),
        )
        return self.finished

    def abort(self) -> SessionAbort:
        """The session ends without a result; nothing was released."""
        entry = SessionAbort(self.session_id, "too few clients", 0, merkle.root([]))
        self.aborted: SessionAbort = self._made("abort", entry)
        return self.aborted

    def final_files(self) -> dict[str, bytes]:
        """The session's files by path, after the edit ``files``."""
        files: dict[str, bytes] = self._made("files", dict(self.files))
        return files

    @property
    def count(self) -> int:
        """Contributions in the sum."""
        return len(self.accepted)

    def removal(self) -> tuple[list[bytes], list[bytes]]:
        """Keystream keys to add to and subtract from the masked sum."""
        add: list[Secret] = []
        subtract = [boxes.self_mask_keystream(self.self_masks[index], self.digest) for index in self.accepted]
        for gone, user in self._applied_for_dropped():
            (add if gone < user else subtract).append(self.pair_stream(min(gone, user), max(gone, user)))
        return [key.expose() for key in add], [key.expose() for key in subtract]

    def _upload(self) -> None:
        vectors = {index: self.secret("vector", index) for index in self.plan.uploading}
        self.packed = self._made(
            "packed", {index: packed_vector(self.parameters, seed, self.vector_of) for index, seed in vectors.items()}
        )
        self.uploads = self._made("uploads", {index: self.masked(index, one) for index, one in self.packed.items()})
        self.hashes = self._made(
            "hashes", {index: linear_hash.hash_lanes(lanes) for index, lanes in self.uploads.items()}
        )
        self.headers = self._made("headers", {index: self._header(index) for index in self.uploads})

    def _header(self, index: int) -> ContributionHeader:
        lanes = self.uploads[index]
        return ContributionHeader(
            self.digest,
            self.shared.root,
            self.keys[index].public_bytes,
            sha256(lanes.tobytes()),
            sha256(self.hashes[index].tobytes()),
            lanes.size,
            tuple(sorted(self.plan.missing.get(index, ()))),
        )

    def _disposition(self, index: int) -> Disposition:
        if index in self.plan.absent:
            return Dropped(index, "share-keys")
        if index in self.plan.dropped:
            return Dropped(index, "masked-input")
        if index in self.plan.rejected:
            return Rejected(index, self.plan.rejected[index])
        return Accepted(index, self.contributions[index])

    def shards(self) -> list[list[int]]:
        """The contributors of each limb sum."""
        step = linear_hash.max_contributors(self.lanes)
        return [self.accepted[start : start + step] for start in range(0, len(self.accepted), step)]

    def _sum_limbs(self) -> np.ndarray:
        sums = []
        for shard in self.shards():
            total = linear_hash.LimbSum(self.lanes)
            for index in shard:
                total.add_lanes(self.uploads[index])
            sums.append(total.entries)
        return np.concatenate(sums).astype("<u8")

    def _answer(self, index: int) -> UnmaskStatement:
        shares = tuple(
            SelfMaskShare(other, self.dealt[other][index].self_mask_share)
            if other in self._accepted_set
            else RootShare(other, self.dealt[other][index].root_share)
            for other in self.mask_neighbours(index)
        )
        return UnmaskStatement(self.digest, sha256(self.closing), self.keys[index].public_bytes, shares)

    @functools.cached_property
    def _accepted_set(self) -> frozenset[int]:
        return frozenset(self.accepted)

    def _applied_for_dropped(self) -> list[tuple[int, int]]:
        """(client in U2 that is not in the sum, contributor that masked with it)."""
        gone = [index for index in self.plan.present if index not in self._accepted_set]
        return [(other, user) for user in self.accepted for other in self.mask_neighbours(user) if other in gone]

    def _published_pairs(self) -> list[PairBox | PairPromise]:
        pairs: list[PairBox | PairPromise] = []
        for gone, user in self._applied_for_dropped():
            sender, recipient = min(gone, user), max(gone, user)
            dealt = self.dealt[sender][recipient]
            path = self.box_tree(sender).inclusion_proof(self.graph.neighbours(sender).index(recipient))
            share_box = sha256(dealt.share_box)
            if sender == user:
                pairs.append(PairBox(sender, recipient, share_box, dealt.pair_box, dealt.commitments, path))
            else:
                digest = sha256(dealt.pair_box)
                pairs.append(PairPromise(sender, recipient, share_box, digest, dealt.commitments, path))
        return sorted(pairs, key=lambda pair: (pair.sender, pair.recipient))

    def _unmasked(self) -> np.ndarray:
        """The lanes of the sum as the published limb sum gives them, without masks."""
        rows = self.limb_sum.reshape(-1, self.lanes, linear_hash.LIMBS_PER_LANE).sum(axis=0, dtype=np.uint64)
        lanes = np.zeros(self.lanes, dtype=np.uint64)
        for limb in range(linear_hash.LIMBS_PER_LANE):
            lanes += rows[:, limb] << np.uint64(16 * limb)
        add_masks(lanes, *self.removal(), 2)
        return lanes


Vectors = Callable[[Secret], np.ndarray]


def packed_vector(parameters: SessionOpen, seed: Secret, vector: Vectors) -> np.ndarray:
    """The lanes of a vector that follows from ``seed``, with the noise that a session declares, not masked yet."""
    encoding, noise, rounded = parameters.encoding, parameters.noise, rounded_vector(parameters, seed, vector)
    if isinstance(noise, NoDifferentialPrivacy):
        return encoding.field_layout().pack(rounded())
    noisy, _ = add_noise(rounded, noise, encoding, Secret(sha256(b"noise of " + seed.expose())))
    return encoding.field_layout().pack(noisy)


def rounded_vector(parameters: SessionOpen, seed: Secret, vector: Vectors) -> Callable[[], np.ndarray]:
    """What rounds a vector that follows from ``seed``, once more at each call; no noise is on it."""
    encoding = parameters.encoding
    clipped, _ = clip(vector(seed), encoding.clip_norm)
    if isinstance(encoding.flatten, Flattening):
        clipped = _flatten(encoding).forward(clipped)
    quantiser, stream = encoding.quantiser(parameters.noise), Keystream(seed.expose())
    return lambda: quantiser.quantise(clipped, stream)[0]


@functools.lru_cache(maxsize=2)
def _flatten(encoding: Encoding) -> Any:
    return flatten_map(encoding.flatten, encoding.dimension)


def unpacked(encoding: Encoding, lanes: np.ndarray, count: int) -> np.ndarray:
    """The sums of coordinates in lanes, whatever counter and padding say: what a liar would publish, too."""
    layout = encoding.field_layout()
    mask = np.uint64((1 << layout.field_bits) - 1)
    shifts = [np.uint64(layout.field_bits * number) for number in range(layout.fields_per_lane)]
    fields = np.stack([(lanes >> shift) & mask for shift in shifts], axis=1).reshape(-1)
    return fields[1 : 1 + layout.dimension].astype(np.int64) - count * layout.offset
