"""Flower's SecAgg+ and ours on the same work in the same run: ``python -m benchmarks.peer_flower --json OUT``.

Flower's own code runs unchanged: the four stages of ``SecAggPlusWorkflow`` in a server process, ``secaggplus_mod``
around a client app in worker processes that play one client at a time. A grid of ours carries the serialised
``Message`` protobufs between them through pipes. As in ``benchmarks.pairwise``, carrying is left out of the figures and
building and parsing messages is not; a client's training (making its vector) is left out too. Clients that drop out
never answer the third stage, their masked vector. Flower sends the model down with the third stage, four bytes a
parameter; ours leaves models to others, so bytes down are shown but not compared.

Needs ``flwr`` (1.41) in the environment; without it the program says so and ends with status 2.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import logging
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import numpy as np

from benchmarks.pairwise import NOT_COUNTED, SPAWN, Meter, Pipe, Report, add_options, memory_mib, run, write_json

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
COLLECT = STAGES.index("collect_masked_vectors")
SPARSE_THRESHOLD = 0.42
"""Of a sparse neighbourhood: Flower's own safety check is against neighbourhoods losing more than the rest."""


@dataclass(frozen=True)
class Work:
    """What Flower is asked to do."""

    clients: int
    dimension: int
    dropped: int
    degree: int | None
    workers: int

    def gone(self) -> set[int]:
        """Nodes that fall silent before the third stage; nodes count from 1."""
        draws = random.Random(self.clients)  # noqa: S311 - decides who drops out, nothing secret
        return set(draws.sample(range(1, self.clients + 1), self.dropped))

    def shares(self) -> tuple[int | float, int | float]:
        """Flower's ``num_shares`` (a client itself included) and ``reconstruction_threshold``."""
        if self.degree is None:
            return 1.0, 0.51
        return self.degree + 1, round(SPARSE_THRESHOLD * (self.degree + 1))

    def vector(self, node: int) -> np.ndarray:
        """What a node contributes."""
        return np.random.default_rng(node).random(self.dimension, dtype=np.float32) - np.float32(0.5)


class PipeGrid:
    """As much of Flower's Grid as the workflow uses: each worker has one message under way at a time."""

    def __init__(self, work: Work, lines: Sequence[Pipe], meter: Meter) -> None:
        self.work, self.lines, self.meter = work, lines, meter
        self.stage = -1

    def send_and_receive(self, messages: Sequence[Any], *, timeout: float | None = None) -> list[Any]:  # noqa: ARG002
        """The answers to ``messages`` of all nodes that still answer."""
        from flwr.common.serde import message_from_proto, message_to_proto
        from flwr.proto.message_pb2 import Message as MessageProto

        self.stage += 1
        gone = self.work.gone() if self.stage == COLLECT else set()
        waiting = defaultdict(list)
        for message in messages:
            node = message.metadata.dst_node_id
            if node not in gone:
                waiting[self.lines[node % len(self.lines)]].append(message)
        answers = []

        def send_next(line: Pipe) -> None:
            with self.meter.measure("messages"):
                data = message_to_proto(waiting[line].pop()).SerializeToString()
            with self.meter.measure(NOT_COUNTED):
                line.send((STAGES[self.stage], data))

        busy = list(waiting)
        for line in busy:
            send_next(line)
        while busy:
            for line in connection.wait(busy):
                with self.meter.measure(NOT_COUNTED):
                    data = line.recv_bytes()  # type: ignore[union-attr]
                with self.meter.measure("messages"):
                    answers.append(message_from_proto(MessageProto.FromString(data)))
                if waiting[line]:  # type: ignore[index]
                    send_next(line)  # type: ignore[arg-type]
                else:
                    busy.remove(line)  # type: ignore[arg-type]
        return answers


def serve(work: Work, lines: Sequence[Pipe], results: Pipe) -> None:
    """The server's process: sends its report and the mean."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from flwr.app import ConfigRecord, Context, RecordDict
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server.client_manager import SimpleClientManager
    from flwr.server.compat.grid_client_proxy import GridClientProxy
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
    from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState

    _identify()
    meter = Meter()
    grid = PipeGrid(work, lines, meter)
    manager = SimpleClientManager()
    for node in range(1, work.clients + 1):
        manager.register(GridClientProxy(node, grid, 1))
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=work.clients, min_available_clients=work.clients)
    context = LegacyContext(Context(1, 0, {}, RecordDict(), {}), strategy=strategy, client_manager=manager)
    model = ndarrays_to_parameters([np.zeros(work.dimension, np.float32)])
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1, Key.START_TIME: 0.0})
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(model, keep_input=False)
    # A node's weight is its number of examples, 1 for all: the plain mean.
    workflow, state = SecAggPlusWorkflow(*work.shares(), max_weight=1.0), WorkflowState()
    start_mib = memory_mib("VmRSS")
    meter.forget()
    for stage in STAGES:
        with meter.measure(stage):
            done = getattr(workflow, f"{stage}_stage")(grid, context, state)
        if not done:
            raise SystemExit(f"Flower gave up in stage {stage}")
        print(f"  Flower: {stage} done", file=sys.stderr)
    cpu_s = {name: seconds for name, seconds in meter.total().items() if name not in (NOT_COUNTED, "other")}
    for line in lines:
        line.send(("", b""))
    results.send(
        {
            "shares": state.num_shares,
            "threshold": state.threshold,
            "cpu_s": {name: round(value, 4) for name, value in [*cpu_s.items(), ("total", sum(cpu_s.values()))]},
            "rss_start_mib": start_mib,
            "rss_peak_mib": memory_mib("VmHWM"),
        }
    )
    record = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    results.send_bytes(parameters_to_ndarrays(record)[0].astype("<f8").tobytes())


def _identify() -> None:
    """Flower asks every process which task it runs; any answer will do."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def follow(work: Work, line: Pipe, results: Pipe) -> None:
    """A worker's process: sends what its clients cost, and the sum of the vectors they contributed."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from flwr.app import Context, Message, RecordDict
    from flwr.client.mod import secaggplus_mod
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.common.serde import message_from_proto, message_to_proto
    from flwr.compat.common import recorddict_compat as compat
    from flwr.proto.message_pb2 import Message as MessageProto

    _identify()
    meter = Meter()
    contexts: dict[int, Any] = {}
    total = np.zeros(work.dimension)
    report: Report = {"cpu": defaultdict(dict), "up": defaultdict(dict), "down": defaultdict(dict)}

    def train(message: Any, context: Any) -> Any:  # noqa: ANN401
        with meter.measure(NOT_COUNTED):
            vector = work.vector(context.node_id)
            np.add(total, vector, out=total)
            trained = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), 1, {})
            return Message(compat.fitres_to_recorddict(trained, keep_input=False), reply_to=message)

    while True:
        stage, data = line.recv()
        if not stage:
            break
        meter.forget()
        with meter.measure(stage):
            message = message_from_proto(MessageProto.FromString(data))
            node = message.metadata.dst_node_id
            context = contexts.setdefault(node, Context(1, node, {}, RecordDict(), {}))
            answer = message_to_proto(secaggplus_mod(message, context, train)).SerializeToString()
        report["cpu"][stage][node] = meter.total()[stage]
        report["down"][stage][node] = len(data)
        report["up"][stage][node] = len(answer)
        del message
        line.send_bytes(answer)
    results.send({**{name: dict(values) for name, values in report.items()}, "rss": memory_mib("VmHWM")})
    results.send_bytes(total.tobytes())


def play_flower(work: Work) -> Report:
    """One round of Flower in processes of its own; its report."""
    start = time.perf_counter()
    lines = [SPAWN.Pipe() for _ in range(work.workers)]
    results = [SPAWN.Pipe(duplex=False) for _ in range(work.workers + 1)]
    processes = [
        SPAWN.Process(target=serve, args=(work, [line[0] for line in lines], results[0][1])),
        *(SPAWN.Process(target=follow, args=(work, lines[i][1], results[i + 1][1])) for i in range(work.workers)),
    ]
    try:
        for process in processes:
            process.start()
        for end in [*(end for line in lines for end in line), *(result[1] for result in results)]:
            end.close()
        server, *workers = [result[0].recv() for result in results]
        mean, *sums = [np.frombuffer(result[0].recv_bytes()) for result in results]
    except EOFError:
        raise SystemExit("a process of the benchmark failed; see above") from None
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    error = np.abs(mean - np.sum(sums, axis=0) / (work.clients - work.dropped)).max()
    return {
        "server": server,
        "client": _client_report(work, workers),
        "largest_error_of_the_mean": float(error),
        "wall_s": round(time.perf_counter() - start, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _client_report(work: Work, workers: Sequence[Report]) -> Report:
    def values(name: str, stage: str) -> list[float]:
        return [value for worker in workers for value in worker[name].get(stage, {}).values()]

    cpu_s = {stage: statistics.fmean(values("cpu", stage)) for stage in STAGES}
    up = sum(statistics.fmean(values("up", stage)) for stage in STAGES)
    down = sum(statistics.fmean(values("down", stage)) for stage in STAGES)
    return {
        "cpu_s": {name: round(value, 5) for name, value in [*cpu_s.items(), ("total", sum(cpu_s.values()))]},
        "bytes_up_total": round(up),
        "bytes_down_total": round(down),
        "bytes_up_per_parameter": round(up / work.dimension, 5),
        "worker_rss_peak_mib": max(worker["rss"] for worker in workers),
    }


def compare(flower: Report, ours: Report) -> Report:
    """Flower's figure over ours: above 1 is in our favour."""
    server, coordinator, client = flower["server"], ours["coordinator"], ours["client"]
    memory = [side["rss_peak_mib"] - side["rss_start_mib"] for side in (server, coordinator)]
    return {
        "coordinator_cpu": round(server["cpu_s"]["total"] / coordinator["cpu_s"]["total"], 2),
        "client_cpu": round(flower["client"]["cpu_s"]["total"] / client["cpu_s"]["total"]["mean"], 2),
        "bytes_up": round(flower["client"]["bytes_up_total"] / client["bytes_up_total"], 2),
        "coordinator_memory_above_start": round(memory[0] / max(memory[1], 0.1), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_flower", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    if importlib.util.find_spec("flwr") is None:
        print("peer_flower: Flower is not installed here: pip install 'flwr==1.41.0'", file=sys.stderr)
        return 2
    peer = f"flwr {importlib.metadata.version('flwr')}"
    reports = []
    for rate in options.dropout:
        dropped = round(rate * options.clients)
        print(f"{peer}: {options.clients} clients, {dropped} drop out", file=sys.stderr)
        work = Work(options.clients, options.dimension, dropped, options.degree, options.workers)
        reports.append({"peer": peer, "dropout": rate, "flower": play_flower(work)})
    for report, ours in zip(reports, run(options), strict=True):
        report["ours"] = ours
        report["ratios"] = compare(report["flower"], ours)
        print(f"dropout {report['dropout']}, {peer} over ours: {report['ratios']}", file=sys.stderr)
    write_json(options.json, reports if len(reports) > 1 else reports[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
