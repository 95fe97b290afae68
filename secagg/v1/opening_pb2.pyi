from secagg.v1 import aggregation_pb2 as _aggregation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetMemberRequest(_message.Message):
    __slots__ = ("origin",)
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    origin: str
    def __init__(self, origin: _Optional[str] = ...) -> None: ...

class GetMemberResponse(_message.Message):
    __slots__ = ("name", "identity", "sealing_key", "log_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SEALING_KEY_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    identity: bytes
    sealing_key: bytes
    log_size: int
    def __init__(self, name: _Optional[str] = ..., identity: _Optional[bytes] = ..., sealing_key: _Optional[bytes] = ..., log_size: _Optional[int] = ...) -> None: ...

class SessionFiles(_message.Message):
    __slots__ = ("evidence", "consistency", "roster", "roster_head", "roster_signature")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    ROSTER_HEAD_FIELD_NUMBER: _ClassVar[int]
    ROSTER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    evidence: _aggregation_pb2.LogEvidence
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    roster: _containers.RepeatedScalarFieldContainer[bytes]
    roster_head: bytes
    roster_signature: bytes
    def __init__(self, evidence: _Optional[_Union[_aggregation_pb2.LogEvidence, _Mapping]] = ..., consistency: _Optional[_Iterable[bytes]] = ..., roster: _Optional[_Iterable[bytes]] = ..., roster_head: _Optional[bytes] = ..., roster_signature: _Optional[bytes] = ...) -> None: ...

class JoinSessionRequest(_message.Message):
    __slots__ = ("session", "files")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    files: SessionFiles
    def __init__(self, session: _Optional[bytes] = ..., files: _Optional[_Union[SessionFiles, _Mapping]] = ...) -> None: ...

class JoinSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HoldSharesRequest(_message.Message):
    __slots__ = ("session", "items")
    class Item(_message.Message):
        __slots__ = ("signed", "box")
        SIGNED_FIELD_NUMBER: _ClassVar[int]
        BOX_FIELD_NUMBER: _ClassVar[int]
        signed: bytes
        box: bytes
        def __init__(self, signed: _Optional[bytes] = ..., box: _Optional[bytes] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    items: _containers.RepeatedCompositeFieldContainer[HoldSharesRequest.Item]
    def __init__(self, session: _Optional[bytes] = ..., items: _Optional[_Iterable[_Union[HoldSharesRequest.Item, _Mapping]]] = ...) -> None: ...

class HoldSharesResponse(_message.Message):
    __slots__ = ("verdicts",)
    class Verdict(_message.Message):
        __slots__ = ("complaint",)
        COMPLAINT_FIELD_NUMBER: _ClassVar[int]
        complaint: str
        def __init__(self, complaint: _Optional[str] = ...) -> None: ...
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[HoldSharesResponse.Verdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[HoldSharesResponse.Verdict, _Mapping]]] = ...) -> None: ...

class OpenSumRequest(_message.Message):
    __slots__ = ("session", "evidence", "contributions")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    evidence: _aggregation_pb2.LogEvidence
    contributions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session: _Optional[bytes] = ..., evidence: _Optional[_Union[_aggregation_pb2.LogEvidence, _Mapping]] = ..., contributions: _Optional[_Iterable[bytes]] = ...) -> None: ...

class OpenSumResponse(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: bytes
    def __init__(self, signed: _Optional[bytes] = ...) -> None: ...

class GetAuthorityRequest(_message.Message):
    __slots__ = ("origin",)
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    origin: str
    def __init__(self, origin: _Optional[str] = ...) -> None: ...

class GetAuthorityResponse(_message.Message):
    __slots__ = ("name", "identity", "log_size", "attestors", "attestations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    ATTESTORS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    identity: bytes
    log_size: int
    attestors: _containers.RepeatedScalarFieldContainer[bytes]
    attestations: int
    def __init__(self, name: _Optional[str] = ..., identity: _Optional[bytes] = ..., log_size: _Optional[int] = ..., attestors: _Optional[_Iterable[bytes]] = ..., attestations: _Optional[int] = ...) -> None: ...

class PrepareSessionRequest(_message.Message):
    __slots__ = ("session", "coordinator")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    coordinator: bytes
    def __init__(self, session: _Optional[bytes] = ..., coordinator: _Optional[bytes] = ...) -> None: ...

class PrepareSessionResponse(_message.Message):
    __slots__ = ("prepared", "signature", "context")
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    prepared: bytes
    signature: bytes
    context: bytes
    def __init__(self, prepared: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., context: _Optional[bytes] = ...) -> None: ...

class DecryptSumRequest(_message.Message):
    __slots__ = ("session", "files", "ciphertext_sum", "attestations", "committed", "contributions", "limb_sum")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_SUM_FIELD_NUMBER: _ClassVar[int]
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    LIMB_SUM_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    files: SessionFiles
    ciphertext_sum: bytes
    attestations: _containers.RepeatedScalarFieldContainer[bytes]
    committed: _containers.RepeatedScalarFieldContainer[bytes]
    contributions: _containers.RepeatedScalarFieldContainer[bytes]
    limb_sum: bytes
    def __init__(self, session: _Optional[bytes] = ..., files: _Optional[_Union[SessionFiles, _Mapping]] = ..., ciphertext_sum: _Optional[bytes] = ..., attestations: _Optional[_Iterable[bytes]] = ..., committed: _Optional[_Iterable[bytes]] = ..., contributions: _Optional[_Iterable[bytes]] = ..., limb_sum: _Optional[bytes] = ...) -> None: ...

class DecryptSumResponse(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: bytes
    def __init__(self, signed: _Optional[bytes] = ...) -> None: ...
