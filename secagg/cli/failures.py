"""Errors as one line for people, one object for programs, and an exit code.

An error that is not known here is a bug and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from secagg.identity.errors import TlsError


class CommandError(Exception):
    """A command cannot do what was asked.

    Attributes:
        reason: a constant for programs.
        message: one sentence; ``fix`` says what to do next, or is empty.
        kind: what the error is about.
    """

    def __init__(
        self, reason: str, message: str, fix: str = "", *, kind: str = "usage", code: ExitCode = ExitCode.UNUSABLE_INPUT
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fix = fix
        self.kind = kind
        self.code = code


@dataclass(frozen=True, slots=True)
class Failure:
    """What is reported of an error."""

    kind: str
    reason: str
    message: str
    code: ExitCode


def known_errors() -> tuple[type[BaseException], ...]:
    """The errors that ``describe`` knows. Imports what defines them, so ask only when something was raised."""
    from secagg.arith.errors import ArithmeticInputError
    from secagg.client import SessionAbortedError
    from secagg.he.errors import HeUnavailableError
    from secagg.identity.errors import AddressError, ConfigError, IdentityFileError, PassphraseError, TlsError
    from secagg.lora.errors import AdapterError
    from secagg.protocol.errors import ProtocolError
    from secagg.runtime.participant import TransportError
    from secagg.runtime.ports import StoreError, UploadError
    from secagg.transcript.record import RecordError  # RosterError is one

    return (
        CommandError, KeyboardInterrupt, OSError,
        AdapterError, AddressError, ArithmeticInputError, ConfigError, HeUnavailableError, IdentityFileError,
        PassphraseError, ProtocolError, RecordError, SessionAbortedError, StoreError, TlsError, TransportError,
        UploadError,
    )  # fmt: skip


def describe(error: BaseException) -> Failure:
    """What to report of one of ``known_errors``."""
    match error:
        case CommandError():
            return _failure(error.kind, error.reason, error.message, error.fix, error.code)
        case KeyboardInterrupt():
            return Failure("interrupted", "INTERRUPTED", "interrupted", ExitCode.INTERRUPTED)
        case OSError():
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
            return _failure("system", type(error).__name__, text, "", ExitCode.UNAVAILABLE)
    return _of_files(error) or _of_sessions(error)


def _of_files(error: BaseException) -> Failure | None:
    """Errors about what was given or is installed: files, keys, rosters, adapters, encryption."""
    from secagg.arith.errors import ArithmeticInputError
    from secagg.he.errors import HeUnavailableError
    from secagg.identity import errors as identity
    from secagg.lora.errors import AdapterError
    from secagg.transcript.record import RecordError

    text, unusable = str(error), ExitCode.UNUSABLE_INPUT
    match error:
        case identity.ConfigError() | HeUnavailableError():
            key = "HE_UNAVAILABLE" if isinstance(error, HeUnavailableError) else error.key
            return _failure("config", key, text, "", unusable)
        case identity.IdentityFileError():
            fix = "" if error.fix else _FILE_FIXES.get(error.reason.name, "")
            return _failure("identity-file", error.reason.name, text, fix, unusable)
        case identity.PassphraseError():
            return _failure("passphrase", "PASSPHRASE", text, "", unusable)
        case identity.RosterError():
            fix = _ROSTER_FIXES.get(error.refusal.name, "")
            return _failure("roster", error.refusal.name, text, fix, unusable)
        case identity.TlsError():
            return _of_tls(error)
        case identity.AddressError():
            return _failure("address", "ADDRESS", text, "", unusable)
        case AdapterError():
            return _failure("adapter", error.reason.name, text, "", unusable)
        case ArithmeticInputError():
            return _failure("arithmetic", error.field, text, "", unusable)
        case RecordError():
            return _failure("record", error.field, text, "", unusable)
    return None


def _of_tls(error: TlsError) -> Failure:
    from secagg.identity.errors import TlsRefusal

    match error.reason:
        case TlsRefusal.UNREACHABLE:
            code, fix = ExitCode.UNAVAILABLE, _RUN_AGAIN
        case TlsRefusal.WRONG_FINGERPRINT | TlsRefusal.NAMELESS_CERTIFICATE:
            code, fix = ExitCode.SESSION_FAILED, "ask the operator, by another way than this one, which one is right"
        case _:
            code, fix = ExitCode.UNUSABLE_INPUT, ""
    return _failure("tls", error.reason.name, str(error), fix, code)


def _of_sessions(error: BaseException) -> Failure:
    """Errors of stores, of connections and of the protocol."""
    from secagg.client import SessionAbortedError
    from secagg.protocol.errors import LocalProtocolError, ProtocolError
    from secagg.runtime.participant import TransportError
    from secagg.runtime.ports import StaleLogError, StaleStoreError, StoreError, UploadError
    from secagg.spending import StaleBudgetError

    text = str(error)
    match error:
        case StaleLogError():
            return _failure("log", "STALE_LOG", text, "", ExitCode.UNUSABLE_INPUT)
        case StaleBudgetError():
            return _failure("store", "STALE_BUDGET", text, _STALE_BUDGET_FIX, ExitCode.UNUSABLE_INPUT)
        case StaleStoreError():
            return _failure("store", "STALE", text, _STALE_FIX, ExitCode.UNUSABLE_INPUT)
        case StoreError():
            fix = "end the other process or wait for it" if "open already" in text else ""
            return _failure("store", "STORE", text, fix, ExitCode.UNAVAILABLE)
        case TransportError():
            return _failure("transport", "UNREACHABLE", f"the coordinator: {text}", _RUN_AGAIN, ExitCode.UNAVAILABLE)
        case SessionAbortedError():
            message = f"the session ended without a sum: {text}"
            fix = "nothing of any contribution was opened; the operator can open another session"
            return _failure("session-aborted", error.reason, message, fix, ExitCode.SESSION_FAILED)
        case LocalProtocolError():
            name = error.reason.name
            code = ExitCode.UNUSABLE_INPUT if name in _LOCAL_INPUT else ExitCode.SESSION_FAILED
            return _failure("local-protocol", name, text, _PROTOCOL_FIXES.get(name, ""), code)
        case ProtocolError():
            name = error.reason.name
            code = ExitCode.UNAVAILABLE if name in _BUSY else ExitCode.SESSION_FAILED
            return _failure("remote-protocol", name, f"the coordinator: {text}", _PROTOCOL_FIXES.get(name, ""), code)
        case UploadError():
            return _failure("transport", "UPLOAD", text, _RUN_AGAIN, ExitCode.UNAVAILABLE)
    raise TypeError(f"{type(error).__name__} is not one of known_errors")


def _failure(kind: str, reason: str, message: str, fix: str, code: ExitCode) -> Failure:  # one line, whatever it is of
    line = " ".join((f"{message.rstrip('.')}. {fix[:1].upper()}{fix[1:]}" if fix else message).split())
    return Failure(kind, reason, line, code)


_RUN_AGAIN = "check the address and that the coordinator is running; then run the same command again"
_STALE_FIX = (
    "For a coordinator that is `secagg coordinator mark-restored --config FILE`, for a committee member `secagg "
    "committee serve --config FILE --restored`; a contributor takes another --state directory, and the sessions that "
    "were in this one go on without it"
)
_STALE_BUDGET_FIX = (
    "put the newest copies of budget.db and budget.db.head back together, or take another --state directory, where "
    "nothing that was spent is known"
)
_FILE_FIXES = {
    "MISSING": "check the name",
    "EXISTS": "choose another name, or move the file away",
    "PASSPHRASE_NEEDED": "run in a terminal, or give --passphrase-file FILE",
    "WRONG_KIND": "`secagg identity show FILE` says what a file holds",
}
_ROSTER_FIXES = {
    "UNSIGNED": "the registrar signs it with `secagg roster sign ROSTER --key KEY`",
    "WRONG_SIZE": "sign the roster again",
    "WRONG_ROOT": "sign the roster again",
    "UNKNOWN_REGISTRAR": "if you trust this registrar, add its key to policy.registrars of your configuration",
}
_LOCAL_INPUT = frozenset({"BELOW_POLICY", "UNKNOWN_IDENTITY", "UNSAFE_PARAMETERS"})
_BUSY = frozenset({"STORE_UNAVAILABLE", "TOO_MANY_WATCHERS"})
_EVIDENCE = "keep your state directory: the signed log in it is evidence against the coordinator"
_PROTOCOL_FIXES = {
    "UNKNOWN_SESSION": "`secagg session list` shows the sessions of this coordinator",
    "UNKNOWN_IDENTITY": "ask the registrar to add your public key to the roster of the next session",
    "BELOW_POLICY": "nothing of your adapter was sent; [policy], [openers] and [budget] of your configuration say "
    "what you insist on",
    "LEFT_OUT": "your receipt, if there is one, is evidence; `secagg session result` fetches the sum without you",
    "WRONG_PHASE": "`secagg session show SESSION` says where the session stands",
    "SESSION_OVER": "`secagg session show SESSION` says how it ended",
    "EQUIVOCATION": "contribute with the state directory that this identity began with",
    "BELOW_MINIMUM": "the session needs more contributors; the operator can open another one",
    "LOG_FORKED": _EVIDENCE,
    "LOG_ORDER": _EVIDENCE,
    "LOG_MISMATCH": _EVIDENCE,
    "LOG_UNWITNESSED": "policy.log of your configuration names the witnesses that have to cosign the log: ask the "
    "operator which ones do",
    "LOG_SIGNATURE": "check the coordinator's key: ask the operator for it by another way than this one",
}
