"""Generates the vectors of the protocol: ``python -m tests.vectors.generate_session``.

Every operation has ``op``, its inputs, ``success``, and ``expected`` or ``error``; ``attack`` names what a refused one
tries. Bytes are lowercase hex; canonical records stand as text, whose bytes are its UTF-8. ``session.json`` and
``quorum.json`` are scripts: their operations run in order on one coordinator and its clients, a refused one leaves
everything as it was. There ``bytes`` holds keys, boxes and linear hashes by name, and operations give the names.

Sealing draws randomness that cannot be given, so boxes are recorded: whoever regenerates takes the boxes of the
existing files as long as they open to what they should, and everything else comes out byte for byte the same. A box
that is missing or stale is sealed anew, and the files change from there on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.vectors.crowd_play import CrowdPlay
from tests.vectors.session_play import Play
from tests.vectors.session_script import Script
from tests.vectors.session_stage import Stage
from tests.vectors.static_operations import DIRECTORY, raw, replay
from tests.vectors.static_vectors import (
    canonical_operations,
    label_operations,
    masking_operations,
    merkle_operations,
    sealing_operations,
)

NAME = "session.json"


RULES = (
    "Operations run in order on one coordinator and its clients; where success is false, the state stays as it was and "
    "error is the RejectReason."
)
SESSIONS: dict[str, tuple[str, type[Stage]]] = {
    NAME: (
        "One session of four clients, of which one drops out after it shared keys; a roster member never comes.",
        Play,
    ),
    "quorum.json": ("One client of a session of 101, up to its answer; its two neighbours only join.", CrowdPlay),
}


def render_session(name: str) -> str:
    """The text of a session's file, with the boxes of the existing one."""
    path, (description, play) = DIRECTORY / name, SESSIONS[name]
    known = json.loads(path.read_text(encoding="utf-8"))["bytes"] if path.exists() else {}
    script = Script({name: raw(data) for name, data in known.items()}, seals=True)
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in play(script).operations())
    table = ",\n".join(f'  "{name}": "{script.table[name].hex()}"' for name in sorted(script.used))
    return f'{{"description": "{description} {RULES}",\n"bytes": {{\n{table}\n}},\n"operations": [\n{lines}\n]}}\n'


FILES: dict[str, tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = {
    "canonical.json": ("Canonical JSON, and the records that are hashed and signed.", canonical_operations),
    "labels.json": ("Labelled encoding, derived keys, commitments and signatures.", label_operations),
    "merkle.json": ("RFC 6962 trees: roots, audit paths, inclusion.", merkle_operations),
    "sealing.json": ("Sealing keys, contexts of boxes, and recorded boxes.", sealing_operations),
    "masking.json": ("From seeds to masked inputs, and from a sum back to its lanes.", masking_operations),
}


def render(name: str) -> str:
    """The text of one file; the same on every run as long as the recorded boxes are there."""
    if name in SESSIONS:
        return render_session(name)
    description, operations = FILES[name]
    lines = ",\n".join("  " + json.dumps(entry | replay(entry), ensure_ascii=False) for entry in operations())
    return f'{{"description": {json.dumps(description)}, "operations": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes every file next to this one."""
    for name in (*FILES, *SESSIONS):
        (DIRECTORY / name).write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
