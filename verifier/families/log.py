"""LOG: the record's log is the one that the policy means, whole, vouched for by witnesses, and continues what was seen.

Source of the formats: C2SP tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature and tlog-policy, in the strict
profile of ``secagg.transcript``.
"""

from __future__ import annotations

from secagg.crypto.notes import open_checkpoint
from secagg.transcript import tiles
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteError
from secagg.transcript.policy import NO_QUORUM
from verifier.audit import Audit
from verifier.checks import Check, CheckFailedError, Findings, Level, Place
from verifier.log_view import (
    COSIGNED,
    HEAD,
    LOG_KEY,
    MAX_BUNDLE_BYTES,
    SIGNED,
    TREE,
    LogHead,
    LogTree,
    check_quorum,
    pinned_key,
    read_bundle,
)

MAX_AHEAD_S = 300
"""How far the clock of a witness may be ahead of ours."""

_LEVEL_BITS = 8
_HASH_BYTES = 32


def _note_profile(audit: Audit, findings: Findings) -> None:
    findings.count(len(audit.get(HEAD).note.signatures))


def _pinned(audit: Audit, findings: Findings) -> None:
    audit.get(LOG_KEY)
    findings.count()


def _signature(audit: Audit, findings: Findings) -> None:
    audit.get(SIGNED)
    findings.count()


def _quorum(audit: Audit, findings: Findings) -> None:
    witnessed = audit.get(COSIGNED)
    if audit.policy.log.quorum == NO_QUORUM:
        findings.not_applicable("the policy asks for no witness")
        return
    findings.count(len(witnessed.cosigned))


def _times(audit: Audit, findings: Findings) -> None:
    """Rules: no cosignature from more than 5 minutes ahead; a quorum of them not older than the policy allows.

    Of a quorum, because one dishonest witness can put today's date on an old checkpoint.
    """
    witnessed = audit.get(COSIGNED)
    place = audit.record.place("checkpoint", None, "cosignature.timestamp_s")
    for cosigned in witnessed.cosigned:
        findings.count()
        ahead = cosigned.timestamp_s - audit.now_s
        if ahead > MAX_AHEAD_S:
            findings.fail(place, f"{cosigned.public_key.hex()} signed {ahead} s in the future")
    if audit.policy.max_age_s is None:
        if not witnessed.cosigned:
            findings.not_applicable("the policy asks for no witness, and none that it knows cosigned")
        return
    newest = max((cosigned.timestamp_s for cosigned in witnessed.cosigned), default=None)
    oldest_s = audit.now_s - audit.policy.max_age_s
    recent = {cosigned.public_key for cosigned in witnessed.cosigned if cosigned.timestamp_s >= oldest_s}
    if newest is None:
        findings.fail(place, "no cosignature, and the policy limits their age")
    elif newest < oldest_s:
        findings.fail(place, f"the newest is {audit.now_s - newest} s old, the policy allows {audit.policy.max_age_s}")
    elif not audit.policy.log.is_met_by(recent):
        findings.fail(place, f"{len(recent)} are at most {audit.policy.max_age_s} s old, which is no quorum")


def _entries(audit: Audit, findings: Findings) -> None:
    findings.count(len(audit.get(TREE)))


def _tiles(audit: Audit, findings: Findings) -> None:
    """Rules: each tile of this size is there, byte for byte; other tiles and bundles are earlier, narrower ones.

    A partial tile may be left where a wider one has replaced it. What belongs to a larger log is refused, because
    nobody signed it: a record is copied with a checkpoint that covers it. What has no name of a tile or a bundle is
    what no client asks for, such as the listing of a directory that came along with a download.
    """
    log = audit.get(TREE)
    expected: dict[tuple[int, int], int] = {}
    for level, index, width in tiles.tiles_of(len(log)):
        expected[level, index] = width
        _check_tile(audit, log, (level, index, width), findings)
    widths = {index: width for (level, index), width in expected.items() if level == 0}
    for path in audit.record.walk("tile"):
        name = _parse_path(path)
        if name is None:
            continue
        tile_level, index, found = name
        if tile_level is None:
            _check_spare_bundle(audit, (index, found, widths.get(index, 0)), findings)
        else:
            _check_spare_tile(audit, log, (tile_level, index, found), expected.get((tile_level, index), 0), findings)


def _parse_path(path: str) -> tuple[int | None, int, int] | None:
    """Level (None for a bundle), index and width that a path names; None where it names neither tile nor bundle."""
    try:
        if path.startswith("tile/entries/"):
            return None, *tiles.parse_bundle_path(path)
        return tiles.parse_tile_path(path)
    except tiles.TileError:
        return None


def _check_tile(audit: Audit, log: LogTree, tile: tuple[int, int, int], findings: Findings) -> None:
    level, index, width = tile
    path = tiles.tile_path(level, index, width)
    findings.count()
    try:
        found = audit.record.read_exactly(path, _HASH_BYTES * width)
    except CheckFailedError as error:
        findings.fail_with(error)
        return
    if found != log.tree.nodes(_LEVEL_BITS * level, tiles.TILE_WIDTH * index, width):
        findings.fail(audit.record.place(path), "other hashes than those of the entries")


def _check_spare_tile(
    audit: Audit, log: LogTree, tile: tuple[int, int, int], expected: int, findings: Findings
) -> None:
    """A tile that is not the widest of its place is an earlier state of it."""
    level, index, width = tile
    if width == expected:
        return
    if width > expected:
        findings.fail(audit.record.place(tiles.tile_path(level, index, width)), "not of a log of this size")
        return
    _check_tile(audit, log, (level, index, width), findings)


def _check_spare_bundle(audit: Audit, bundle: tuple[int, int, int], findings: Findings) -> None:
    index, width, expected = bundle
    if width == expected:
        return
    path = tiles.bundle_path(index, width)
    place = audit.record.place(path)
    if width > expected:
        findings.fail(place, "not of a log of this size")
        return
    findings.count()
    entries = read_bundle(audit, index, expected)[:width]
    if audit.record.read(path, MAX_BUNDLE_BYTES) != tiles.encode_bundle(entries):
        findings.fail(place, "other entries than those of the bundle that replaced it")


def open_foreign(audit: Audit, data: bytes, place: Place) -> Checkpoint:
    """A checkpoint from outside the record, signed and witnessed as the policy asks.

    Raises:
        CheckFailedError: it is not, or its log is not the record's.
    """
    try:
        note = Note.parse(data)
        head = LogHead(data, note, Checkpoint.parse(note.text))
        if head.checkpoint.origin != audit.get(HEAD).checkpoint.origin:
            raise CheckFailedError.at(place, f"of another log: {head.checkpoint.origin}")
        witnessed = open_checkpoint(data, pinned_key(audit, head, place), audit.policy.log.witness_keys)
    except NoteError as error:
        raise CheckFailedError.at(Place(place.file, None, error.field), error.reason) from None
    check_quorum(audit, witnessed, place)
    return witnessed.checkpoint


def check_prefix(log: LogTree, earlier: Checkpoint, place: Place) -> None:
    """Raise CheckFailedError unless the record's log begins with the log of a checkpoint."""
    if earlier.size > len(log):
        reason = f"it has {earlier.size} entries, the record {len(log)}: the record is older, or was cut"
        raise CheckFailedError.at(place, reason)
    if log.tree.root(earlier.size) != earlier.root:
        reason = f"the record's first {earlier.size} entries have another root: history was rewritten"
        raise CheckFailedError.at(place, reason)


def _saved(audit: Audit, findings: Findings) -> None:
    data = audit.brought.saved_checkpoint
    if data is None:
        findings.not_applicable("no saved checkpoint was given (--since)")
        return
    place = Place("saved checkpoint")
    checkpoint = open_foreign(audit, data, place)
    check_prefix(audit.get(TREE), checkpoint, place)
    findings.count()


_CHECKPOINT = ("checkpoint",)

CHECKS = (
    Check(
        "LOG-1",
        "The checkpoint is a signed note in the one form that is accepted",
        Level.META,
        "Every program reads the same origin, size, root and signatures from it: base64, decimals and lines have one "
        "form each, at most 64 signatures and 64 KiB.",
        "a record that different programs read differently",
        _CHECKPOINT,
        _note_profile,
    ),
    Check(
        "LOG-2",
        "Origin and key of the log are those of the policy",
        Level.META,
        "The record is of the log that the auditor means, whatever the record says of itself.",
        "a coordinator, or whoever serves the record, that presents another log",
        ("checkpoint (origin, names and key ids of the signatures)", "log policy"),
        _pinned,
    ),
    Check(
        "LOG-3",
        "The log's key signed the checkpoint",
        Level.META,
        "The coordinator stands for this size and root and cannot disown them.",
        "whoever serves the record without the coordinator's key",
        ("checkpoint (text, signature of the log)",),
        _signature,
    ),
    Check(
        "LOG-4",
        "A quorum of witnesses cosigned the checkpoint, counted by distinct public keys",
        Level.META,
        "With a quorum above (n + f) / 2 of n witnesses, of whom at most f are dishonest, no second history of this "
        "log can have one: everybody who asks for a quorum sees the same log.",
        "a coordinator that shows different logs to different people",
        ("checkpoint (cosignatures)", "log policy (witnesses, groups, quorum)"),
        _quorum,
    ),
    Check(
        "LOG-5",
        "No cosignature lies in the future, and a quorum of them is recent enough",
        Level.META,
        "Where the policy limits the age: the record was current then. Otherwise only that the times are possible.",
        "an old record that is shown in place of the current one",
        ("checkpoint (times of the cosignatures)", "policy (max_age_s)", "the clock, or --now"),
        _times,
    ),
    Check(
        "LOG-6",
        "The entries give size and root of the checkpoint",
        Level.META,
        "Every entry that is checked further on is in the log that was signed, in its place, and none is left out.",
        "a coordinator that publishes other entries than those it had cosigned",
        ("tile/entries/*", "checkpoint (size, root)"),
        _entries,
    ),
    Check(
        "LOG-7",
        "Every tile of a log of this size is there and exact, and no other tile is",
        Level.META,
        "Whoever fetches tiles and proofs from this record is shown the tree of these entries.",
        "a coordinator that gives clients other hashes than auditors; damage",
        ("tile/*",),
        _tiles,
    ),
    Check(
        "LOG-8",
        "The log continues the saved checkpoint",
        Level.META,
        "Nothing that the log held at the earlier run was changed or taken away since.",
        "a coordinator and witnesses that together rewrite history",
        ("saved checkpoint (--since)", "tile/entries/*"),
        _saved,
    ),
)
