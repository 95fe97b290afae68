"""Generates the vectors of the protocol: ``python -m tests.vectors.generate_session``.

Every operation has ``op``, its inputs, ``success``, and ``expected`` or ``error``; ``attack`` names what a refused one
tries. Bytes are lowercase hex; canonical records stand as text, whose bytes are its UTF-8. ``session.json`` is a
script: its operations run in order on one coordinator and four clients, a refused one leaves everything as it was.
There ``bytes`` holds keys and boxes by name, and operations give the names.

Sealing draws randomness that cannot be given, so boxes are recorded: whoever regenerates takes the boxes of the
existing files as long as they open to what they should, and everything else comes out byte for byte the same. A box
that is missing or stale is sealed anew, and the files change from there on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.vectors.session_play import Play
from tests.vectors.session_script import Script
from tests.vectors.static_operations import DIRECTORY, raw, replay
from tests.vectors.static_vectors import (
    canonical_operations,
    label_operations,
    masking_operations,
    merkle_operations,
    sealing_operations,
)

NAME = "session.json"


def render_session(path: Path) -> str:
    """The text of ``session.json``, with the boxes of the existing file."""
    known = json.loads(path.read_text(encoding="utf-8"))["bytes"] if path.exists() else {}
    script = Script({name: raw(data) for name, data in known.items()}, seals=True)
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in Play(script).operations())
    table = ",\n".join(f'  "{name}": "{script.table[name].hex()}"' for name in sorted(script.used))
    description = (
        "One session of four clients, of which one drops out after it shared keys; a roster member never comes. "
        "Operations run in order on one coordinator and its clients; where success is false, the state stays as it was "
        "and error is the RejectReason."
    )
    return f'{{"description": "{description}",\n"bytes": {{\n{table}\n}},\n"operations": [\n{lines}\n]}}\n'


FILES: dict[str, tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = {
    "canonical.json": ("Canonical JSON, and the records that are hashed and signed.", canonical_operations),
    "labels.json": ("Labelled encoding, derived keys, commitments and signatures.", label_operations),
    "merkle.json": ("RFC 6962 trees: roots, audit paths, inclusion.", merkle_operations),
    "sealing.json": ("Sealing keys, contexts of boxes, and recorded boxes.", sealing_operations),
    "masking.json": ("From seeds to masked inputs, and from a sum back to its lanes.", masking_operations),
}


def render(name: str) -> str:
    """The text of one file; the same on every run as long as the recorded boxes are there."""
    if name == NAME:
        return render_session(DIRECTORY / name)
    description, operations = FILES[name]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry), ensure_ascii=False) for entry in operations())
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes every file next to this one."""
    for name in (*FILES, NAME):
        (DIRECTORY / name).write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
