from secagg.v1 import aggregation_pb2 as _aggregation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("place", "port")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    place: int
    port: int
    def __init__(self, place: _Optional[int] = ..., port: _Optional[int] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("open_uploads", "discard", "hand_over", "forget")
    class OpenUploads(_message.Message):
        __slots__ = ("tokens",)
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        tokens: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...
    OPEN_UPLOADS_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    open_uploads: AttachResponse.OpenUploads
    discard: str
    hand_over: bytes
    forget: bytes
    def __init__(self, open_uploads: _Optional[_Union[AttachResponse.OpenUploads, _Mapping]] = ..., discard: _Optional[str] = ..., hand_over: _Optional[bytes] = ..., forget: _Optional[bytes] = ...) -> None: ...

class DescribeUploadRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class DescribeUploadResponse(_message.Message):
    __slots__ = ("session", "lanes", "upload", "linear_hash", "index", "most", "counted")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    LINEAR_HASH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    lanes: int
    upload: bytes
    linear_hash: bytes
    index: int
    most: int
    counted: bool
    def __init__(self, session: _Optional[bytes] = ..., lanes: _Optional[int] = ..., upload: _Optional[bytes] = ..., linear_hash: _Optional[bytes] = ..., index: _Optional[int] = ..., most: _Optional[int] = ..., counted: bool = ...) -> None: ...

class CountUploadRequest(_message.Message):
    __slots__ = ("token", "place")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    token: str
    place: int
    def __init__(self, token: _Optional[str] = ..., place: _Optional[int] = ...) -> None: ...

class CountUploadResponse(_message.Message):
    __slots__ = ("receipt", "adds")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ADDS_FIELD_NUMBER: _ClassVar[int]
    receipt: _aggregation_pb2.Receipt
    adds: bool
    def __init__(self, receipt: _Optional[_Union[_aggregation_pb2.Receipt, _Mapping]] = ..., adds: bool = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("session", "place")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    place: int
    def __init__(self, session: _Optional[bytes] = ..., place: _Optional[int] = ...) -> None: ...

class HandOverResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
