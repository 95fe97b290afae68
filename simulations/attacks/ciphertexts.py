"""Two attacks on ciphertexts that can be altered, against the real key authority. They need TenSEAL.

Whoever sees the others' uploads can make one that cancels them; whoever makes a malformed ciphertext makes what the
authority decrypts depend on its key. What the authority's answers open is computed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.keystream import Keystream
from secagg.arith.ring_mask import draw_secret
from secagg.derive.result import decode
from secagg.derive.ring_opening import MaskedSum
from secagg.he import seal
from secagg.he.ciphertext_sum import CiphertextSum
from secagg.he.errors import HeUnavailableError
from secagg.he.parameters import DEGREE, MODULUS, PLAIN_MODULUS
from secagg.he.residues import decode_ciphertext, encode_ciphertext
from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.one_shot.messages import CommittedList
from secagg.transcript.entries import SessionEntry
from secagg.transcript.statements import AuthorityAnswer
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.ciphertext_stage import AuthorityStage, Lanes, Secrets, Upload, WitnessSide
from simulations.attacks.interrogation import VICTIM
from simulations.attacks.notebook import Notebook
from simulations.world.cast import ONE
from simulations.world.loop import run_virtually
from simulations.world.plan import Protocol
from simulations.world.randomness import SeededRng

LIAR = 5
NOT_PLAYED = "not played"
IntegerSum = npt.NDArray[np.int64]


class Asked(enum.Enum):
    """Which of two closed sets the authority is asked for."""

    WITHOUT = "without"
    WITH_PROBE = "with"


class Late(enum.Enum):
    """How an upload that was made after the others' were seen is brought in."""

    UNCOMMITTED = "without a commitment"
    SECOND_LIST = "with a second list of commitments in one log"
    FORK = "with another list in a fork of the log"


async def isolating(stage: AuthorityStage, how: Late) -> bool:
    """A client waits for what the others upload, and then uploads what cancels all but the victim; if it worked."""
    uploads = _joined(stage)
    first = stage.committed(uploads)
    listed = CommittedList(stage.shown(first), tuple(each.leaf for each in stage.in_order(uploads)))
    for number in range(len(uploads)):
        stage.sends(number, listed)
    late = [*uploads[:LIAR], _cancelling(stage, uploads)]
    second, close = stage.committed(late), stage.close(late)
    shown: dict[Late, tuple[Sequence[SessionEntry], Sequence[Upload]]] = {
        Late.UNCOMMITTED: ((first, close), uploads),
        Late.SECOND_LIST: ((first, second, close), late),
        Late.FORK: ((second, close), late),
    }
    stage.notes.step(
        f"{len(uploads)} clients commit, {LIAR} honest ones upload; then client-{LIAR} makes what cancels all but "
        f"client {VICTIM}, and it is brought in {how.value}."
    )
    entries, committed = shown[how]
    secret_sum = await _asked(stage, f"the late upload {how.value}", late, entries, committed)
    total = None if secret_sum is None else opened(stage, late, secret_sum)
    return total is not None and np.array_equal(total, _input(stage))


async def probing(stage: AuthorityStage, first_asked: Asked) -> bool:
    """A client's ciphertext adds the authority's key to the sum; whether the victim can be read in the end."""
    uploads = _joined(stage)
    own = uploads[LIAR]
    probe = stage.forged(LIAR, own.lanes, _with_key(stage, secret_of(stage)))
    committed = [*uploads[:LIAR], probe]
    first = stage.committed(committed)
    stage.shown(first)
    without, everybody = uploads[:LIAR], committed
    stage.notes.step(f"client-{LIAR} commits to a ciphertext to which the authority's key adds itself.")
    answers: dict[Asked, Secrets | None] = {}
    for asked in (first_asked, *(each for each in Asked if each is not first_asked)):
        chosen = everybody if asked is Asked.WITH_PROBE else without
        entries = (first, stage.close(chosen))
        answers[asked] = await _asked(stage, f"the sum {asked.value} that ciphertext", chosen, entries, committed)
    with_probe, honest = answers[Asked.WITH_PROBE], answers[Asked.WITHOUT]
    if with_probe is None or honest is None:
        return False
    key = leaked_key(with_probe - honest - secret_of(stage))
    stolen = decrypted_with(key, uploads[VICTIM].ciphertext)
    total = opened(stage, [uploads[VICTIM]], stolen)
    return total is not None and np.array_equal(total, _input(stage))


# What the adversary makes


def secret_of(stage: AuthorityStage) -> Secrets:
    """The mask secret that the corrupt client draws."""
    return draw_secret(Keystream(SeededRng(stage.cast.plan.seed, "secret of the liar").bytes(32)))


def _joined(stage: AuthorityStage) -> list[Upload]:
    uploads = [stage.joins(number) for number in range(LIAR)]
    seed = stage.cast.plan.seed
    lanes = _zeros(stage, 1)
    error = SeededRng(seed, "errors of the liar").bytes(32)
    stage.session.ring_mask.apply_mask(lanes, stage.session.public_key, secret_of(stage), error)
    ciphertext = stage.encryption.encrypt(secret_of(stage), SeededRng(seed, "encryption of the liar"))
    return [*uploads, stage.forged(LIAR, lanes, ciphertext)]


def _zeros(stage: AuthorityStage, contributions: int) -> Lanes:
    """What so many contributions of zeros add up to, with the counter and the offsets that they have."""
    lanes = np.zeros(stage.session.upload_lanes, dtype=np.uint64)
    packed = stage.session.field_layout.pack(np.zeros(stage.cast.plan.dimension, dtype=np.int64))
    lanes[: packed.size] = packed * np.uint64(contributions)
    return lanes


def _cancelling(stage: AuthorityStage, uploads: Sequence[Upload]) -> Upload:
    """Its own upload minus those of all others but the victim; the counter of the sum is as it should be."""
    others = [each for number, each in enumerate(uploads) if number not in {VICTIM, LIAR}]
    lanes = _zeros(stage, len(uploads) - 1)
    error = SeededRng(stage.cast.plan.seed, "late errors of the liar").bytes(32)
    stage.session.ring_mask.apply_mask(lanes, stage.session.public_key, secret_of(stage), error)
    total = CiphertextSum()
    total.add(uploads[LIAR].ciphertext)
    for each in others:
        lanes -= each.lanes
        residues = decode_ciphertext(each.ciphertext)
        total.add(encode_ciphertext((np.uint64(MODULUS) - residues) % np.uint64(MODULUS)))
    return stage.forged(LIAR, lanes, total.result())


def _with_key(stage: AuthorityStage, secret: Secrets) -> bytes:
    """An encryption plus (0, Delta): its second half is multiplied with the secret key when it is decrypted."""
    honest = stage.encryption.encrypt(secret, SeededRng(stage.cast.plan.seed, "probe"))
    residues = decode_ciphertext(honest)
    residues[1][0] = (int(residues[1][0]) + MODULUS // PLAIN_MODULUS) % MODULUS
    return encode_ciphertext(residues)


# What it makes of answers


async def _asked(
    stage: AuthorityStage,
    what: str,
    chosen: Sequence[Upload],
    entries: Sequence[SessionEntry],
    committed: Sequence[Upload],
) -> Secrets | None:
    try:
        answer = await stage.ask(chosen, stage.shown(*entries), committed)
    except RemoteProtocolError as error:
        stage.notes.refused("the authority", what, error.reason.name)
        return None
    stage.notes.step(f"The authority answers {what}.")
    if not isinstance(answer.statement, AuthorityAnswer):
        return None
    return np.frombuffer(answer.statement.secret_sum, dtype="<i4").astype(np.int64)


def opened(stage: AuthorityStage, chosen: Sequence[Upload], secret_sum: Secrets) -> IntegerSum | None:
    """The integer sum of these uploads under this sum of secrets; None if it opens nothing."""
    session = stage.session
    lanes = np.zeros(session.upload_lanes, dtype=np.uint64)
    for each in chosen:
        lanes += each.lanes
    try:
        plain = MaskedSum(session.ring_mask, session.public_key, lanes, len(chosen)).certified(secret_sum)
        own = plain[: session.field_layout.lanes]
        parameters = session.parameters
        return decode(parameters.encoding, parameters.noise, own, len(chosen)).integer_sum
    except (CertificationError, ArithmeticInputError):
        return None


def leaked_key(slots: Secrets) -> Secrets:
    """The polynomial in a batch of slots, coefficients centred: int64[4096]; the secret key if these are its slots."""
    api = seal.load_api()
    plaintext = api.Plaintext()
    api.BatchEncoder(seal.plain_context()).encode((slots % PLAIN_MODULUS).tolist(), plaintext)
    coefficients = np.zeros(DEGREE, dtype=np.int64)
    found = plaintext.coeff_count()
    coefficients[:found] = [plaintext[index] for index in range(found)]
    return np.where(coefficients > PLAIN_MODULUS // 2, coefficients - PLAIN_MODULUS, coefficients)


def decrypted_with(key: Secrets, ciphertext: bytes) -> Secrets:
    """What a thief of the key, whose coefficients are -1, 0 and 1, reads in a ciphertext: int64[4096]."""
    first, second = decode_ciphertext(ciphertext)
    # In halves of 30 bits, so that thousands of them add up in 64 bits.
    halves = np.stack([second & np.uint64((1 << 30) - 1), second >> np.uint64(30)]).astype(np.int64)
    product = np.zeros_like(halves)
    for shift in np.flatnonzero(key):
        turned = np.concatenate((-halves[:, DEGREE - shift :], halves[:, : DEGREE - shift]), axis=1)
        product += int(key[shift]) * turned
    low, high = product.astype(np.object_)
    whole = (first.astype(np.object_) + low + (high << 30)) % MODULUS
    plain = (2 * whole * PLAIN_MODULUS + MODULUS) // (2 * MODULUS) % PLAIN_MODULUS
    api = seal.load_api()
    terms = [f"{int(plain[power]):X}" + (f"x^{power}" if power else "") for power in range(DEGREE - 1, -1, -1)]
    plaintext = api.Plaintext(" + ".join(term for term, value in zip(terms, plain[::-1], strict=True) if value) or "0")
    return np.array(api.BatchEncoder(seal.plain_context()).decode_int64(plaintext), np.int64)


def _input(stage: AuthorityStage) -> IntegerSum:
    return np.rint(stage.cast.one_hot(VICTIM).astype(np.float64) * ONE).astype(np.int64)


# The attacks


async def play_isolating(seed: int, ways: Sequence[Late] = tuple(Late)) -> AttackResult:
    """Each way in a session of its own."""
    notes = Notebook()
    worked = [await isolating(await AuthorityStage.open(seed, notes), how) for how in ways]
    return _result(notes, worked=any(worked))


async def play_probing(seed: int) -> AttackResult:
    """In two sessions: the honest sum first, and the probe first; the witness works for the coordinator."""
    notes = Notebook()
    worked = [
        await probing(await AuthorityStage.open(seed, notes, WitnessSide.CORRUPT), first_asked) for first_asked in Asked
    ]
    return _result(notes, worked=any(worked))


def _result(notes: Notebook, *, worked: bool) -> AttackResult:
    learned = [f"the vector of client {VICTIM} alone, exactly"] if worked else []
    return notes.result("open", learned, succeeded=worked)


def _run(play: Callable[[int], Coroutine[Any, Any, AttackResult]]) -> Callable[[int], AttackResult]:
    def run(seed: int) -> AttackResult:
        try:
            return run_virtually(play(seed))
        except HeUnavailableError as error:
            return AttackResult((f"Not played: {error}.",), (), NOT_PLAYED, (), succeeded=False)

    return run


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "ciphertext-isolating",
        Protocol.ONE_SHOT,
        "Upload what cancels all contributions but the victim's, so that the published sum is the victim's vector.",
        "the coordinator with 1 client of 6, against a key authority with 2 attestors and 1 witness, all honest",
        "Ciphertexts and masked inputs can be added and negated by anybody. So everybody signs digests first, the "
        "list of them is logged once, and the authority opens what is on it: nothing there depends on others.",
        _run(play_isolating),
    ),
    Attack(
        "ciphertext-key-probe",
        Protocol.ONE_SHOT,
        "Have the authority decrypt a malformed ciphertext, so that what it answers shows its key.",
        "the coordinator with 1 client of 6 and the witness, against a key authority with 2 honest attestors",
        "The authority says nothing of a decryption that does not open the masked sum, and decides on one closed set "
        "of a session, whatever comes of it. Each session has a key of its own.",
        _run(play_probing),
    ),
)
"""Attacks on a key authority."""
