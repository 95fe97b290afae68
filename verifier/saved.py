"""Keeping the checkpoint of a record, so that a later run notices if history was rewritten."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def save_checkpoint(path: Path, note: bytes) -> None:
    """Write a checkpoint, byte for byte, so that the file is the old one or the new one whatever happens.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(note)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
