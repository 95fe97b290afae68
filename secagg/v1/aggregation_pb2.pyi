from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_ADVERTISE_KEYS: _ClassVar[Phase]
    PHASE_SHARE_KEYS: _ClassVar[Phase]
    PHASE_MASKED_INPUT: _ClassVar[Phase]
    PHASE_CONSISTENCY_CHECK: _ClassVar[Phase]
    PHASE_UNMASK: _ClassVar[Phase]
    PHASE_FINISHED: _ClassVar[Phase]
    PHASE_ABORTED: _ClassVar[Phase]
    PHASE_COMMIT: _ClassVar[Phase]
    PHASE_HOLD_SHARES: _ClassVar[Phase]
    PHASE_OPEN_SUM: _ClassVar[Phase]
PHASE_UNSPECIFIED: Phase
PHASE_ADVERTISE_KEYS: Phase
PHASE_SHARE_KEYS: Phase
PHASE_MASKED_INPUT: Phase
PHASE_CONSISTENCY_CHECK: Phase
PHASE_UNMASK: Phase
PHASE_FINISHED: Phase
PHASE_ABORTED: Phase
PHASE_COMMIT: Phase
PHASE_HOLD_SHARES: Phase
PHASE_OPEN_SUM: Phase

class LogEvidence(_message.Message):
    __slots__ = ("entries", "start", "prefix", "checkpoint")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    start: int
    prefix: _containers.RepeatedScalarFieldContainer[bytes]
    checkpoint: bytes
    def __init__(self, entries: _Optional[_Iterable[bytes]] = ..., start: _Optional[int] = ..., prefix: _Optional[_Iterable[bytes]] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session", "log_size")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    log_size: int
    def __init__(self, session: _Optional[bytes] = ..., log_size: _Optional[int] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("evidence", "roster", "roster_head", "roster_signature", "layout", "adapter", "consistency", "context")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    ROSTER_HEAD_FIELD_NUMBER: _ClassVar[int]
    ROSTER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    roster: _containers.RepeatedScalarFieldContainer[bytes]
    roster_head: bytes
    roster_signature: bytes
    layout: bytes
    adapter: bytes
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    context: bytes
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ..., roster: _Optional[_Iterable[bytes]] = ..., roster_head: _Optional[bytes] = ..., roster_signature: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., adapter: _Optional[bytes] = ..., consistency: _Optional[_Iterable[bytes]] = ..., context: _Optional[bytes] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    class Item(_message.Message):
        __slots__ = ("session", "phase")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        PHASE_FIELD_NUMBER: _ClassVar[int]
        session: bytes
        phase: Phase
        def __init__(self, session: _Optional[bytes] = ..., phase: _Optional[_Union[Phase, str]] = ...) -> None: ...
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[ListSessionsResponse.Item]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[ListSessionsResponse.Item, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchSessionRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class WatchSessionResponse(_message.Message):
    __slots__ = ("phase", "deadline_s", "received", "expected", "log_size")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    phase: Phase
    deadline_s: int
    received: int
    expected: int
    log_size: int
    def __init__(self, phase: _Optional[_Union[Phase, str]] = ..., deadline_s: _Optional[int] = ..., received: _Optional[int] = ..., expected: _Optional[int] = ..., log_size: _Optional[int] = ...) -> None: ...

class AdvertiseKeysRequest(_message.Message):
    __slots__ = ("session", "signed", "mask_public", "share_public")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    MASK_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    SHARE_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    mask_public: bytes
    share_public: bytes
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ..., mask_public: _Optional[bytes] = ..., share_public: _Optional[bytes] = ...) -> None: ...

class AdvertiseKeysResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAdvertisedKeysRequest(_message.Message):
    __slots__ = ("session", "identity")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    identity: bytes
    def __init__(self, session: _Optional[bytes] = ..., identity: _Optional[bytes] = ...) -> None: ...

class GetAdvertisedKeysResponse(_message.Message):
    __slots__ = ("evidence", "leaves", "keys")
    class Keys(_message.Message):
        __slots__ = ("index", "mask_public", "share_public")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        MASK_PUBLIC_FIELD_NUMBER: _ClassVar[int]
        SHARE_PUBLIC_FIELD_NUMBER: _ClassVar[int]
        index: int
        mask_public: bytes
        share_public: bytes
        def __init__(self, index: _Optional[int] = ..., mask_public: _Optional[bytes] = ..., share_public: _Optional[bytes] = ...) -> None: ...
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    keys: _containers.RepeatedCompositeFieldContainer[GetAdvertisedKeysResponse.Keys]
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ..., leaves: _Optional[_Iterable[bytes]] = ..., keys: _Optional[_Iterable[_Union[GetAdvertisedKeysResponse.Keys, _Mapping]]] = ...) -> None: ...

class ShareKeysRequest(_message.Message):
    __slots__ = ("session", "signed", "boxes")
    class Boxes(_message.Message):
        __slots__ = ("recipient", "share_box", "pair_box", "commitments")
        RECIPIENT_FIELD_NUMBER: _ClassVar[int]
        SHARE_BOX_FIELD_NUMBER: _ClassVar[int]
        PAIR_BOX_FIELD_NUMBER: _ClassVar[int]
        COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
        recipient: int
        share_box: bytes
        pair_box: bytes
        commitments: bytes
        def __init__(self, recipient: _Optional[int] = ..., share_box: _Optional[bytes] = ..., pair_box: _Optional[bytes] = ..., commitments: _Optional[bytes] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    boxes: _containers.RepeatedCompositeFieldContainer[ShareKeysRequest.Boxes]
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ..., boxes: _Optional[_Iterable[_Union[ShareKeysRequest.Boxes, _Mapping]]] = ...) -> None: ...

class ShareKeysResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSharedKeysRequest(_message.Message):
    __slots__ = ("session", "identity")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    identity: bytes
    def __init__(self, session: _Optional[bytes] = ..., identity: _Optional[bytes] = ...) -> None: ...

class GetSharedKeysResponse(_message.Message):
    __slots__ = ("evidence", "leaves", "inbox")
    class Boxes(_message.Message):
        __slots__ = ("sender", "share_box", "pair_box", "path", "commitments")
        SENDER_FIELD_NUMBER: _ClassVar[int]
        SHARE_BOX_FIELD_NUMBER: _ClassVar[int]
        PAIR_BOX_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
        sender: int
        share_box: bytes
        pair_box: bytes
        path: _containers.RepeatedScalarFieldContainer[bytes]
        commitments: bytes
        def __init__(self, sender: _Optional[int] = ..., share_box: _Optional[bytes] = ..., pair_box: _Optional[bytes] = ..., path: _Optional[_Iterable[bytes]] = ..., commitments: _Optional[bytes] = ...) -> None: ...
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    INBOX_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    inbox: _containers.RepeatedCompositeFieldContainer[GetSharedKeysResponse.Boxes]
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ..., leaves: _Optional[_Iterable[bytes]] = ..., inbox: _Optional[_Iterable[_Union[GetSharedKeysResponse.Boxes, _Mapping]]] = ...) -> None: ...

class StartUploadRequest(_message.Message):
    __slots__ = ("session", "signed", "linear_hash", "parts")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    LINEAR_HASH_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    linear_hash: bytes
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ..., linear_hash: _Optional[bytes] = ..., parts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CommitContributionRequest(_message.Message):
    __slots__ = ("session", "signed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ...) -> None: ...

class CommitContributionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCommittedRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class GetCommittedResponse(_message.Message):
    __slots__ = ("evidence", "leaves")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ..., leaves: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AttestRequest(_message.Message):
    __slots__ = ("session", "signed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ...) -> None: ...

class AttestResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartUploadResponse(_message.Message):
    __slots__ = ("token", "committed_bytes", "preferred_chunk_bytes", "max_chunk_bytes", "receipt", "ingest_port", "ingest_committed_bytes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    INGEST_PORT_FIELD_NUMBER: _ClassVar[int]
    INGEST_COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    committed_bytes: int
    preferred_chunk_bytes: int
    max_chunk_bytes: int
    receipt: Receipt
    ingest_port: int
    ingest_committed_bytes: int
    def __init__(self, token: _Optional[str] = ..., committed_bytes: _Optional[int] = ..., preferred_chunk_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., ingest_port: _Optional[int] = ..., ingest_committed_bytes: _Optional[int] = ...) -> None: ...

class WriteChunkRequest(_message.Message):
    __slots__ = ("token", "offset_bytes", "data", "crc32")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    token: str
    offset_bytes: int
    data: bytes
    crc32: int
    def __init__(self, token: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class WriteChunkResponse(_message.Message):
    __slots__ = ("committed_bytes",)
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    committed_bytes: int
    def __init__(self, committed_bytes: _Optional[int] = ...) -> None: ...

class StreamChunksRequest(_message.Message):
    __slots__ = ("token", "offset_bytes", "data", "crc32")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    token: str
    offset_bytes: int
    data: bytes
    crc32: int
    def __init__(self, token: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class StreamChunksResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("receipt", "signature")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    receipt: bytes
    signature: bytes
    def __init__(self, receipt: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class FinishUploadRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class FinishUploadResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class GetCloseRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class GetCloseResponse(_message.Message):
    __slots__ = ("evidence", "leaves")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ..., leaves: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ConfirmCloseRequest(_message.Message):
    __slots__ = ("session", "signed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ...) -> None: ...

class ConfirmCloseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfirmationsRequest(_message.Message):
    __slots__ = ("session", "identity")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    identity: bytes
    def __init__(self, session: _Optional[bytes] = ..., identity: _Optional[bytes] = ...) -> None: ...

class GetConfirmationsResponse(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, signed: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UnmaskRequest(_message.Message):
    __slots__ = ("session", "signed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    signed: bytes
    def __init__(self, session: _Optional[bytes] = ..., signed: _Optional[bytes] = ...) -> None: ...

class UnmaskResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetOutcomeRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class GetOutcomeResponse(_message.Message):
    __slots__ = ("evidence",)
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    evidence: LogEvidence
    def __init__(self, evidence: _Optional[_Union[LogEvidence, _Mapping]] = ...) -> None: ...

class GetSumRequest(_message.Message):
    __slots__ = ("session", "offset_bytes")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    offset_bytes: int
    def __init__(self, session: _Optional[bytes] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class GetSumResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class GetFixedTensorsRequest(_message.Message):
    __slots__ = ("session", "offset_bytes")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    offset_bytes: int
    def __init__(self, session: _Optional[bytes] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class GetFixedTensorsResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("parameters", "roster", "roster_head", "roster_signature", "layout", "adapter", "cards", "context", "fixed")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    ROSTER_HEAD_FIELD_NUMBER: _ClassVar[int]
    ROSTER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    CARDS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    parameters: bytes
    roster: _containers.RepeatedScalarFieldContainer[bytes]
    roster_head: bytes
    roster_signature: bytes
    layout: bytes
    adapter: bytes
    cards: _containers.RepeatedScalarFieldContainer[bytes]
    context: bytes
    fixed: bytes
    def __init__(self, parameters: _Optional[bytes] = ..., roster: _Optional[_Iterable[bytes]] = ..., roster_head: _Optional[bytes] = ..., roster_signature: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., adapter: _Optional[bytes] = ..., cards: _Optional[_Iterable[bytes]] = ..., context: _Optional[bytes] = ..., fixed: _Optional[bytes] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class EndPhaseRequest(_message.Message):
    __slots__ = ("session", "phase")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    phase: Phase
    def __init__(self, session: _Optional[bytes] = ..., phase: _Optional[_Union[Phase, str]] = ...) -> None: ...

class EndPhaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
