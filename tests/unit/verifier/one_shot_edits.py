"""Edits that tests of one-shot records have in common."""

from __future__ import annotations

from dataclasses import replace

from secagg.transcript.statements import Signed
from tests.support.forge_one_shot_record import write_one_shot_record
from tests.unit.verifier.session_checks import checked, failing
from verifier.checks import Level


def found_of(directory, **edits):
    """What became of the checks of level sum; ``authority_close`` edits what the authority's session closes."""
    named = {
        name.replace("authority_", "authority.").replace("aborted_", "aborted."): edit for name, edit in edits.items()
    }
    return checked(write_one_shot_record(directory, named), Level.SUM)


def failing_after(directory, **edits):
    """The checks of level sum that fail."""
    return failing(found_of(directory, **edits))


def set_fields(**fields):
    """An edit that changes fields of a record."""
    return lambda record, _: replace(record, **fields)


def changed(index, edit):
    """An edit of one item of a mapping or list."""

    def apply(items, forge):
        items = items.copy()
        items[index] = edit(items[index], forge)
        return items

    return apply


def resigned(index, **fields):
    """An edit of headers: the client itself signs something else."""
    return changed(index, lambda statement, _: replace(statement, **fields))


def unsigned(index):
    """An edit of signed leaves: nobody has signed this one."""
    return changed(index, lambda signed, _: Signed(signed.statement, bytes(64)))


def other_file(name, change):
    """An edit of the files: one of them is another afterwards."""
    return lambda files, _: files | {name: change(files[name])}


def without(name):
    """An edit of the files: one is gone."""
    return lambda files, _: {key: data for key, data in files.items() if key != name}


DAMAGES = {
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "one less": lambda lines: lines[:-1],
    "one more": lambda lines: [*lines, lines[-1]],
    "not terminated": lambda lines: [*lines[:-1], lines[-1][:-1]],
    "an empty line": lambda lines: [*lines, b"\n"],
    "garbage": lambda lines: [b"garbage\n", *lines[1:]],
}
"""Of a list, by name: its lines as they should not be."""


def damaged(name, damage):
    """An edit of the files: a list is damaged."""
    return other_file(name, lambda data: b"".join(DAMAGES[damage](data.splitlines(keepends=True))))
