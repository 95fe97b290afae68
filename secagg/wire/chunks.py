"""Chunks of uploads, decoded without a copy of their bytes.

A protobuf message copies its bytes twice on the way to Python: once into the message, once out of it. Uploads are
nearly all that a coordinator receives, so their two requests are read here as the view of what arrived; whatever does
not look as every client writes it (fields in order, each once) is left to protobuf, so both accept the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.v1 import aggregation_pb2 as pb

_TOKEN, _OFFSET, _DATA, _CRC32 = 0x0A, 0x10, 0x1A, 0x25
_TOKEN_BYTES = 32
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """A ``WriteChunkRequest`` or ``StreamChunksRequest``: they have the same fields."""

    token: str
    offset_bytes: int
    data: bytes | memoryview
    crc32: int


def chunk_from_wire(message: bytes) -> ChunkRequest:
    """Decode one; raises DecodeError as protobuf does."""
    try:
        found = _fast(message)
    except (IndexError, UnicodeDecodeError):
        found = None
    if found is not None:
        return found
    request = pb.StreamChunksRequest.FromString(message)
    return ChunkRequest(request.token, request.offset_bytes, request.data, request.crc32)


def _fast(message: bytes) -> ChunkRequest | None:
    at, token, offset_bytes = 0, "", 0
    if message[at] == _TOKEN and message[at + 1] == _TOKEN_BYTES:
        token = message[at + 2 : at + 2 + _TOKEN_BYTES].decode("ascii")
        at += 2 + _TOKEN_BYTES
    if message[at] == _OFFSET:
        offset_bytes, at = _varint(message, at + 1)
    if message[at] != _DATA:
        return None
    length_bytes, start = _varint(message, at + 1)
    end = start + length_bytes
    if len(message) == end:
        crc32 = 0
    elif len(message) == end + 5 and message[end] == _CRC32:
        crc32 = int.from_bytes(message[end + 1 :], "little")
    else:
        return None
    if offset_bytes >> 64:
        return None
    return ChunkRequest(token, offset_bytes, memoryview(message)[start:end], crc32)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. Raises IndexError: it does not."""
    value = 0
    for place in range(_LONGEST_VARINT):
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError
