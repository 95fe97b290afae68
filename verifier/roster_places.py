"""The roster of a session, and where in it everybody stands who came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secagg.transcript.merkle import Frontier, leaf_hash
from secagg.transcript.record import RecordError
from secagg.transcript.roster import RosterMember
from secagg.transcript.statements import Signed
from verifier import one_shot_values, pairwise_values
from verifier.checks import CheckFailedError, Derived, Findings, Mode, Place, Stage
from verifier.session_lists import (
    COMMITMENTS,
    CONTRIBUTIONS,
    KEYS,
    MAX_STATEMENT_BYTES,
    ROSTER,
    check_list,
    fail_at,
    signed_lines,
)
from verifier.session_record import SessionRecord


@dataclass(frozen=True, slots=True)
class RosterPlaces:
    """How long the roster is, and the position in it of each identity that came."""

    size: int
    positions: Mapping[bytes, int]


def _roster_places(session: SessionRecord) -> RosterPlaces:
    """Rules: the roster has size and root of the open entry; all identities of those who came are among its own."""
    opened, tree, previous = session.parameters, Frontier(), b""
    wanted = dict.fromkeys(identity for identity, _ in _who_came(session))
    positions: dict[bytes, int] = {}
    # A roster may be larger than memory; what is kept of it are those who came.
    for place, line in signed_lines(session, ROSTER, MAX_STATEMENT_BYTES, opened.roster_size):
        identity = _member(place, line)
        if identity <= previous:
            fail_at(place, "identities not in strictly ascending order")
        previous = identity
        if identity in wanted:
            positions[identity] = tree.size
        tree.append(leaf_hash(line))
    check_list(session.files.place(ROSTER), tree, opened.roster_size, opened.roster)
    findings = Findings()
    for identity, place in _who_came(session):
        if identity not in positions:
            findings.fail(place, "not in the roster")
    findings.raise_failures()
    return RosterPlaces(tree.size, positions)


ROSTER_PLACES = Derived("ELG-1", _roster_places)
"""The roster that was frozen at the opening, and who came of it. Needs OPENED."""


def _who_came(session: SessionRecord) -> list[tuple[bytes, Place]]:
    """The identity of everybody who came so far, and where it stands."""
    if session.entries.stage is Stage.OPENED:
        return []
    lists: list[tuple[str, tuple[Signed, ...]]] = []
    if session.mode is Mode.PAIRWISE:
        lists.append((KEYS, session.get(pairwise_values.ADVERTISED).signed))
    else:
        lists.append((COMMITMENTS, session.get(one_shot_values.COMMITTED).signed))
        if session.entries.stage >= Stage.CLOSED:
            lists.append((CONTRIBUTIONS, session.get(one_shot_values.CLOSED).signed))
    return [
        (leaf.statement.identity, session.files.place(file, number, "statement.identity"))
        for file, leaves in lists
        for number, leaf in enumerate(leaves, start=1)
    ]


def _member(place: Place, line: bytes) -> bytes:
    try:
        return RosterMember.from_bytes(line).identity
    except RecordError as error:
        raise CheckFailedError.at(place, str(error)) from None


def _places_once(session: SessionRecord) -> RosterPlaces:
    """Rules: no identity commits twice; an accepted contribution is at the place of its identity in the roster."""
    places, findings = session.get(ROSTER_PLACES), Findings()
    previous = b""
    for number, header in enumerate(session.get(one_shot_values.COMMITTED).headers, start=1):
        if header.identity == previous:
            place = session.files.place(COMMITMENTS, number, "statement.identity")
            findings.fail(place, f"the identity of line {number - 1} again")
        previous = header.identity
    if session.entries.stage >= Stage.CLOSED:
        closed = session.get(one_shot_values.CLOSED)
        for number, (index, header) in enumerate(zip(closed.indices, closed.headers, strict=True), start=1):
            if places.positions[header.identity] != index:
                place = session.files.place(CONTRIBUTIONS, number, "statement.identity")
                reason = f"at index {index}, and number {places.positions[header.identity]} of the roster"
                findings.fail(place, reason)
    findings.raise_failures()
    return places


PLACES_ONCE = Derived("ELG-2", _places_once)
"""Who came to a one-shot session, each in its one place. Needs COMMITTED."""
