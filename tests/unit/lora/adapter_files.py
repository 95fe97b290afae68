"""Adapter directories for tests, written byte by byte: the code under test has no part in making them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Q = "base_model.model.layers.0.q_proj"
V = "base_model.model.layers.1.v_proj"
QA, QB, VA, VB = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", f"{V}.lora_A.weight", f"{V}.lora_B.weight"

RAW = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def config(**changes: object) -> dict[str, object]:
    """The fields that peft 0.21.2 writes for a plain adapter of rank 2."""
    fields: dict[str, object] = {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": "tiny/model",
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 4,
        "lora_bias": False,
        "lora_dropout": 0.1,
        "lora_ga_config": None,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "monteclora_config": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": 2,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["v_proj", "q_proj"],
        "target_parameters": None,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
        "velora_config": None,
    }
    return {**fields, **changes}


def tensors(rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """A of shape (rank, 3) and B of shape (4, rank) for each of two modules."""
    generator = np.random.default_rng(seed)
    shapes = {QA: (rank, 3), QB: (4, rank), VA: (rank, 3), VB: (4, rank)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def container(values: dict[str, np.ndarray], dtype: str = "F32") -> bytes:
    """A safetensors file; values of BF16 are given as uint16."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in values.items():
        raw = array.astype(RAW[dtype]).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return framed(header) + data


def framed(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def save(
    folder: Path, values: dict[str, np.ndarray] | bytes | None = None, fields: dict[str, object] | None = None
) -> Path:
    """Write both files; tensors may be given as the bytes of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = values if isinstance(values, bytes) else container(tensors() if values is None else values)
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "adapter_config.json").write_text(json.dumps(config() if fields is None else fields))
    return folder
