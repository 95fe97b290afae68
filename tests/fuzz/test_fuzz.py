"""Every decoder of foreign bytes on its seeds, damaged in many ways; under the fuzzer for minutes with ``-m fuzz``."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
_DAMAGES = 300
_LONGEST = 1 << 16
_WHOLES = [b"[" * 5000, b'{"type":' * 5000, b"", b"\n", bytes(200), b"\xff" * 200, b"a = " + b"[" * 5000]
each_target = pytest.mark.parametrize("name", TARGETS)


def damaged(seed: bytes, generator: random.Random) -> bytes:
    """The seed with one to four pieces flipped, cut out, doubled, or replaced by something that formats trip over."""
    if generator.random() < 0.03:
        return generator.choice(_WHOLES)
    data = bytearray(seed)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) + 1)
        end = min(len(data), at + generator.randint(1, 8))
        match generator.randrange(4):
            case 0:
                data[at:end] = generator.randbytes(end - at)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * generator.randint(1, 3)
            case _:
                tricky = [b"\x00", b"\xff\xff", b"\n\n", b"[" * 200, b"1e999", b"-0", b'"\\ud800"', b"{}", b"/0"]
                data[at:end] = generator.choice(tricky)
    return bytes(data[:_LONGEST])


def accepted(target, data: bytes) -> bool:
    """Whether the decoder takes it; what is no refusal is raised."""
    try:
        target.decode(data)
    except target.refusals:
        return False
    return True


@each_target
def test_what_is_no_refusal_is_a_crash_and_there_is_none(name):
    target, generator = TARGETS[name], random.Random(name)
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        target.run(seed)
    for _ in range(_DAMAGES):
        target.run(damaged(generator.choice(seeds), generator))


DECODES = [
    "canonical", "entry", "statement", "disposition", "layout", "manifest", "fixed-tensors", "merge-report", "note",
    "bundle", "adapter-config", "mechanism", "ledger-event",
]  # fmt: skip


@pytest.mark.parametrize("name", DECODES)
def test_the_seeds_of_a_target_are_ones_that_it_takes(name):
    target = TARGETS[name]
    assert any(accepted(target, seed) for seed in target.seeds())


def test_a_decoder_that_trips_is_noticed():
    from tests.fuzz.target import Target

    trips = Target("trips", lambda data: {b"{": 1}[data[:1]], (ValueError,), lambda: [b"{"])
    trips.run(b"{")
    with pytest.raises(KeyError):
        trips.run(b"[")


@pytest.mark.fuzz
@pytest.mark.timeout(400)
@each_target
def test_the_fuzzer_finds_nothing(name, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", "60", "--keep", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert list(tmp_path.iterdir()) == []
