"""A disk that can be cut off at any system call, and that forgets what nobody flushed."""

from __future__ import annotations

import enum
import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest


class CrashError(BaseException):
    """The process ends here."""


class CutTime(enum.Enum):
    """Where in a system call the process ends."""

    BEFORE = "before"
    AFTER = "after"
    TORN = "torn"
    """A write is done in half; any other call is not done."""


class Loss(enum.Enum):
    """What is lost with the process."""

    NOTHING = "nothing: the process was killed"
    UNFLUSHED = "all that was not flushed"
    CONTENT = "content that was not flushed, while all names are there"
    SOME = "some of what was not flushed"


@dataclass(slots=True)
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None


@dataclass(slots=True)
class _Directory:
    entries: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)


_Node: TypeAlias = _File | _Directory


class Disk:
    """What lies below ``root`` and what of it is flushed, followed through ``os`` over several lives of a process.

    Nothing is really flushed: the model knows what would be.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tree = _Directory()
        self._descriptors: dict[int, _Node] = {}
        self._cut_at = self._error_at = 0
        self._when = CutTime.BEFORE
        self.calls: list[str] = []
        self.is_dead = False

    @contextmanager
    def life(
        self, monkeypatch: pytest.MonkeyPatch, cut_at: int = 0, when: CutTime = CutTime.BEFORE, error_at: int = 0
    ) -> Iterator[None]:
        """Stand between the block and the system, and cut the block off at its ``cut_at``-th call, counted from 1.

        ``calls`` names the calls of this life that change or flush something. After the cut every further one fails
        as well. The ``error_at``-th is not done and fails, and life goes on. Afterwards no descriptor of the block is
        open.
        """
        self.calls, self.is_dead, self._cut_at, self._when, self._error_at = [], False, cut_at, when, error_at
        with monkeypatch.context() as patch:
            for name in ("open", "pwrite", "ftruncate", "replace", "rename", "mkdir", "rmdir", "unlink"):
                patch.setattr(os, name, self._counted(name, getattr(os, name), getattr(self, f"_{name}")))
            for name in ("fchmod", "chmod"):
                patch.setattr(os, name, self._counted(name, getattr(os, name), lambda *_: None))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self._counted(name, lambda _: None, self._fsync))
            patch.setattr(os, "close", self._close)
            yield
        left, self._descriptors = list(self._descriptors), {}
        for descriptor in left:
            with suppress(OSError):
                os.close(descriptor)

    def fail(self, loss: Loss, seed: int = 0) -> None:
        """Leave below ``root`` what is there when the machine starts again."""
        if loss is not Loss.NOTHING:
            lost = self._root.with_name(f"lost-{self._root.name}")
            _materialise(self._root, self._tree, _chooser(loss, random.Random(seed)), lost)
            self._tree = _flushed(self._root)

    def _counted(self, name: str, real: Callable[..., object], follow: Callable[..., None]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if not self._is_ours(arguments):
                return real(*arguments, **options)
            if self.is_dead:
                raise CrashError
            self.calls.append(name)
            cut = len(self.calls) == self._cut_at
            if len(self.calls) == self._error_at:
                raise OSError(errno.EIO, "Input/output error")
            self.is_dead = cut
            if cut and self._when is CutTime.TORN and name == "pwrite":
                descriptor, data, offset = arguments
                arguments = (descriptor, memoryview(data)[: len(data) // 2], offset)  # type: ignore[arg-type]
            elif cut and self._when is not CutTime.AFTER:
                raise CrashError
            result = real(*arguments, **options)
            follow(result, *arguments)
            if cut:
                raise CrashError
            return result

        return call

    def _is_ours(self, arguments: tuple[object, ...]) -> bool:
        first = arguments[0]
        if isinstance(first, int):
            return first in self._descriptors
        return Path(first).is_relative_to(self._root)  # type: ignore[arg-type]

    def _directory(self, path: Path) -> _Directory:
        node: _Node = self._tree
        for part in path.relative_to(self._root).parts:
            node = node.entries[part]  # type: ignore[union-attr]
        assert isinstance(node, _Directory)
        return node

    def _open(self, descriptor: int, path: Path | str, flags: int, *_: object) -> None:
        path = Path(path)
        if path == self._root:
            self._descriptors[descriptor] = self._tree
            return
        entries = self._directory(path.parent).entries
        node = entries.setdefault(path.name, _File())
        if flags & os.O_TRUNC and isinstance(node, _File):
            node.data.clear()
        self._descriptors[descriptor] = node

    def _close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        os_close(descriptor)

    def _pwrite(self, written: int, descriptor: int, data: bytes, offset: int) -> None:
        node = self._descriptors[descriptor]
        assert isinstance(node, _File)
        node.data[offset : offset + written] = bytes(data[:written])

    def _ftruncate(self, _: None, descriptor: int, length: int) -> None:
        node = self._descriptors[descriptor]
        assert isinstance(node, _File)
        del node.data[length:]

    def _fsync(self, _: None, descriptor: int) -> None:
        match self._descriptors[descriptor]:
            case _File() as file:
                file.durable = bytes(file.data)
            case _Directory() as directory:
                directory.durable = dict(directory.entries)

    def _replace(self, _: None, source: Path, target: Path) -> None:
        moved = self._directory(Path(source).parent).entries.pop(Path(source).name)
        self._directory(Path(target).parent).entries[Path(target).name] = moved

    _rename = _replace

    def _mkdir(self, _: None, path: Path, *__: object) -> None:
        self._directory(Path(path).parent).entries[Path(path).name] = _Directory()

    def _unlink(self, _: None, path: Path, *__: object) -> None:
        del self._directory(Path(path).parent).entries[Path(path).name]

    _rmdir = _unlink


os_close = os.close

_Choose: TypeAlias = Callable[["_Node | None", "_Node | None"], "_Node | None"]


def _chooser(loss: Loss, rng: random.Random) -> _Choose:
    """Of a name's present and flushed meaning the one that survives."""

    def choose(present: _Node | None, flushed: _Node | None) -> _Node | None:
        match loss:
            case Loss.UNFLUSHED:
                return flushed
            case Loss.CONTENT:
                return present
        return rng.choice((present, flushed))

    return choose


def _materialise(path: Path, directory: _Directory, choose: _Choose, lost: Path) -> None:
    """Make the directory what the model says; what stays keeps its inode."""
    for name in directory.entries.keys() | directory.durable.keys() | set(os.listdir(path)):
        node = choose(directory.entries.get(name), directory.durable.get(name))
        target = path / name
        if target.exists() and (node is None or target.is_dir() != isinstance(node, _Directory)):
            _remove(target, lost)
        match node:
            case _Directory():
                target.mkdir(exist_ok=True)
                _materialise(target, node, choose, lost)
            case _File():
                # What was never flushed has its length at most: here half of it, and not what was written.
                content = node.durable if node.durable is not None else bytes(len(node.data) // 2)
                if not target.exists() or target.read_bytes() != content:
                    with target.open("r+b" if target.exists() else "wb") as file:
                        file.truncate()
                        file.write(content)


def _flushed(path: Path) -> _Directory:
    """The directory as it is, with nothing left to flush."""
    entries: dict[str, _Node] = {}
    for child in path.iterdir():
        content = b"" if child.is_dir() else child.read_bytes()
        entries[child.name] = _flushed(child) if child.is_dir() else _File(bytearray(content), content)
    return _Directory(entries, dict(entries))


def _remove(path: Path, lost: Path) -> None:
    """Take a file away for good. Its inode stays in use, as if much else had been written since."""
    lost.mkdir(exist_ok=True)
    path.rename(lost / str(len(os.listdir(lost))))
