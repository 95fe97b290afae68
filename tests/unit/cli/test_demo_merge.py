"""What the demo says of its errors: estimates from the report, truth from the adapters that only it has."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from secagg.cli.demo_merge import DemoMerge, FactorDemo, errors_of
from secagg.cli.demo_plan import DemoFailedError, plan_pairwise, shipped_adapters, write_contributors
from secagg.cli.merged_modules import facts_of
from secagg.lora.adapter import Adapter
from secagg.lora.config import AdapterConfig
from secagg.lora.merge_report import MergeReport, ModuleReport, ppm, shares_of
from secagg.lora.reader import read_adapter

PATHS = ("model.layers.0.mlp.up_proj", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")


def adapter(factors: dict[str, tuple[np.ndarray, np.ndarray]], rank: int, alpha: float) -> Adapter:
    config = AdapterConfig("LORA", "base", None, None, rank, alpha, False, (), (), None, False, "none")
    tensors = {}
    for path, (b, a) in factors.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{path}.lora_B.weight"] = b.astype(np.float32)
    return Adapter(config, tensors)


def drawn(rank: int, alpha: float, seed: int) -> tuple[Adapter, dict[str, np.ndarray]]:
    """An adapter, and its updates."""
    generator = np.random.default_rng(seed)
    factors = {path: (generator.normal(size=(6, rank)), generator.normal(size=(rank, 5))) for path in PATHS}
    return adapter(factors, rank, alpha), {path: alpha / rank * b @ a for path, (b, a) in factors.items()}


def merged_of(updates: dict[str, np.ndarray], estimates: list[float]) -> tuple[Adapter, MergeReport]:
    """An adapter of exactly these updates, and a report with these estimates."""
    whole = adapter({path: (update, np.eye(5)) for path, update in updates.items()}, 5, 5.0)
    shares = shares_of([float(np.linalg.norm(updates[path]) ** 2) for path in PATHS])
    modules = [
        ModuleReport(path, "update", share, ppm(error), 10**6)
        for path, share, error in zip(PATHS, shares, estimates, strict=True)
    ]
    return whole, MergeReport("sketch", 2, 0, 0, tuple(modules))


def test_the_true_error_is_relative_to_the_mean_of_the_updates_whatever_their_ranks_and_scales():
    (first, one), (second, two) = drawn(2, 4.0, 1), drawn(3, 1.5, 2)
    off = dict.fromkeys(PATHS, 0.0) | {PATHS[1]: 0.25}
    exact = {path: (one[path] + two[path]) / 2 for path in PATHS}
    whole, report = merged_of({path: exact[path] * (1 + off[path]) for path in PATHS}, [0.01, 0.3, 0.02])
    errors = errors_of([first, second], whole, facts_of(whole, report))
    assert [each.path for each in errors.modules] == list(PATHS)
    assert [each.true for each in errors.modules] == pytest.approx([0, 0.25, 0], abs=1e-6)
    assert [each.estimated for each in errors.modules] == [0.01, 0.3, 0.02]
    squares = {path: float(np.sum(exact[path] ** 2)) for path in PATHS}
    assert errors.true == pytest.approx(0.25 * (squares[PATHS[1]] / sum(squares.values())) ** 0.5)
    assert errors.ranks == (2, 3)


def test_the_mean_of_factors_is_right_for_one_start_and_wrong_for_two():
    generator = np.random.default_rng(5)
    starts = {path: generator.normal(size=(2, 5)) for path in PATHS}
    bs = [{path: generator.normal(size=(6, 2)) for path in PATHS} for _ in range(2)]
    alike = [adapter({path: (b[path], starts[path]) for path in PATHS}, 2, 2.0) for b in bs]
    exact = {path: (bs[0][path] + bs[1][path]) @ starts[path] / 2 for path in PATHS}
    whole, report = merged_of(exact, [0, 0, 0])
    assert errors_of(alike, whole, facts_of(whole, report)).factors == pytest.approx(0, abs=1e-6)
    (first, one), (second, two) = drawn(2, 2.0, 8), drawn(3, 3.0, 9)
    whole, report = merged_of({path: (one[path] + two[path]) / 2 for path in PATHS}, [0, 0, 0])
    assert errors_of([first, second], whole, facts_of(whole, report)).factors > 0.3


def test_the_words_have_a_cell_for_each_module_and_say_who_can_know_the_truth():
    (first, one), (second, two) = drawn(2, 4.0, 1), drawn(3, 1.5, 2)
    whole, report = merged_of({path: (one[path] + two[path]) / 2 for path in PATHS}, [0.11, 0.42, 0.13])
    text = "\n".join(errors_of([first, second], whole, facts_of(whole, report)).in_words())
    lines = [line.split() for line in text.splitlines()]
    assert ["up_proj", "q_proj"] in lines
    assert ["layers.0", "0.11", "(0.00)", "0.42", "(0.00)"] in lines
    assert ["layers.1", "0.13", "(0.00)"] in lines
    assert "only a demo" in text
    assert "DEGRADED" in text


def test_a_merged_adapter_without_a_report_is_a_failure_of_the_demo():
    first, one = drawn(2, 4.0, 1)
    whole, _ = merged_of(one, [0, 0, 0])
    with pytest.raises(DemoFailedError, match="no report"):
        errors_of([first], whole, facts_of(whole, None))


@pytest.mark.parametrize(("strategy", "examples"), [("factors", "adapters"), ("sketch", "adapters_independent")])
def test_the_clip_norm_of_a_demo_scales_nobody_down_and_is_tight(tmp_path, strategy, examples):
    plan, merge = plan_pairwise(9, 0), DemoMerge.of(strategy)
    assert merge.examples == examples
    assert len(shipped_adapters(examples)) == 8
    write_contributors(plan, tmp_path, merge.examples)
    options = merge.options(plan, tmp_path)
    norms = [norm_of(read_adapter(tmp_path / str(k), None), strategy) for k in plan.numbers]
    assert options["--merge"] == strategy
    assert max(norms) < options["--clip-norm"] <= max(norms) + 0.0101
    assert isinstance(options["--clip-norm"], Fraction)


def norm_of(given: Adapter, strategy: str) -> float:
    if strategy == "factors":
        return float(np.sqrt(sum(np.sum(values.astype(float) ** 2) for values in given.tensors.values())))
    updates = [
        given.config.scale_of(module.path)
        * given.tensors[module.b_name].astype(float)
        @ given.tensors[module.a_name].astype(float)
        for module in given.modules
    ]
    return float(np.sqrt(sum(np.sum(update**2) for update in updates)))


def test_contributors_get_the_shipped_files_and_after_that_multiples_of_them(tmp_path):
    write_contributors(plan_pairwise(9, 0), tmp_path, FactorDemo.examples)
    for k, shipped in enumerate(shipped_adapters(FactorDemo.examples), start=1):
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert (tmp_path / str(k) / file).read_bytes() == (shipped / file).read_bytes()
    first, ninth = (read_adapter(tmp_path / str(k), None) for k in (1, 9))
    for name, values in first.tensors.items():
        np.testing.assert_array_equal(ninth.tensors[name], np.float32(1.01) * values)
