"""What a command's exit status means; the same for every command, and part of the public contract."""

from __future__ import annotations

import enum


@enum.unique
class ExitCode(enum.IntEnum):
    """The exit status of a command."""

    OK = 0
    SESSION_FAILED = 1
    UNUSABLE_INPUT = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.SESSION_FAILED: "the session ended without a sum, or the coordinator refused or broke a rule",
    ExitCode.UNUSABLE_INPUT: "wrong usage or unusable input: arguments, configuration, key, roster, adapter, policy",
    ExitCode.UNAVAILABLE: "unavailable: nobody answers, timed out, the store is in use or the disk refuses",
    ExitCode.INTERRUPTED: "interrupted",
}


def exit_code_help() -> str:
    """The table for ``--help``."""
    return "exit codes:\n" + "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in MEANINGS.items())
