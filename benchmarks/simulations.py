"""What it takes to simulate large sessions: time, CPU and memory of one process, each session in one of its own.

``python -m benchmarks.simulations [--one-shot N] [--pairwise N] [--dimension D]`` prints one line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from simulations.scenarios.named import named
from simulations.scenarios.run import play
from simulations.world.plan import Plan, Protocol


def measure(protocol: Protocol, clients: int, dimension: int) -> dict[str, object]:
    """A session with five of a hundred clients dropping out, its record verified and its invariants checked."""
    scenario = named("dropouts", Plan(protocol, clients, dimension=dimension, seed=1), 0.05)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    outcome = play(scenario)
    if not outcome.is_good or outcome.ended != "finished":
        raise RuntimeError(f"{protocol.value}: {outcome.ended} {outcome.reason} {outcome.violations}")
    return {
        "protocol": protocol.value,
        "clients": clients,
        "dimension": dimension,
        "counted": outcome.counted,
        "wall_s": round(time.perf_counter() - wall_s, 1),
        "cpu_s": round(time.process_time() - cpu_s, 1),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "virtual_s": outcome.seconds,
    }


def main() -> None:
    """Measure each protocol in a process of its own, so that memory is told apart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulations", description=__doc__.splitlines()[0])
    parser.add_argument("--one-shot", type=int, default=10_000, metavar="N")
    parser.add_argument("--pairwise", type=int, default=1_000, metavar="N")
    parser.add_argument("--dimension", type=int, default=1_000, metavar="D")
    parser.add_argument("--only", choices=[each.value for each in Protocol], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    clients = {Protocol.ONE_SHOT: arguments.one_shot, Protocol.PAIRWISE: arguments.pairwise}
    if arguments.only is not None:
        protocol = Protocol(arguments.only)
        print(json.dumps(measure(protocol, clients[protocol], arguments.dimension)), flush=True)
        return
    for protocol in clients:
        command = [sys.executable, "-m", "benchmarks.simulations", *sys.argv[1:], "--only", protocol.value]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
