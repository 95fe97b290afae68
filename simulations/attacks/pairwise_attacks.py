"""Attacks on pairwise sessions, in words: what is wanted, who lies, which rule stops it, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from simulations.attacks import collusion, pairwise_clients, pairwise_coordinator, pairwise_keys
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.pairwise_stage import attack
from simulations.exploring.operations import ClientLie, DropPhase

_TWO = "The coordinator, which signs what it likes with its own key, and max_corrupt (2) of 8 clients."
_TWO_CLIENTS = "Two clients of 8 (max_corrupt) that sign what they like; the coordinator is honest."


def _lying(
    what: str, lies: Iterable[ClientLie] = (), equivocates: Iterable[DropPhase] = ()
) -> Callable[[int], Coroutine[Any, Any, AttackResult]]:
    return lambda seed: pairwise_clients.lying(seed, what, lies, equivocates)


_CLOSES = (
    attack(
        "alive-and-dropped",
        pairwise_coordinator.alive_and_dropped,
        naive="both-shares",
        goal="Learn both secrets of one client: its self-mask seed from those who are told that it is in the sum, and "
        "its root from those who are told that it dropped out.",
        adversary=_TWO,
        why="A client answers one close, with one kind of share for each neighbour, and only once t neighbours and a "
        "quorum of the cohort have confirmed that same close. Honest clients confirm one, so of two closes at most one "
        "is answered. It rests on at most max_corrupt corrupt clients, and on Ed25519.",
    ),
    attack(
        "two-closes",
        pairwise_coordinator.two_closes,
        naive="two-sets",
        goal="Have two sums opened that differ by one client: their difference is its input.",
        adversary=f"{_TWO} One of four witnesses lies, too.",
        why="Who asks for three of four witnesses is shown one log, for an honest witness cosigns no second one. Were "
        "there no witnesses, the quorum of confirmations would still leave at most one of the closes answered. It "
        "rests on fewer dishonest witnesses than 2 k - n, here two, and on at most max_corrupt corrupt clients.",
    ),
    attack(
        "two-closes-in-one-log",
        pairwise_coordinator.closes_twice_in_one_log,
        goal="Have two sums opened with a log that is never forked: a second close is appended, and only half of the "
        "clients see it.",
        adversary=_TWO,
        why="A client reads every entry of its session, under one cosigned checkpoint, and takes them in their only "
        "order: a second entry of any kind is refused, whatever it says. Those who saw only the first close are too "
        "few to confirm it among themselves. It rests on SHA-256.",
    ),
    attack(
        "below-minimum",
        pairwise_coordinator.below_minimum,
        naive="single-survivor",
        goal="Have a sum opened over so few that little is left to hide in once the coordinator's own clients are "
        "subtracted.",
        adversary=_TWO,
        why="A client counts the contributions in the close itself, each with its signature, and confirms none with "
        "fewer than min_contributors. It rests on the registrar (one person, one identity) and on Ed25519.",
    ),
    attack(
        "replayed-close",
        pairwise_coordinator.replayed_close,
        goal="Collect shares for a set of an earlier run, with the confirmations that it got then.",
        adversary=f"{_TWO} It has the record of an earlier run of the same session.",
        why="A client looks for the very header that it signed in this run, over this run's list of boxes, and stops "
        "if the close has another or none. It rests on fresh keys in every run, and on Ed25519.",
    ),
    attack(
        "asks-twice",
        pairwise_coordinator.asks_twice,
        goal="Get a second answer from clients that have answered, for a set without one of them.",
        adversary=f"{_TWO} It makes honest clients' machines start again.",
        why="The answer is stored before it is sent, and the shares are deleted in the same write: a client that has "
        "answered has nothing more to say. It rests on a store that keeps what it was told to keep; a client that is "
        "restored from a backup must not answer.",
    ),
    attack(
        "restart-opposite-share",
        pairwise_coordinator.restarts_in_the_middle,
        goal="Get the opposite share from clients that crash while they confirm or answer.",
        adversary=f"{_TWO} It makes honest clients crash before and after each durable write of theirs.",
        why="Which close a client confirms is durable before anybody hears of it. After a restart it is the same, and "
        "confirmations of another one are refused. It rests on a store that keeps what it was told to keep.",
    ),
)

_KEYS = (
    attack(
        "forged-pair-seeds",
        pairwise_keys.forges_pair_seeds,
        goal="Choose all pair seeds of the client with the highest index, which gets every one of them from others.",
        adversary=_TWO,
        why="A box counts only under the root that its sender signed, at the recipient's place. HPKE does not say who "
        "sealed a box; that signature does. It rests on Ed25519 and SHA-256.",
    ),
    attack(
        "withheld-boxes",
        pairwise_keys.withholds_boxes,
        goal="Leave a client whose only mask partners are the coordinator's own: its self mask is opened in any case.",
        adversary=_TWO,
        why="A client insists on a box from every neighbour that the logged list says has dealt, and on at least t of "
        "them that open; and nobody confirms a close in which only one end of a pair masked with the other. It rests "
        "on one log for everybody, and on Ed25519.",
    ),
    attack(
        "moved-box",
        pairwise_keys.moves_boxes,
        goal="Have somebody take, or be able to open, a box that was sealed for another client or by another sender.",
        adversary=_TWO,
        why="Sender, recipient, session and list of keys are in the context of the seal and under the sender's signed "
        "root. It rests on HPKE (ML-KEM-768 with X25519), Ed25519 and SHA-256.",
    ),
    attack(
        "key-substitution",
        pairwise_keys.substitutes_keys,
        naive="key-substitution",
        goal="Read what a client seals to its neighbours, with keys of the coordinator's in place of theirs.",
        adversary=_TWO,
        why="Each neighbour's sealing keys must have the digests that the neighbour signed with its identity key, in "
        "the logged list. It rests on the roster, Ed25519 and SHA-256.",
    ),
    attack(
        "strangers",
        collusion.presents_strangers,
        goal="Surround a client with invented ones, and so know all its masks.",
        adversary="The coordinator, with seven identities that it made itself.",
        why="Every identity in the list of keys must be in the roster that the session names, which the registrar "
        "signed. It rests on the registrar: whoever has its key can do this.",
    ),
    attack(
        "grind-cohort",
        collusion.grinds_cohort,
        goal="Find a masking graph in which the corrupt stand around one honest client.",
        adversary="The coordinator with max_corrupt (12) of 120 clients. It admits them all, and tries ever new keys "
        "before it logs the list.",
        why="The threshold is chosen so that a graph that is bad enough has probability below 2^-128 for each list "
        "that is tried. It rests on SHA-256 as a random function, and on at most max_corrupt corrupt clients.",
    ),
)

_GROUPS = (
    attack(
        "seed-search",
        collusion.seed_search,
        naive="seed-search",
        goal="Learn one client's input from its masked input alone, by a search for the last mask that is not known.",
        adversary="The coordinator with 6 corrupt clients of 8, as many as this session allows for.",
        why="Mask seeds are 32 bytes from HKDF-SHA256 of 32 random ones, and the mask is an AES-256 keystream: nothing "
        "is folded. It rests on AES-256 and SHA-256.",
    ),
    attack(
        "collusion",
        collusion.collusion,
        goal="Open the smallest sum that a coordinator and max_corrupt clients can open together.",
        adversary="The coordinator with max_corrupt (2) of 8 clients, which give it keys, states and inputs.",
        why="min_contributors counts heads and max_corrupt of them may be the coordinator's: what opens holds the "
        "inputs of min_contributors - max_corrupt honest clients or more. It rests on at most max_corrupt corrupt.",
    ),
    attack(
        "sybils",
        collusion.sybils,
        goal="Learn one honest client's input, by one person with many identities.",
        adversary="The coordinator with 2 of 8 identities in the roster (max_corrupt), then with 4, 5 and 7.",
        why="Up to max_corrupt identities of one person give it no more than the promised sum. Beyond that the steps "
        "say what it learns: in the end everything. Only the registrar, who signs who is in the roster, and the choice "
        "of max_corrupt stop that.",
    ),
)

_CLIENTS = (
    attack(
        "wrong-shares",
        _lying("answers with shares that nobody dealt", [ClientLie.WRONG_SHARE]),
        goal="Have a wrong sum published, or none, by answers with wrong shares.",
        adversary=_TWO_CLIENTS,
        why="Every share is checked against what its dealer committed to before it counts; t right ones are enough. It "
        "rests on SHA-256, and on t clients that answer.",
    ),
    attack(
        "wrong-length",
        _lying("masked inputs that are one lane too long, signed", [ClientLie.WRONG_LENGTH]),
        goal="Have a sum that is added up wrongly, or not at all.",
        adversary=_TWO_CLIENTS,
        why="The number of lanes follows from the session, and a header with another is refused, by the coordinator "
        "and by every client that checks the close. It rests on nothing else.",
    ),
    attack(
        "other-session",
        _lying("headers that were signed for another session", [ClientLie.OTHER_SESSION]),
        goal="Have a contribution in the record that was made for another session.",
        adversary=_TWO_CLIENTS,
        why="Every statement names its session by the digest of the open entry. It rests on SHA-256.",
    ),
    attack(
        "two-uploads",
        _lying("a second masked input after the first", equivocates=[DropPhase.MASKED_INPUT]),
        goal="Count twice, or change an input after the first was accepted.",
        adversary=_TWO_CLIENTS,
        why="One message of a phase counts for one identity; a second one that differs is refused, the same one again "
        "changes nothing. It rests on the coordinator's store.",
    ),
    attack(
        "drops",
        pairwise_clients.drops,
        goal="Make a session hang, or its sum wrong, by falling silent at the worst moment.",
        adversary="One client of 5 (max_corrupt), before and after each of its six messages is handled.",
        why="Deadlines end phases; masks of those who are gone are taken off with their neighbours' shares of their "
        "root, and those whose upload was taken count. It rests on t neighbours and a quorum that stay.",
    ),
)

ATTACKS: tuple[Attack, ...] = (*_CLOSES, *_KEYS, *_GROUPS, *_CLIENTS)
