"""What a second session must have in common with the first, whose basis it uses; the same for both sides.

The coordinator checks it before it opens one, contributors before they send anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript.entries import SessionOpen
from secagg.transcript.merge import (
    BasisMerge,
    FirstMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    SecondMerge,
    attempt_number,
    contributors_digest,
)


@dataclass(frozen=True, slots=True)
class FirstSession:
    """A session that ended with a basis, as its log and its published list show it.

    Attributes:
        parameters: its open entry.
        contributors: the identities in its sum.
        basis: SHA-256 of the file of bases that its result names; None if it names none.
    """

    parameters: SessionOpen
    contributors: frozenset[bytes]
    basis: bytes | None


def second_merge(parameters: SessionOpen) -> SecondMerge | None:
    """The merge of a session that follows another; None of any other."""
    merge = parameters.merge
    return merge if isinstance(merge, SecondMerge) else None


def first_merge(parameters: SessionOpen) -> FirstMerge | None:
    """The merge of a session that another follows; None of any other."""
    merge = parameters.merge
    return merge if isinstance(merge, FirstMerge) else None


def attempt_of(session: bytes, first: bytes) -> int:
    """Which attempt at the second session after ``first`` a session is, by its identifier.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; it is none.
    """
    number = attempt_number(session, first)
    if number is None:
        raise _refused("session", "not an identifier of a second session after merge.first")
    return number


def check_follows(parameters: SessionOpen, first: FirstSession) -> None:
    """Do nothing if a session may follow ``first``.

    Rules: its identifier is that of an attempt after ``first``; coordinator, log, roster, base model and all that the
    two merges have in common are the same; the basis is the one that the first result names. For ``two-session`` the
    contributors are those of the first sum, all of them; for ``pilot-basis`` nobody of the first sum is admitted.

    Raises:
        RemoteProtocolError: OTHER_CONTRIBUTORS or MALFORMED_MESSAGE, with the field.
    """
    merge, before = second_merge(parameters), first.parameters
    if merge is None:
        raise _refused("merge", f"{parameters.merge.TYPE} follows no session")
    if merge.first != before.session:
        raise _refused("merge.first", "names another session")
    attempt_of(parameters.session, before.session)
    _check_same(
        ("coordinator", parameters.coordinator, before.coordinator),
        ("log", parameters.log, before.log),
        ("registrar", parameters.registrar, before.registrar),
        ("roster", parameters.roster, before.roster),
        ("base_model", parameters.base_model, before.base_model),
        ("base_model_digest", parameters.base_model_digest, before.base_model_digest),
    )
    if first.basis is None or merge.fixed != first.basis:
        raise _refused("merge.fixed", "not the basis that the first session's result names")
    match merge:
        case ProjectionMerge():
            _check_projection(parameters, merge, first)
        case BasisMerge():
            _check_basis(merge, first)
        case _:
            assert_never(merge)


def _check_projection(parameters: SessionOpen, merge: ProjectionMerge, first: FirstSession) -> None:
    before = first.parameters.merge
    if not isinstance(before, RangeMerge):
        raise _refused("merge.first", f"a {before.TYPE} session")
    _check_same(
        ("merge.seed", merge.seed, before.seed),
        ("merge.columns", merge.columns, before.columns),
        ("merge.update_norm", merge.update_norm, before.update_norm),
    )
    if contributors_digest(first.contributors) != merge.contributors:
        raise RemoteProtocolError(RejectReason.OTHER_CONTRIBUTORS, "merge.contributors")
    if parameters.min_contributors != len(first.contributors):
        raise _refused("min_contributors", f"{len(first.contributors)} contributed to the first session")


def _check_basis(merge: BasisMerge, first: FirstSession) -> None:
    before = first.parameters.merge
    if not isinstance(before, PilotMerge):
        raise _refused("merge.first", f"a {before.TYPE} session")
    _check_same(
        ("merge.seed", merge.seed, before.seed),
        ("merge.columns", merge.columns, before.columns),
        ("merge.update_norm", merge.update_norm, before.update_norm),
        ("merge.sides", merge.sides, before.sides),
        ("merge.share", merge.share, before.share),
    )


def _check_same(*pairs: tuple[str, object, object]) -> None:
    for name, value, expected in pairs:
        if value != expected:
            raise _refused(name, "differs from the first session's")


def _refused(name: str, why: str) -> RemoteProtocolError:
    return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"{name}: {why}")
