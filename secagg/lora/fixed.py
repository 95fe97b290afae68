"""Tensors that a merge needs to be the same for everybody: a file in the record, named by its digest.

The frozen A of ``frozen-a``, by ``PATH/a``; or the bases that a first session published, ``PATH/left`` and
``PATH/right``. They are public.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from secagg.lora.adapter import Adapter
from secagg.lora.container import MAX_FILE_BYTES, decode_tensors, encode_tensors
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.layout import Shape
from secagg.lora.linearity import check_frozen_scales, check_orthonormal
from secagg.lora.manifest import Manifest
from secagg.lora.maps import FixedTensors, fixed_name
from secagg.lora.pieces import pieces_of
from secagg.lora.updates import check_modules, updates_of
from secagg.lora.values import require_float32
from secagg.transcript.merge import FirstMerge, FrozenMerge, LinearMerge, SecondMerge, fixed_digest

BASIS_FILE = "basis.safetensors"
_HEADER_ROOM_BYTES = 1 << 24


def fixed_shapes(merge: LinearMerge, manifest: Manifest) -> dict[str, Shape]:
    """Names and shapes of the tensors that a session needs; empty where it needs none."""
    shapes: dict[str, Shape] = {}
    for module in manifest:
        pieces = pieces_of(merge, module, manifest.rank)
        if isinstance(merge, FrozenMerge):
            shapes[fixed_name(module, "a")] = (manifest.rank, module.columns)
        elif isinstance(merge, SecondMerge):
            if "projection" in pieces:
                shapes[fixed_name(module, "left")] = (module.outputs, pieces["projection"][0])
            elif "projected" in pieces:
                rows, columns = pieces["projected"]
                shapes[fixed_name(module, "left")] = (module.outputs, rows)
                shapes[fixed_name(module, "right")] = (module.columns, columns)
    return shapes


def basis_shapes(merge: LinearMerge, manifest: Manifest) -> dict[str, Shape]:
    """Names and shapes of the bases that a first session publishes; empty of other sessions."""
    shapes: dict[str, Shape] = {}
    if not isinstance(merge, FirstMerge):
        return shapes
    for module in manifest:
        pieces = pieces_of(merge, module, manifest.rank)
        if "range" in pieces:
            shapes[fixed_name(module, "left")] = pieces["range"]
        if "corange" in pieces:
            shapes[fixed_name(module, "right")] = pieces["corange"][::-1]
    return shapes


def most_fixed_bytes(merge: LinearMerge, manifest: Manifest) -> int:
    """No file of a session's fixed tensors is longer; the longest that is read at all, if a manifest says more."""
    data_bytes = 4 * sum(map(math.prod, fixed_shapes(merge, manifest).values()))
    return min(MAX_FILE_BYTES, _HEADER_ROOM_BYTES + data_bytes)


def read_fixed(merge: LinearMerge, manifest: Manifest, data: bytes) -> FixedTensors:
    """The tensors in a file, checked against the session: digest, names, shapes, finite values, orthonormal bases.

    Raises:
        AdapterError: BAD_FIXED_TENSORS, MISSING_TENSOR, UNEXPECTED_TENSOR, WRONG_SHAPE, NON_FINITE; as ``read_header``;
            BAD_TEMPLATE, what is sent of a frozen adapter is multiplied by too much.
    """
    expected = fixed_shapes(merge, manifest)
    if hashlib.sha256(data).digest() != (fixed_digest(merge) or hashlib.sha256(b"").digest()):
        raise AdapterError(
            AdapterRejectReason.BAD_FIXED_TENSORS,
            field="fixed tensors",
            found="another digest than the open entry's" if data else "nothing",
            expected="the tensors that the session names" if fixed_digest(merge) else "none",
            fix="fetch them again from the coordinator or from the record of the session",
        )
    if not expected:
        return {}
    tensors = decode_tensors(data)
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise _other(AdapterRejectReason.MISSING_TENSOR, name, "no such tensor", "a fixed tensor of the session")
        if name not in expected:
            raise _other(AdapterRejectReason.UNEXPECTED_TENSOR, name, "one more tensor", "no other fixed tensors")
        if tensors[name].shape != expected[name]:
            found = f"{tensors[name].shape}"
            raise _other(AdapterRejectReason.WRONG_SHAPE, name, found, f"{expected[name]}, of the session's module")
        require_float32(name, tensors[name])
        if not isinstance(merge, FrozenMerge):
            check_orthonormal(name, tensors[name])
    check_frozen_scales(merge, manifest, tensors)
    return tensors


def _other(reason: AdapterRejectReason, name: str, found: str, expected: str) -> AdapterError:
    fix = "do not take part: whoever opened the session named a file that does not fit it"
    return AdapterError(reason, tensor=name, found=found, expected=expected, fix=fix)


def encode_fixed(tensors: FixedTensors) -> bytes:
    """The file of these tensors."""
    return b"".join(encode_tensors(tensors))


def frozen_tensors(adapter: Adapter, manifest: Manifest) -> Mapping[str, np.ndarray]:
    """The A of every module of an adapter, to be frozen.

    Raises:
        AdapterError: as ``check_modules``; MISSING_TENSOR, RANK_MISMATCH: it has no A of the manifest's rank somewhere.
    """
    check_modules(adapter, manifest)
    tensors = {}
    for module, update in updates_of(adapter, manifest):
        if update is None or update.right.shape[0] != manifest.rank:
            raise AdapterError(
                AdapterRejectReason.RANK_MISMATCH,
                tensor=module.a_name,
                found="no A" if update is None else f"rank {update.right.shape[0]}",
                expected=f"rank {manifest.rank}, that of the merged adapter",
                fix="freeze the A of an adapter of one rank, and merge to that rank",
            )
        tensors[fixed_name(module, "a")] = update.right
    return tensors
