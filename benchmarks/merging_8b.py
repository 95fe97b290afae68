"""What merging costs at the size of an 8B model: `python -m benchmarks.merging_8b --json OUT` (`-`: standard output).

The modules are those of Llama-3.1-8B, all 224 linear layers, sketched at rank 16. Each step is a process of its own:

- `client`: one adapter of rank 16 is read, and becomes a masked upload and its linear hash, as in a session over pairs.
- `sum`: two adapters of rank 8, as uploads, are added and decoded. Together they fit the rank of the merged adapter, so
  the error that is reported is that of 15 bits, and not of the rank.
- `merge`: the mean becomes the files of the aggregate.
- `audit`: the files are compared with the mean, as a verifier does.

Peak memory (Linux) is that of the whole process; `beyond_adapter_mib` leaves out the adapter's tensors in fp32 alone,
and so holds the interpreter too. Limits: 1 GiB beyond the adapter, 6 CPU minutes for `merge`.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from secagg.arith.keystream import add_masks
from secagg.crypto.secret import Secret
from secagg.derive.result import decode
from secagg.lora.base_model import ALL_LINEAR, build_manifest, modules_of_base
from secagg.lora.manifest import Manifest
from secagg.lora.merge_report import REPORT_FILE, MergeReport
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.lora.update_merging import UpdateMerging
from secagg.lora.updates import joint_norm
from secagg.lora.writer import encode_adapter, write_files
from secagg.runtime import vectors
from secagg.transcript.encoding import CoordinateRange, Encoding
from secagg.transcript.merge import SketchMerge
from secagg.transcript.noise import NoDifferentialPrivacy

Report = dict[str, object]
MODEL = "synthetic-8b"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}
RANK_OUT, COLUMNS, CORE, PROBE = 16, 32, 128, 8
MAX_CONTRIBUTORS = 1000
NEIGHBOURS = 50
SEED = hashlib.sha256(b"benchmark").digest()
STEPS = ("client", "sum", "merge", "audit")
MIB = 2**20
CLIENT_LIMIT_MIB, MERGE_LIMIT_S = 1024, 360


def merging_of(directory: Path, layers: int) -> UpdateMerging:
    """The merging of the session, from the config of the base model in `directory`."""
    (directory / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}), encoding="utf-8")
    modules = modules_of_base(directory, ALL_LINEAR)
    # An entry of an update has variance rank * 10^-6, and the session allows for twice the norm.
    entries = sum(module.outputs * module.columns for module in modules)
    merge = SketchMerge(Fraction(round(8e-3 * entries**0.5)), SEED, COLUMNS, CORE, PROBE)
    plan = Manifest(MODEL, "", "", RANK_OUT, fan_in_fan_out=False, missing="refuse", modules=modules)
    return UpdateMerging.of(merge, build_manifest(merge, plan, {}), counts_clipping=True)


def write_synthetic(merging: UpdateMerging, directory: Path, rank: int, seed: int) -> None:
    """An adapter of Gaussian factors."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for module in merging.manifest:
        for name, shape in ((module.a_name, module.a_shape(rank)), (module.b_name, module.b_shape(rank))):
            tensors[name] = generator.standard_normal(shape, dtype=np.float32) * np.float32(10**-1.5)
    template = AdapterTemplate(MODEL, "", "", rank, rank, use_rslora=False, fan_in_fan_out=False)
    write_files(directory, encode_adapter(template, tensors))


def encoding_of(merging: UpdateMerging) -> Encoding:
    """15 bits for each coordinate, for up to a thousand contributors."""
    dimension = merging.layout.dimension
    return Encoding(
        dimension, 15, MAX_CONTRIBUTORS, 64, Fraction(int(dimension**0.5) + 1), CoordinateRange(Fraction(1))
    )


def run_client(directory: Path, layers: int) -> Report:
    """What a contributor's program does between its adapter and the network."""
    merging = merging_of(directory, layers)
    started_mib = peak_mib()
    adapter = read_adapter(directory / "one", MODEL)
    adapter_mib = sum(values.nbytes for values in adapter.tensors.values()) / MIB
    read_mib, read_s = peak_mib(), time.process_time()
    message = merging.message(adapter)
    message_s = time.process_time()
    encoding = encoding_of(merging)
    lanes, _ = vectors.encode(encoding, NoDifferentialPrivacy(), message.vector, Secret(bytes(32)))
    encode_s = time.process_time()
    keys = [hashlib.sha256(number.to_bytes(2, "big")).digest() for number in range(NEIGHBOURS)]
    add_masks(lanes, keys[::2], keys[1::2], vectors.worker_threads())
    digest = vectors.linear_hash_of(lanes)
    end_s = time.process_time()
    return {
        "coordinates": encoding.dimension,
        "upload_mib": lanes.nbytes / MIB,
        "norm": joint_norm(adapter, merging.manifest),
        "scaled_by": message.factor,
        "clamped": message.clamped,
        "hash_bytes": len(digest),
        "cpu_s": {"message": message_s - read_s, "encode": encode_s - message_s, "mask_and_hash": end_s - encode_s},
        "rss_mib": {"start": started_mib, "adapter_read": read_mib, "peak": peak_mib(), "adapter_alone": adapter_mib},
        "beyond_adapter_mib": peak_mib() - adapter_mib,
    }


def run_sum(directory: Path, layers: int) -> Report:
    """The mean of two contributors."""
    merging = merging_of(directory, layers)
    encoding, noise = encoding_of(merging), NoDifferentialPrivacy()
    total = np.zeros(encoding.field_layout().lanes, np.uint64)
    for name in ("two", "three"):
        vector = merging.message(read_adapter(directory / name, MODEL)).vector
        lanes, _ = vectors.encode(encoding, noise, vector, Secret(hashlib.sha256(name.encode()).digest()))
        total += lanes
    np.save(directory / "mean.npy", decode(encoding, noise, total, 2).mean)
    return {"peak_rss_mib": peak_mib()}


def run_merge(directory: Path, layers: int) -> Report:
    """The files of the aggregate."""
    merging, mean = merging_of(directory, layers), np.load(directory / "mean.npy")
    lines: list[str] = []
    started = time.process_time()
    files = merging.aggregate(mean, 2, lines.append)
    cpu_s = time.process_time() - started
    write_files(directory / "merged", files)
    report = MergeReport.from_bytes(b"".join(files[REPORT_FILE]))
    return {
        "cpu_s": cpu_s,
        "progress_lines": len(lines),
        "last_line": lines[-1],
        "estimated_error": report.error_ppm / 1e6,
        "peak_rss_mib": peak_mib(),
    }


def run_audit(directory: Path, layers: int) -> Report:
    """What a verifier does with them."""
    merging, mean = merging_of(directory, layers), np.load(directory / "mean.npy")
    published = {name: (directory / "merged" / name).read_bytes() for name in merging.files}
    started = time.process_time()
    faults = list(merging.faults(mean, 2, published, lambda _: None))
    return {"cpu_s": time.process_time() - started, "faults": faults, "peak_rss_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this process has had; that of `getrusage` counts the parent before it, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024


def run_apart(step: str, directory: Path, layers: int) -> Report:
    """One step in a fresh process, on two cores at most."""
    command = [sys.executable, "-m", "benchmarks.merging_8b", "--step", step, "--directory", str(directory)]
    command += ["--layers", str(layers)]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **_two_threads()})
    report: Report = json.loads(done.stdout)
    return {**report, "wall_s": time.perf_counter() - started}


def _two_threads() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all steps and writes one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"], help="of seven modules each")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step is not None:
        steps = {"client": run_client, "sum": run_sum, "merge": run_merge, "audit": run_audit}
        print(json.dumps(steps[options.step](options.directory, options.layers)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        merging = merging_of(directory, options.layers)
        for seed, (name, rank) in enumerate((("one", RANK_OUT), ("two", RANK_OUT // 2), ("three", RANK_OUT // 2))):
            write_synthetic(merging, directory / name, rank, seed)
        measured = {step: run_apart(step, directory, options.layers) for step in STEPS}
    beyond, merged = measured["client"]["beyond_adapter_mib"], measured["merge"]["cpu_s"]
    if not isinstance(beyond, float) or not isinstance(merged, float):
        raise TypeError("a step reported no number")
    report: Report = {
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "load_average": os.getloadavg()[0],
        },
        "modules": len(merging.manifest.modules),
        **measured,
        "targets": {
            "client memory beyond the adapter, MiB": {
                "at most": CLIENT_LIMIT_MIB,
                "measured": beyond,
                "reached": beyond <= CLIENT_LIMIT_MIB,
            },
            "CPU seconds of merging": {
                "at most": MERGE_LIMIT_S,
                "measured": merged,
                "reached": merged <= MERGE_LIMIT_S,
            },
        },
    }
    text = json.dumps(_rounded(report), indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
