"""Read a PEFT adapter from its directory: safetensors only, never pickle, nothing refused in silence.

In the order of the checks: the config, the header of the tensor file, names and pairs, ranks against the
config, values. Every refusal is an ``AdapterError`` for the owner of the adapter; what it says never
leaves the machine.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg.lora.adapter import Adapter
from secagg.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES, AdapterConfig, parse_config
from secagg.lora.container import read_header, read_tensors
from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted

TENSOR_FILE = "adapter_model.safetensors"

_PICKLE_FILES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_SHARD_INDEX = f"{TENSOR_FILE}.index.json"


def read_adapter(directory: str | os.PathLike[str], base_model: str | None) -> Adapter:
    """The adapter in ``directory``, from ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        directory: as PEFT's ``save_pretrained`` writes it.
        base_model: what ``base_model_name_or_path`` has to say, or None to accept any.

    Raises:
        AdapterError: with the reason, the place and, where there is one, the fix.
    """
    folder = Path(directory)
    with _opened(folder, CONFIG_FILE) as (file, length_bytes):
        if length_bytes > MAX_CONFIG_BYTES:
            raise AdapterError(
                AdapterRejectReason.TOO_LARGE,
                field=CONFIG_FILE,
                found=f"{length_bytes} bytes",
                expected=f"at most {MAX_CONFIG_BYTES}",
            )
        config = parse_config(file.read(MAX_CONFIG_BYTES))
    _require_base_model(config, base_model)
    with _opened(folder, TENSOR_FILE) as (file, length_bytes):
        entries = read_header(file, length_bytes)
        return Adapter(config, dict(read_tensors(file, entries)))


def _require_base_model(config: AdapterConfig, base_model: str | None) -> None:
    if base_model is None or config.base_model_name_or_path == base_model:
        return
    raise AdapterError(
        AdapterRejectReason.BASE_MODEL_MISMATCH,
        field=f"{CONFIG_FILE}: base_model_name_or_path",
        found=quoted(config.base_model_name_or_path),
        expected=quoted(base_model),
        fix="if this is the same model under another name or path, write the expected name into the file",
    )


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """A regular file of the folder and its length; no symbolic link, no pipe, no device."""
    try:
        # Not following links and not blocking on pipes is decided by the one system call that opens, so that
        # nobody can exchange the file between a check and its use.
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_opened(folder, name, error) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise AdapterError(
            AdapterRejectReason.UNSAFE_FILE, field=name, found="no regular file", expected="a regular file"
        )
    with os.fdopen(descriptor, "rb") as file:
        yield file, status.st_size


def _not_opened(folder: Path, name: str, error: OSError) -> AdapterError:
    if error.errno == errno.ELOOP:
        return AdapterError(
            AdapterRejectReason.UNSAFE_FILE,
            field=name,
            found="a symbolic link",
            expected="a regular file",
            fix="copy the files themselves: cp -L, or hf download --local-dir",
        )
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return AdapterError(
            AdapterRejectReason.UNREADABLE_FILE,
            field=name,
            found=os.strerror(error.errno or 0),
            expected="a file",
        )
    if name == TENSOR_FILE:
        for other in _PICKLE_FILES:
            if os.path.lexists(folder / other):
                return AdapterError(
                    AdapterRejectReason.UNSAFE_FILE,
                    field=other,
                    found="a pickle, which can run code when it is read",
                    expected=TENSOR_FILE,
                    fix="save the adapter again with save_pretrained(..., safe_serialization=True)",
                )
        if os.path.lexists(folder / _SHARD_INDEX):
            return AdapterError(
                AdapterRejectReason.UNSUPPORTED_VARIANT,
                field=_SHARD_INDEX,
                found="an adapter in several files",
                expected=TENSOR_FILE,
                fix="save the adapter again with PeftModel.save_pretrained, which writes one file",
            )
    return AdapterError(
        AdapterRejectReason.MISSING_FILE,
        field=name,
        found=f"nothing in {folder}",
        expected=name,
        fix="give the directory that PeftModel.save_pretrained wrote",
    )
