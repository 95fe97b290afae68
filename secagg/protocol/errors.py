"""Protocol errors: the class says whose fault, the reason says why, attributes say where.

An error leaves the state of a machine as it was.
"""

from __future__ import annotations

import enum


@enum.unique
class RejectReason(enum.Enum):
    """Why something was refused. The names are part of the public contract (``ErrorInfo.reason``)."""

    MALFORMED_MESSAGE = "the message cannot be read"
    UNKNOWN_SESSION = "there is no such session"
    UNKNOWN_IDENTITY = "the identity is not in the session's roster"
    NOT_IN_COHORT = "the identity is not among the clients of this phase"
    BAD_SIGNATURE = "the signature does not verify under the identity key"
    WRONG_SESSION = "the message belongs to another session"
    WRONG_PHASE = "the session is in another phase"
    SESSION_OVER = "the session has ended"
    COHORT_FULL = "the cohort has reached max_contributors"
    EQUIVOCATION = "a different message of this sender and phase was accepted before"
    BAD_KEY = "a public key is malformed or does not match its signed digest"
    WRONG_LOG_ROOT = "the message refers to another log entry than the published one"
    WRONG_RECIPIENTS = "boxes must go to exactly the neighbours, in ascending order"
    WRONG_BOX_LENGTH = "a sealed box has the wrong length"
    WRONG_BOX_ROOT = "the boxes do not match the signed root"
    WRONG_LENGTH = "the upload has the wrong number of lanes"
    WRONG_MISSING = "missing neighbours must be neighbours that shared keys"
    TOO_FEW_NEIGHBOURS = "fewer mask neighbours than the threshold"
    WRONG_UPLOAD = "the upload does not match its signed header"
    WRONG_LINEAR_HASH = "the linear hash is not the signed one, or not that of the upload"
    UNKNOWN_UPLOAD = "no upload has this token"
    CHUNK_TOO_LARGE = "the chunk is larger than allowed"
    UPLOAD_OFFSET_MISMATCH = "the chunk does not continue the upload"
    UPLOAD_CHECKSUM_MISMATCH = "the chunk or the upload does not match its checksum"
    STORE_UNAVAILABLE = "the coordinator's storage does not answer"
    TOO_MANY_WATCHERS = "the coordinator serves no more watchers"
    WRONG_SHARES = "the shares do not answer the published close entry"
    DOUBLED_UPLOAD = "another client signed the same upload or the same linear hash"
    WRONG_PROTOCOL = "the session runs another protocol"
    WRONG_PARTS = "the sealed parts are not those whose digests the header signs"
    WRONG_OPENING = "the answer does not open the closed set"
    SHARE_NOT_HELD = "a named committee member holds no share of this contribution"
    NOT_COMMITTED = "the contribution is not among those that were committed to"
    WRONG_CIPHERTEXT = "the ciphertext is none under the session's key"
    NOT_NAMED = "the close entry does not name this member"
    TOO_FEW_ATTESTATIONS = "fewer of the configured attestors than needed attested the sum of the ciphertexts"
    OPENED_BEFORE = "another closed set of this session was answered, or the session was opened before a restore"
    NOT_SERVED = "this institution does not serve such sessions"
    ASYMMETRIC_EDGE = "a neighbour did not apply the mask shared with this client"
    # What a client holds against the coordinator.
    LOG_SIGNATURE = "the log's checkpoint is not signed by the coordinator's key, or not over what is shown"
    LOG_UNWITNESSED = "too few of the policy's witnesses cosigned the checkpoint"
    LOG_FORKED = "the log no longer starts with what it showed before"
    LOG_ORDER = "log entries of the session are out of order or repeated"
    LOG_MISMATCH = "a list does not have the root and count in the log"
    OUTSIDE_ROSTER = "a listed client is not in the roster"
    OWN_ENTRY_MISSING = "the list leaves out or alters what this client sent"
    BELOW_MINIMUM = "fewer clients than min_contributors"
    BELOW_POLICY = "the session's parameters are below this client's own floor"
    UNSAFE_PARAMETERS = "no safe degree and threshold exist for this cohort"
    UNSAFE_NOISE = "what is declared of the noise does not fit together"
    WITHHELD_BOXES = "boxes of a neighbour that shared keys are missing or altered"
    TOO_FEW_CONFIRMATIONS = "fewer neighbours confirmed the close entry than the threshold"
    WRONG_RECEIPT = "the receipt is not for this contribution"
    ABORTED = "the session was aborted"
    LEFT_OUT = "the contribution is not in the closed set"
    # Of sessions whose merge says who takes part.
    NOT_ADMITTED = "the session's merge does not let this identity take part"
    OTHER_CONTRIBUTORS = "the contributors are not exactly those of the first session's sum"
    OTHER_ADAPTER = "another adapter was contributed to the first session"


class ProtocolError(Exception):
    """A rule of the protocol was broken."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(f"{reason.name}: {reason.value}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


class RemoteProtocolError(ProtocolError):
    """The other side broke it."""


class LocalProtocolError(ProtocolError):
    """This side would break it by going on."""
