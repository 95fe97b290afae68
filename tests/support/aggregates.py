"""What a session's result names as merged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from secagg.transcript.entries import AggregateFile


def aggregate_of(files: Mapping[str, bytes]) -> tuple[AggregateFile, ...]:
    """The list that names these files."""
    return tuple(AggregateFile(name, hashlib.sha256(files[name]).digest()) for name in sorted(files))


def some_adapter(config: bytes = bytes(32), model: bytes = bytes(32)) -> tuple[AggregateFile, ...]:
    """The list of an adapter's two files with these digests."""
    return AggregateFile("adapter_config.json", config), AggregateFile("adapter_model.safetensors", model)
