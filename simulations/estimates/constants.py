"""What one operation costs, as measured: the constants that ``simulations.estimates.estimate`` extrapolates from.

``constants.json`` beside this module has a set of them, with the date and the kind of machine. Your own:
``python -m benchmarks.constants --json FILE``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

FORMAT = "secagg/constants/1"

MEANINGS = {
    "encode_s_a_coordinate": "contributor: clip, round, pack one coordinate",
    "mask_s_a_lane": "contributor: ring mask of one lane",
    "linear_hash_s_a_lane": "contributor: linear hash of one lane",
    "digest_s_a_byte": "contributor: SHA-256 of its upload",
    "seal_s_a_seed_box": "contributor: seal one box with a seed",
    "seal_s_a_share_box": "contributor: compute and seal one box with a whole share",
    "sign_s_a_contribution": "contributor: sign its header, with the machine's step",
    "send_s_an_upload": "contributor: the calls of one upload over TLS",
    "send_s_a_byte": "contributor: send a byte of it",
    "receive_s_an_upload": "coordinator: the calls of one upload, its commits, its boxes on to the members",
    "receive_s_a_byte": "coordinator: a byte of it from TLS to disk, SHA-256 and limb sum",
    "close_s_a_contribution": "coordinator: close, check hashes, publish; for each contribution",
    "hash_sum_s_a_lane": "coordinator, verifier: linear hash of one limb sum",
    "open_s_a_lane": "coordinator, verifier: certify and unmask the sum",
    "decode_s_a_coordinate": "coordinator, verifier: decode the sum",
    "take_s_a_seed_box": "member: check, open and store a box with a seed",
    "take_s_a_share_box": "member: the same with a whole share",
    "sum_s_a_seed_box": "member: open it again and add the share",
    "sum_s_a_share_box": "member: the same with a whole share",
    "verify_s_a_contribution": "verifier, level sum: one contribution of the record",
    "add_s_a_lane": "verifier, level full: read, hash and add one lane of a masked input",
    "memory_bytes_a_contribution": "coordinator: rows of one contribution in memory",
    "announcement_overhead_bytes": "upload: framing of the message with header, hash and boxes",
    "chunk_overhead_bytes": "upload: framing of one chunk",
    "chunk_bytes": "upload: longest chunk",
    "message_limit_bytes": "longest message of any call",
    "cell_limit_bytes": "longest state of a session in the store",
    "pairwise_client_s_a_neighbour": "pairwise contributor: keys, boxes, shares of one neighbour",
    "pairwise_client_s_a_listed": "pairwise contributor: check one member of the cohort in all published lists",
    "pairwise_coordinator_s_a_client": "pairwise coordinator: one client of the cohort",
    "pairwise_coordinator_s_a_pair": "pairwise coordinator: one client and one of its neighbours",
    "keystream_s_a_lane": "one pairwise or self mask: one lane",
}
"""Every constant: its unit is in its name."""


class ConstantsError(ValueError):
    """A set of constants that cannot be used; the text names what is wrong."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Measured constants.

    Attributes:
        values: of each name in ``MEANINGS``, finite and positive.
        date: when they were measured, as text.
        machine: on what kind of machine.
        command: by which command.

    Raises:
        ConstantsError: a name is missing or unknown, or a value is none.
    """

    values: dict[str, float]
    date: str
    machine: str
    command: str

    def __post_init__(self) -> None:
        for name in sorted(MEANINGS.keys() ^ self.values.keys()):
            raise ConstantsError(f"{name}: {'missing' if name in MEANINGS else 'unknown'}")
        for name, value in self.values.items():
            if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
                raise ConstantsError(f"{name}: must be a positive number, is {value!r}")

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def to_json(self) -> str:
        """The text of a file of constants."""
        measured = {"date": self.date, "machine": self.machine, "command": self.command}
        rounded = {name: float(f"{self.values[name]:.4g}") for name in MEANINGS}
        for name, value in self.values.items():
            # Limits and lengths are exact; what was timed is not known to more than four digits.
            if float(value).is_integer():
                rounded[name] = int(value)
        return json.dumps({"format": FORMAT, "measured": measured, "constants": rounded}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Constants:
        """The constants in a file.

        Raises:
            ConstantsError: not a file of constants.
        """
        try:
            found: Any = json.loads(text)
        except ValueError as error:
            raise ConstantsError(f"not JSON: {error}") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ConstantsError(f"format: expected {FORMAT}")
        measured, values = found.get("measured"), found.get("constants")
        if not isinstance(measured, dict) or not isinstance(values, dict):
            raise ConstantsError("measured, constants: expected two objects")
        texts = [measured.get(name) for name in ("date", "machine", "command")]
        if not all(isinstance(each, str) for each in texts):
            raise ConstantsError("measured: expected date, machine and command")
        return cls(values, *map(str, texts))


def load(path: Path | None) -> Constants:
    """The constants of a file; None: the set that comes with the package.

    Raises:
        ConstantsError: the file cannot be read, or is none of constants.
    """
    source = resources.files("simulations.estimates") / "constants.json" if path is None else path
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConstantsError(f"{path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    return Constants.from_json(text)
