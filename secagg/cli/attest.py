"""``secagg attest``: the verifier's checks plus a signing key.

An attestor recomputes the sum of a closed set's ciphertexts from the published record, and signs it; a key authority
decrypts nothing that enough of its attestors have not signed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_passphrase_file, load_key, session_id
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.crypto.signing import SigningKey
    from secagg.identity.client_config import ClientConfig
    from secagg.transcript.statements import Signed
    from verifier.audit import Audit
    from verifier.report import Report
    from verifier.session_record import SessionRecord

_TIMEOUT_S = 30.0


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``attest``."""
    parser = add_command(
        subparsers,
        "attest",
        "vouch for the sum of a session's ciphertexts, so that it can be decrypted",
        """
        Run the verifier over a record at level preopen for one closed session that a key authority opens, add up the
        published ciphertexts of the closed set, and sign that this is their sum. Nothing is signed unless every check
        passes: the exit status is then that of the verifier, 1 if a check fails and 3 if one could not be made. The
        report of the checks goes to stderr. Nothing is fetched: bring the record to this machine first. Needs no
        TenSEAL.""",
        """
        secagg attest record --session 9f1c...2e --key attestor.key --policy policy.toml --client client.toml""",
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="directory of the record")
    parser.add_argument("--session", type=session_id, required=True, metavar="ID", help="the session, 32 hex digits")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the attestor's key (`secagg identity new --kind attestor`)",
    )
    parser.add_argument(
        "--policy", type=Path, required=True, metavar="FILE", help="the verifier's policy: whom you trust and demand"
    )
    parser.add_argument(
        "--client", type=Path, metavar="FILE", help="client.toml that says how the coordinator is reached: deliver it"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it; must not be there yet")
    add_passphrase_file(parser)
    parser.set_defaults(run=_attest)


def _attest(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.connection import load_config
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind

    reporter = Reporter.of(arguments)
    if arguments.client is None and arguments.out is None:
        raise CommandError("ARGUMENTS", "neither --client nor --out is given", "say where the attestation should go")
    client = None if arguments.client is None else load_config(arguments.client)
    audit, report = _checked(arguments, reporter)
    if report.verdict.exit_code:
        reporter.error("verifier", report.verdict.name, "nothing was signed: not every check passed")
        return ExitCode(report.verdict.exit_code)
    session = _session_of(audit, arguments.session)
    key = load_key(arguments.key, KeyKind.ATTESTOR, arguments)
    signed = attestation(session, key)
    body = signed.to_bytes()
    if arguments.out is not None:
        create_exclusively(arguments.out, body + b"\n", PUBLIC_MODE)
    if client is not None:
        asyncio.run(_deliver(client, arguments.session, signed))
    whom = [str(place) for place in (arguments.out, client and client.coordinator) if place]
    digest = hashlib.sha256(body).hexdigest()
    reporter.result(
        {"session": session.name, "attestor": key.public_bytes.hex(), "sha256": digest, "to": whom},
        table([("session", session.name), ("attested by", key.public_bytes.hex()), ("went to", "\n".join(whom))]),
    )
    return ExitCode.OK


def _checked(arguments: argparse.Namespace, reporter: Reporter) -> tuple[Audit, Report]:
    """The verifier's run for this session at level preopen; its report goes to stderr.

    Raises:
        CommandError: record or policy cannot be used.
    """
    from secagg.runtime.clock import SystemClock
    from verifier.audit import Audit
    from verifier.checks import Level
    from verifier.policy import AuditPolicyError, load_policy
    from verifier.record_files import RecordFiles
    from verifier.run import run_audit
    from verifier.text_report import to_text

    record: Path = arguments.record
    if not record.is_dir():
        raise CommandError("RECORD", f"{record}: there is no such directory", "bring the record here first")
    try:
        policy = load_policy(arguments.policy)
        if policy.log.is_met_by(()):
            raise CommandError(
                "POLICY",
                f"{arguments.policy} asks for no witness: of a log that nobody vouches for nothing is attested",
                "name a log policy with a quorum of witnesses in it",
            )
    except AuditPolicyError as error:
        raise CommandError(
            "POLICY", f"{arguments.policy}: {error}", "`secagg-verify check --help` has its format"
        ) from None
    audit = Audit(RecordFiles(record), policy, Level.PREOPEN, SystemClock().now_s())
    with reporter.waiting("checking the record"):
        report = run_audit(audit, frozenset({arguments.session}))
    sys.stderr.write(to_text(report))
    return audit, report


def _session_of(audit: Audit, session: bytes) -> SessionRecord:
    """The session, if it is one whose sum is attested. Raises CommandError."""
    from verifier.checks import Mode
    from verifier.log_view import session_entries
    from verifier.session_record import SessionRecord

    found = SessionRecord(audit, session_entries(audit, session))
    if found.mode is not Mode.AUTHORITY:
        raise CommandError("WRONG_PROTOCOL", f"session {found.name} is not opened by a key authority")
    if found.entries.close is None:
        raise CommandError("NOT_CLOSED", f"session {found.name} is not closed", "wait for its close entry")
    return found


def attestation(session: SessionRecord, key: SigningKey) -> Signed:
    """The signed word of ``key`` about the sum of the ciphertexts of a session that was checked.

    The sum is computed here once more, from the bytes as they are now: what is signed is what was added up.

    Raises:
        CommandError: the session does not name this attestor, or is over others than the first session's sum although
            its merge forbids it; or the record changed under the checks.
    """
    from secagg.he.ciphertext_sum import CiphertextSum
    from secagg.he.errors import CiphertextError
    from secagg.he.residues import CIPHERTEXT_BYTES
    from secagg.transcript.merge import ProjectionMerge, contributors_digest
    from secagg.transcript.openers import KeyAuthority, SummedCiphertext
    from secagg.transcript.statements import Attestation, Signed
    from verifier.checks import CheckFailedError, InputMissingError
    from verifier.one_shot_values import CONTRIBUTORS

    opening, opener = session.one_shot.opening, session.one_shot_close.opener
    if not isinstance(opening, KeyAuthority) or key.public_bytes not in opening.attestors:
        raise CommandError(
            "NOT_AN_ATTESTOR", f"{key.public_bytes.hex()} is none of the session's attestors", "give another --key"
        )
    total = CiphertextSum()
    merge = session.parameters.merge
    try:
        headers = session.get(CONTRIBUTORS).headers
        if isinstance(merge, ProjectionMerge) and merge.contributors != contributors_digest(
            header.identity for header in headers
        ):
            raise CommandError("OTHER_CONTRIBUTORS", "the closed set is not that of the first session")
        for header in headers:
            (part,) = header.parts
            total.add(session.files.read_exactly(f"ciphertexts/{part.hex()}.bin", CIPHERTEXT_BYTES))
        digest = hashlib.sha256(total.result()).digest()
    except (CheckFailedError, InputMissingError, CiphertextError):
        raise _changed() from None
    if not isinstance(opener, SummedCiphertext) or digest != opener.digest:
        raise _changed()
    statement = Attestation(session.digest, session.entries.close_digest, key.public_bytes, digest)
    return Signed(statement, key.sign_statement(statement.to_bytes()))


def _changed() -> CommandError:
    return CommandError(
        "RECORD_CHANGED", "the record is not what it was when it was checked", "nothing was signed: copy it, and again"
    )


async def _deliver(client: ClientConfig, session: bytes, signed: Signed) -> None:
    from secagg.attesting import attest

    tls = await asyncio.to_thread(client.client_tls, _TIMEOUT_S)
    await attest(str(client.coordinator), tls, session, signed, _TIMEOUT_S)
