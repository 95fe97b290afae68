"""What a contribution costs a committee member: to take (check header and box, store) and to sum, on disk.

``python -m benchmarks.committee [--contributors N] [--directory DIR]``. CPU time of the process, which other work on
the machine changes less, and wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import resource
import tempfile
import time
from pathlib import Path

from secagg.protocol.one_shot.messages import HeldBox
from secagg.runtime.committee_member import CommitteeMemberHost
from secagg.runtime.member_ports import MemberPorts
from secagg.store.member_state import MemberState
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.statements import Signed
from tests.support import one_shot
from tests.support.cohort import VirtualClock

BATCH = 55
"""As many full shares as fit into a megabyte."""


@dataclasses.dataclass
class Clocked:
    """Milliseconds for each contribution."""

    wall_ms: float
    cpu_ms: float


class Stopwatch:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def stop(self, contributors: int) -> Clocked:
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return Clocked(round(1e3 * wall_s / contributors, 4), round(1e3 * cpu_s / contributors, 4))


async def measure(directory: Path, contributors: int, place: int) -> dict[str, object]:
    """One session of one member, from its boxes to its answer."""
    committee = one_shot.committee_of(7, 5, 2)
    keys = one_shot.contributor_keys(contributors)
    session = one_shot.session_of(keys, opening=committee, max_contributors=1 << 16)
    everybody = [one_shot.contribute(session, key) for key in keys]
    MemberState.create(directory)
    state = MemberState(directory)
    ports = MemberPorts(
        state.sessions,
        state.boxes,
        state.journal,
        VirtualClock(),
        one_shot.member_key(place),
        one_shot.sealing_key(place),
        one_shot.rules_of(),
        one_shot.WITNESSED,
        state.memory_of,
        lambda *report: print(report),
    )
    host = CommitteeMemberHost(ports)
    await host.start()
    key = session.parameters.session
    await host.join(key, one_shot.shown_files(session, one_shot.evidence_of(session)), session.roster)
    member = await host.find(key)
    sent = [(each.leaf, each.boxes[place]) for each in everybody]
    watch = Stopwatch()
    for start in range(0, contributors, BATCH):
        items = [HeldBox(Signed.from_bytes(leaf), box) for leaf, box in sent[start : start + BATCH]]
        if any(await member.hold(items)):
            raise RuntimeError("a complaint")
    taking = watch.stop(contributors)
    evidence = one_shot.evidence_of(session, one_shot.close_of(session, everybody))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch = Stopwatch()
    answer = await member.open(evidence, b"".join(leaf_hash(leaf) for leaf, _ in sent))
    summing = watch.stop(contributors)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    await host.close()
    await state.close()
    return {
        "place": place,
        "contributors": contributors,
        "take": dataclasses.asdict(taking),
        "sum": dataclasses.asdict(summing),
        "sum_memory_kib": grown_kib,
        "answer": hashlib.sha256(answer.to_bytes()).hexdigest()[:16],
    }


def main() -> None:
    """Measure a member that gets seeds and one that gets full shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.committee", description=__doc__.splitlines()[0])
    parser.add_argument("--contributors", type=int, default=1000)
    parser.add_argument("--directory", type=Path, help="on the disk to measure (default: the temporary one)")
    arguments = parser.parse_args()
    for place in (0, 6):
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            print(json.dumps(asyncio.run(measure(Path(directory) / "state", arguments.contributors, place))))


if __name__ == "__main__":
    main()
