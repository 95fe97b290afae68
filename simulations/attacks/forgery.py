"""What a lying coordinator can make with its own key: any log, any list, any close; and ports of clients that lie.

Nothing here is checked: what is forged is whatever the caller asks for. A corrupt client or witness gives its key
away, so its signature is forged with the same functions.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from secagg.crypto.notes import cosign, sign_checkpoint
from secagg.crypto.signing import SigningKey
from secagg.protocol.messages import (
    AdvertisedList,
    ClosedList,
    SharedList,
    SignedReceipt,
)
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import KeysAdvertised, KeysShared, SessionClose, SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import NoteSignature
from secagg.transcript.statements import (
    Absent,
    Accepted,
    ConfirmStatement,
    Disposition,
    Dropped,
    Receipt,
    Rejected,
    Signed,
    Statement,
)
from simulations.world.cast import ORIGIN, START_S, Cast, witness_name


def signed_by(key: SigningKey, statement: Statement) -> Signed:
    """A statement with this key's signature, whatever it says."""
    return Signed(statement, key.sign_statement(statement.to_bytes()))


def forged_log(
    cast: Cast, shown: LogEvidence, entries: Iterable[bytes | SessionEntry], witnesses: Iterable[int] = ()
) -> LogEvidence:
    """Any entries from the session's place on, under a checkpoint that the coordinator signs.

    Args:
        cast: whose keys there are.
        shown: evidence of the real log: what stands before the session is taken from it.
        entries: what the log is to show from there on.
        witnesses: numbers of the witnesses that work for the coordinator; each cosigns.
    """
    data = tuple(entry if isinstance(entry, bytes) else entry.to_bytes() for entry in entries)
    frontier = merkle.Frontier.from_hashes(shown.start, shown.prefix)
    for entry in data:
        frontier.append(merkle.leaf_hash(entry))
    note = sign_checkpoint(cast.coordinator, Checkpoint(ORIGIN, shown.start + len(data), frontier.root))
    lines = [cosignature(cast, number, note.text) for number in witnesses]
    return LogEvidence(shown.start, shown.prefix, data, note.with_signatures(tuple(lines)).to_bytes())


def consistency(shown: LogEvidence, old_size: int) -> tuple[bytes, ...]:
    """The proof that a forged log continues one of ``old_size``; nothing where it was longer before.

    Raises:
        ValueError: more than one entry stands before the session.
    """
    if shown.start > 1:
        raise ValueError(f"start: {shown.start} entries before the session, of which only hashes are known")
    hashes = [*shown.prefix, *map(merkle.leaf_hash, shown.entries)]
    return merkle.consistency_proof(hashes, old_size) if old_size <= len(hashes) else ()


def cosignature(cast: Cast, witness: int, checkpoint_text: str, at_s: int = START_S) -> NoteSignature:
    """What a witness that works for the coordinator signs: anything."""
    return cosign(cast.witnesses[witness], witness_name(witness), checkpoint_text, at_s)


def forged_u1(cast: Cast, honest: AdvertisedList, leaves: Sequence[bytes]) -> AdvertisedList:
    """U1 with any leaves, in a log that has no more than its entry."""
    session = cast.session.parameters.session
    entry = KeysAdvertised(session, len(leaves), merkle.root(leaves))
    return AdvertisedList(
        forged_log(cast, honest.evidence, (honest.evidence.entries[0], entry)), tuple(leaves), honest.keys
    )


def forged_u2(cast: Cast, honest: SharedList, leaves: Sequence[bytes]) -> SharedList:
    """U2 with any leaves; boxes of whoever is absent there are left out."""
    session = cast.session.parameters.session
    absent = {index for index, leaf in enumerate(leaves) if leaf == Absent(index).to_bytes()}
    entry = KeysShared(session, len(leaves) - len(absent), merkle.root(leaves))
    inbox = tuple(item for item in honest.inbox if item.sender not in absent)
    return SharedList(forged_log(cast, honest.evidence, (*honest.evidence.entries[:2], entry)), tuple(leaves), inbox)


def dispositions(size: int, accepted: Mapping[int, Signed]) -> tuple[Disposition, ...]:
    """One leaf for each index of U1: accepted with this header, everybody else dropped."""
    return tuple(
        Accepted(index, accepted[index]) if index in accepted else Dropped(index, "masked-input")
        for index in range(size)
    )


def closing(like: SessionClose, leaves: Sequence[Disposition]) -> SessionClose:
    """The close entry over these dispositions, of the session and kind of another one (one-shot: with its opener)."""
    headers = [leaf.contribution.to_bytes() for leaf in leaves if isinstance(leaf, Accepted)]
    return dataclasses.replace(
        like,
        count=len(headers),
        rejected=sum(isinstance(leaf, Rejected) for leaf in leaves),
        dropped=sum(isinstance(leaf, Dropped) for leaf in leaves),
        contributions=merkle.root(headers),
        dispositions=merkle.root([leaf.to_bytes() for leaf in leaves]),
        limb_sum=bytes(32),
    )


def empty_close(session: bytes) -> SessionClose:
    """A close entry over nothing, for ``closing`` where there is no other to copy."""
    return SessionClose(session, 2, 0, 0, bytes(32), bytes(32), bytes(32))


def forged_closed(
    cast: Cast, before: LogEvidence, size: int, accepted: Mapping[int, Signed], witnesses: Iterable[int] = ()
) -> ClosedList:
    """A close over these headers, by index, of a cohort of ``size``; the log is the real one up to U2."""
    leaves = dispositions(size, accepted)
    entry = closing(empty_close(cast.session.parameters.session), leaves)
    evidence = forged_log(cast, before, (*before.entries[:3], entry), witnesses)
    return ClosedList(evidence, tuple(leaf.to_bytes() for leaf in leaves))


def close_digest(shown: ClosedList) -> bytes:
    """What whoever believes in a close signs: SHA-256 of its entry, the last one of the log."""
    return hashlib.sha256(shown.evidence.entries[-1]).digest()


def confirmation(cast: Cast, number: int, close: bytes) -> Signed:
    """What a corrupt client signs of any close."""
    key = cast.clients[number]
    return signed_by(key, ConfirmStatement(cast.session.digest, close, key.public_bytes))


def receipt(cast: Cast, header: Signed) -> SignedReceipt:
    """The coordinator's word that it holds a contribution, whether it does or not."""
    data = Receipt(cast.session.digest, hashlib.sha256(header.to_bytes()).digest()).to_bytes()
    return SignedReceipt(data, cast.coordinator.sign_statement(data))
