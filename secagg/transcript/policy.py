"""Policy files: which logs and witnesses somebody trusts, and how many of them it takes.

Source: c2sp.org/tlog-policy. A public key stands in a policy once, whatever its names: a cosignature does not bind
the witness's name, and a log that is its own witness vouches for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from secagg.transcript.note import NoteError, SignatureType, VerifierKey, parse_decimal

MAX_POLICY_LENGTH = 1024 * 1024
NO_QUORUM = "none"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_ITEM = re.compile("[^ \t]+")
_NAME = re.compile("[^\x00-\x20\x7f\ud800-\udfff]+")


class PolicyError(ValueError):
    """Line ``line`` of a policy breaks a rule; 0 where it is none in particular. ``reason`` says which."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LogRule:
    """A log whose signature is accepted; its key's name is its origin. ``url`` is empty where it has none."""

    key: VerifierKey
    url: str = ""

    def __post_init__(self) -> None:
        _check_key(self.key, SignatureType.ED25519, "log")
        _check_url(self.url)

    def to_line(self) -> str:
        """The line that defines it, with its newline."""
        return f"log {self.key.to_text()}{_last_item(self.url)}\n"


@dataclass(frozen=True, slots=True)
class WitnessRule:
    """A witness under the name that groups and quorum of this file use."""

    name: str
    key: VerifierKey
    url: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_key(self.key, SignatureType.COSIGNATURE_V1, "witness")
        _check_url(self.url)

    def to_line(self) -> str:
        """The line that defines it, with its newline."""
        return f"witness {self.name} {self.key.to_text()}{_last_item(self.url)}\n"


@dataclass(frozen=True, slots=True)
class GroupRule:
    """A group that has witnessed where at least ``threshold`` of its members have."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        for member in self.members:
            _check_name(member)
        if not self.members:
            raise PolicyError(0, "a group without members")
        if type(self.threshold) is not int or not 1 <= self.threshold <= len(self.members):
            raise PolicyError(0, "a threshold that is not 1 to the number of members")

    def to_line(self) -> str:
        """The line that defines it, with its newline."""
        return f"group {self.name} {self.threshold} {' '.join(self.members)}\n"


Rule: TypeAlias = LogRule | WitnessRule | GroupRule


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Logs, witnesses, groups in an order in which each has its members before it, and the name of the quorum."""

    logs: tuple[LogRule, ...]
    witnesses: tuple[WitnessRule, ...]
    groups: tuple[GroupRule, ...]
    quorum: str

    def __post_init__(self) -> None:
        draft = _Draft()
        for rule in self._rules():
            draft.add(rule)
        draft.set_quorum(self.quorum)

    @classmethod
    def without_witnesses(cls) -> LogPolicy:
        """The policy that knows no log and asks for no witness."""
        return cls((), (), (), NO_QUORUM)

    @classmethod
    def parse(cls, text: str) -> LogPolicy:
        """The policy in a file's text.

        Raises:
            PolicyError: a line breaks a rule, or there is not exactly one quorum.
        """
        if not text.endswith("\n") or len(text) > MAX_POLICY_LENGTH:
            raise PolicyError(0, f"no final newline, or longer than {MAX_POLICY_LENGTH} characters")
        draft = _Draft()
        for number, line in enumerate(text[:-1].split("\n"), start=1):
            try:
                _read_line(line, draft)
            except PolicyError as error:
                raise PolicyError(number, error.reason) from None
            except NoteError as error:
                raise PolicyError(number, str(error)) from None
        if draft.quorum is None:
            raise PolicyError(0, "no quorum")
        return cls(tuple(draft.logs), tuple(draft.witnesses), tuple(draft.groups), draft.quorum)

    def to_text(self) -> str:
        """A file with this policy: logs, witnesses, groups, quorum."""
        return "".join(rule.to_line() for rule in self._rules()) + f"quorum {self.quorum}\n"

    @property
    def witness_keys(self) -> tuple[VerifierKey, ...]:
        """The keys of all witnesses, in order."""
        return tuple(witness.key for witness in self.witnesses)

    def is_met_by(self, public_keys: Collection[bytes]) -> bool:
        """Whether witnesses with these public keys are enough; keys that it does not know count for nothing."""
        if self.quorum == NO_QUORUM:
            return True
        present = set(public_keys)
        witnessed = {witness.name for witness in self.witnesses if witness.key.public_key in present}
        for group in self.groups:
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed

    def _rules(self) -> list[Rule]:
        return [*self.logs, *self.witnesses, *self.groups]


@dataclass(slots=True)
class _Draft:
    """A policy as far as it has been read; what is added must fit what stands before it."""

    logs: list[LogRule] = field(default_factory=list)
    witnesses: list[WitnessRule] = field(default_factory=list)
    groups: list[GroupRule] = field(default_factory=list)
    quorum: str | None = None
    public_keys: set[bytes] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)

    def add(self, rule: Rule) -> None:
        match rule:
            case LogRule():
                self._add_key(rule.key)
                self.logs.append(rule)
            case WitnessRule():
                self._add_key(rule.key)
                self._add_name(rule.name)
                self.witnesses.append(rule)
            case GroupRule():
                self._add_members(rule)
                self._add_name(rule.name)
                self.groups.append(rule)
            case _:
                assert_never(rule)

    def set_quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise PolicyError(0, "a second quorum")
        if name != NO_QUORUM and name not in self.names:
            raise PolicyError(0, "a quorum that is not defined before")
        self.quorum = name

    def _add_key(self, key: VerifierKey) -> None:
        if key.public_key in self.public_keys:
            raise PolicyError(0, "a public key that stands before")
        self.public_keys.add(key.public_key)

    def _add_name(self, name: str) -> None:
        if name in self.names:
            raise PolicyError(0, "a name that stands before")
        self.names.add(name)

    def _add_members(self, group: GroupRule) -> None:
        for member in group.members:
            if member not in self.names:
                raise PolicyError(0, "a member that is not defined before")
            # Each name once in all groups: a witness must not count twice on its way to the quorum.
            if member in self.grouped:
                raise PolicyError(0, "a member that is in a group already")
            self.grouped.add(member)


def _read_line(line: str, draft: _Draft) -> None:
    """Add what one line defines; empty lines and comments define nothing."""
    if _CONTROL.search(line):
        raise PolicyError(0, "a control character")
    # Only these two are white space here: a name may hold any other, such as U+00A0.
    items = _ITEM.findall(line)
    if not items or items[0].startswith("#"):
        return
    match items:
        case ["log", key, *url] if len(url) <= 1:
            draft.add(LogRule(VerifierKey.parse(key), *url))
        case ["witness", name, key, *url] if len(url) <= 1:
            draft.add(WitnessRule(name, VerifierKey.parse(key), *url))
        case ["group", name, threshold, *members]:
            draft.add(GroupRule(name, _read_threshold(threshold, len(members)), tuple(members)))
        case ["quorum", name]:
            draft.set_quorum(name)
        case _:
            raise PolicyError(0, "not a line of a policy")


def _read_threshold(text: str, members: int) -> int:
    match text:
        case "any":
            return 1
        case "all":
            return members
        case _:
            return parse_decimal(text, "threshold")


def _last_item(url: str) -> str:
    return f" {url}" if url else ""


def _check_name(name: str) -> None:
    if type(name) is not str or _NAME.fullmatch(name) is None or name == NO_QUORUM:
        raise PolicyError(0, "a name that is empty, reserved or has a space or control character")


def _check_url(url: str) -> None:
    if type(url) is not str or (url and _NAME.fullmatch(url) is None):
        raise PolicyError(0, "an address with a space or control character")


def _check_key(key: VerifierKey, kind: SignatureType, owner: str) -> None:
    if type(key) is not VerifierKey or key.kind is not kind:
        raise PolicyError(0, f"a key that is not of the kind of a {owner}")
