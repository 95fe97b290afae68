"""What `secagg session open` makes of its options about merging."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import pytest

from secagg.lora.merging import decode_merging
from secagg.lora.reader import read_adapter
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript import canonical
from secagg.transcript.encoding import CoordinateRange
from secagg.transcript.merge import DenseMerge, FactorMerge, FrozenMerge, PilotMerge, RangeMerge, SketchMerge
from secagg.transcript.noise import SkellamNoise
from tests.support.service import EXAMPLES
from tests.unit.cli.test_cli import KEY, OPEN, operator, plan, planned, shell  # noqa: F401 - fixtures

LARGE = ("--adapter", str(EXAMPLES / "1"))
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "_name_or_path": "some/llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def merge_of(strategy: str, *more: str) -> object:
    return plan("--merge", strategy, *LARGE, *more).session.parameters.merge


@pytest.mark.usefixtures("operator")
class TestStrategies:
    def test_sketch_is_what_is_done_if_nothing_is_said(self):
        position = OPEN.index("--merge")
        without = (*OPEN[:position], *OPEN[position + 2 :])
        assert "--merge" not in without
        merge = plan("--merge", "sketch", *LARGE).session.parameters.merge
        # Twice the example's rank of 4; the other sizes follow from it.
        assert isinstance(merge, SketchMerge)
        assert (merge.columns, merge.core_columns, merge.probe_columns) == (16, 64, 8)
        assert merge.update_norm == 20

    def test_each_strategy_has_the_merge_of_its_first_session(self):
        assert isinstance(merge_of("factors"), FactorMerge)
        assert isinstance(merge_of("dense"), DenseMerge)
        assert isinstance(merge_of("frozen-a"), FrozenMerge)
        first = merge_of("two-session")
        assert isinstance(first, RangeMerge)
        assert first.columns == 16
        pilot = merge_of("pilot-basis", "--sides", "2", "--pilot-share", "1/3")
        assert isinstance(pilot, PilotMerge)
        assert (pilot.columns, pilot.sides, pilot.share) == (16, 2, Fraction(1, 3))

    def test_every_session_has_a_seed_of_its_own(self):
        assert merge_of("sketch").seed != merge_of("sketch").seed

    def test_sizes_can_be_chosen(self):
        merge = merge_of("sketch", "--rank-out", "6", "--columns", "10", "--core-columns", "20", "--probe-columns", "4")
        assert (merge.columns, merge.core_columns, merge.probe_columns) == (10, 20, 4)

    def test_coordinates_have_a_range_and_no_norm_of_their_own(self):
        parameters = plan("--merge", "sketch", *LARGE).session.parameters
        assert parameters.encoding.flatten == CoordinateRange(Fraction(1))
        assert parameters.encoding.clip_norm**2 > parameters.encoding.dimension

    def test_a_given_norm_bounds_the_updates(self):
        merge = merge_of("sketch", "--clip-norm", "7/2")
        assert merge.update_norm == Fraction(7, 2)

    def test_what_is_sent_to_the_coordinator_is_what_clients_decode(self):
        for strategy in ("factors", "dense", "frozen-a", "two-session", "pilot-basis", "sketch"):
            opened = plan("--merge", strategy, *LARGE)
            request = opened.request()
            merging = decode_merging(opened.session.parameters, request.layout, request.adapter)
            assert merging.layout == opened.merging.layout
            assert merging.with_fixed(request.fixed).message(read_adapter(EXAMPLES / "1", None)).vector.any()

    def test_the_frozen_a_is_the_example_s(self):
        opened = plan("--merge", "frozen-a", *LARGE)
        assert hashlib.sha256(opened.fixed).digest() == opened.session.parameters.merge.fixed
        assert opened.merging.rank == 4

    def test_noise_is_planned_for_what_is_sent_and_nothing_is_counted(self):
        noisy = plan("--merge", "frozen-a", *LARGE, "--dp-epsilon", "8", "--accept-ratio", "1000000")
        parameters = noisy.session.parameters
        assert isinstance(parameters.noise, SkellamNoise)
        assert not isinstance(parameters.encoding.flatten, CoordinateRange)
        assert isinstance(noisy.merging, UpdateMerging)
        assert "/clipped" not in dict(noisy.merging.layout.tensors)
        sent = noisy.merging.message(read_adapter(EXAMPLES / "1", None)).vector
        norm = float((sent.astype(float) ** 2).sum() ** 0.5)
        assert 2 * norm <= parameters.encoding.clip_norm <= Fraction(21, 10) * Fraction(norm)


@pytest.mark.usefixtures("operator")
class TestBaseModels:
    @pytest.fixture
    def base(self) -> Path:
        Path("base").mkdir()
        Path("base/config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
        return Path("base")

    def opened(self, *more: str):
        options = list(OPEN)
        del options[options.index("--adapter") : options.index("--adapter") + 2]
        options[options.index("factors")] = "sketch"
        return planned(*options, "--min-contributors", "3", *more)

    def test_the_layout_follows_from_a_base_model_s_config(self, base):
        opened = self.opened("--base", str(base), "--base-model", "some/llama", "--clip-norm", "4", "--rank-out", "8")
        paths = [module.path for module in opened.merging.manifest.modules]
        assert len(paths) == 14
        assert "model.layers.1.self_attn.k_proj" in paths
        assert opened.session.parameters.base_model == "some/llama"
        data = base.joinpath("config.json").read_bytes()
        listed = canonical.encode([["config.json", hashlib.sha256(data).hexdigest()]])
        assert opened.session.parameters.base_model_digest == hashlib.sha256(listed).digest()

    def test_modules_can_be_chosen_by_the_ends_of_their_names(self, base):
        more = ("--base-model", "some/llama", "--clip-norm", "4", "--target-modules", "q_proj", "v_proj")
        opened = self.opened("--base", str(base), *more)
        assert len(opened.merging.manifest.modules) == 4

    def test_a_digest_alone_is_recorded(self):
        opened = plan("--merge", "sketch", *LARGE, "--base", KEY)
        assert opened.session.parameters.base_model_digest.hex() == KEY

    def test_without_an_example_the_norm_has_to_be_given(self, base, operator):  # noqa: F811
        options = [word for word in OPEN if word not in {"--adapter", "example", "--merge", "factors"}]
        code, kind, _, message = operator.refusal(
            *options, "--min-contributors", "3", "--base", base, "--base-model", "some/llama"
        )
        assert (code, kind) == (2, "usage")
        assert "--clip-norm" in message


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--merge", "factors", "--columns", "8"), "--columns"),
        (("--merge", "dense", "--core-columns", "8"), "--core-columns"),
        (("--merge", "sketch", "--sides", "2"), "--sides"),
        (("--merge", "frozen-a", "--missing", "zero"), "--missing"),
        (("--merge", "two-session", "--pilot-share", "1/2"), "--pilot-share"),
        (("--merge", "sketch", "--flatten", "auto"), "--flatten"),
        (("--merge", "sketch", "--target-modules", "q_proj"), "--target-modules"),
        (("--merge", "sketch", "--base", "nowhere"), "--base"),
        (("--merge", "sketch", "--core-columns", "2", *LARGE), "core_columns"),
        (("--merge", "sketch", "--clip-norm", "0", *LARGE), "update_norm"),
        (("--merge", "sketch", "--columns", "5000", *LARGE), "columns"),
        (("--merge", "pilot-basis", "--pilot-share", "1", *LARGE), "share"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_make_no_sense_are_refused_by_name(more, word, operator):  # noqa: F811
    code, _, _, message = operator.refusal(*OPEN, "--min-contributors", "3", *more)
    assert code == 2
    assert word in message
