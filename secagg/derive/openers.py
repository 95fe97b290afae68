"""Whose keys the parameters of a one-shot session name: what members and authorities have signed of them.

A coordinator writes the parameters. Were a member's sealing key, or an authority's encryption context, only what it
wrote, it would write its own beside the identity that contributors pin, and open everything itself.
"""

from __future__ import annotations

from secagg.crypto.signing import SignatureError, SigningKey, verify_statement
from secagg.transcript.entries import OneShotOpen
from secagg.transcript.openers import CommitteeMember, KeyAuthority, MemberKeys, PreparedKey


def member_of(name: str, key: SigningKey, sealing_key: bytes) -> CommitteeMember:
    """A member whose identity has signed the key that boxes are to be sealed to."""
    keys = MemberKeys(key.public_bytes, sealing_key)
    return CommitteeMember(name, key.public_bytes, sealing_key, key.sign_statement(keys.to_bytes()))


def is_bound(member: CommitteeMember) -> bool:
    """Whether the member's identity signed its sealing key."""
    keys = MemberKeys(member.identity, member.sealing_key)
    return _is_signed(member.identity, keys.to_bytes(), member.binding)


def is_prepared(parameters: OneShotOpen, authority: KeyAuthority) -> bool:
    """Whether the authority's identity signed that it made the context for this session of this coordinator."""
    prepared = PreparedKey(parameters.session, parameters.coordinator, authority.identity, authority.context)
    return _is_signed(authority.identity, prepared.to_bytes(), authority.prepared)


def _is_signed(identity: bytes, body: bytes, signature: bytes) -> bool:
    try:
        verify_statement(identity, body, signature)
    except SignatureError:
        return False
    return True
