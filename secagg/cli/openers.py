"""Who opens the sum of a one-shot session: what `secagg session open` makes of the institutions' cards."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from secagg import institutions
from secagg.cli.failures import CommandError
from secagg.identity.cards import AuthorityCard, MemberCard, load_card
from secagg.transcript.openers import Committee, KeyAuthority

_UNPREPARED, _UNSIGNED = bytes(32), bytes(64)
"""Stands for the digest of a context until the authority has made one: the session is checked before it is asked."""


@dataclass(frozen=True, slots=True)
class Openers:
    """Who opens, and what the coordinator has to know to reach them.

    ``cards`` are in the order of the parameters; ``context`` is the public encryption context, with an authority.
    """

    opening: Committee | KeyAuthority
    cards: tuple[MemberCard, ...] | tuple[AuthorityCard]
    context: bytes


def plan_openers(arguments: argparse.Namespace) -> Openers:
    """The committee or the authority that the options name; an authority has made no key yet.

    Raises:
        CommandError: the options do not fit together, or a card cannot be used.
        RecordError, IdentityFileError: a card is malformed or not there, or the numbers are not safe.
    """
    if arguments.committee and arguments.authority:
        raise CommandError("OPENERS", "--committee and --authority exclude each other", "one of them opens the sum")
    if arguments.committee:
        return _committee(arguments)
    if not arguments.authority:
        raise CommandError(
            "OPENERS", "a one-shot session needs --committee CARD... or --authority CARD", "somebody has to open it"
        )
    for name in ("needed", "max_corrupt_members"):
        if getattr(arguments, name) is not None:
            raise CommandError("OPENERS", f"--{name.replace('_', '-')} is for a committee", "leave it out")
    card = load_card(arguments.authority)
    if not isinstance(card, AuthorityCard):
        raise _wrong_card(arguments.authority, "a committee member's card", "--committee takes it")
    authority = KeyAuthority(card.name, card.identity, _UNPREPARED, _UNSIGNED, card.attestors, card.attestations)
    return Openers(authority, (card,), b"")


def _committee(arguments: argparse.Namespace) -> Openers:
    cards: list[MemberCard] = []
    for path in arguments.committee:
        card = load_card(path)
        if not isinstance(card, MemberCard):
            raise _wrong_card(path, "an authority's card", "--authority takes it")
        cards.append(card)
    needed, max_corrupt = committee_numbers(len(cards), arguments.needed, arguments.max_corrupt_members)
    members = tuple(card.member() for card in cards)
    return Openers(Committee(members, needed, max_corrupt), tuple(cards), b"")


def _wrong_card(path: Path, what: str, fix: str) -> CommandError:
    return CommandError("CARD", f"{path} is {what}", fix)


def committee_numbers(members: int, needed: int | None, max_corrupt: int | None) -> tuple[int, int]:
    """How many members open a sum, and how many of them may be corrupt: as given, else as many as is safe.

    Without numbers a third may be corrupt, and the fewest are needed with which no two sets can both be opened:
    twice needed exceeds members and corrupt ones together (of 7 members 5 are needed and 2 may be corrupt).
    """
    if max_corrupt is None:
        max_corrupt = (members - 1) // 3
        if needed is not None:
            max_corrupt = max(0, min(max_corrupt, 2 * needed - members - 1))
    if needed is None:
        needed = max(2, (members + max_corrupt) // 2 + 1)
    return needed, max_corrupt


async def prepared(openers: Openers, session: bytes, coordinator_key: bytes) -> Openers:
    """The same with the key that the authority has made for this session; a committee needs none.

    Raises:
        TransportError, RemoteProtocolError: the authority does not answer, or not as it must.
    """
    card = openers.cards[0]
    if isinstance(openers.opening, Committee) or not isinstance(card, AuthorityCard):
        return openers
    made = await institutions.prepare(card, session, coordinator_key)
    digest = made.checked(session, coordinator_key, openers.opening.identity)
    return Openers(
        dataclasses.replace(openers.opening, context=digest, prepared=made.signature), openers.cards, made.context
    )
