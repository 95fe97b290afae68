"""examples/private_adapters end to end with a tiny model: DP-SGD, a session with noise over gRPC, record and plot."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.train,
    # Opacus has no secure generator, hooks modules that need no gradient, and PEFT reads a renamed attribute.
    pytest.mark.filterwarnings("ignore:Secure RNG turned off:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
COHORT, STEPS, SAMPLING_RATE = 10, 8, 1 / 4


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What the command printed, and where it wrote."""
    pytest.importorskip("opacus")
    pytest.importorskip("peft")
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("private") / "out"
    script = EXAMPLES / "private_adapters" / "run.py"
    command = [sys.executable, script, "--out", out, "--quick", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout, out


@pytest.fixture
def out(played):
    return played[1]


@pytest.fixture
def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture
def example(monkeypatch):
    """The modules of the example; Opacus installs a package called examples, so not by that name."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("opacus")
    pytest.importorskip("peft")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from private_adapters import corpus, training

    yield corpus, training
    torch.set_num_threads(threads)


def tensors_of(directory):
    from safetensors.numpy import load_file

    return load_file(directory / "adapter_model.safetensors")


def vector_of(directory):
    tensors = tensors_of(directory)
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)]).astype(np.float64)


def verify(out, policy):
    command = [sys.executable, "-m", "verifier", "check", out / "record", "--policy", policy]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_both_epsilons_are_stated_each_with_its_unit_and_no_sum_of_them(played, results):
    example, client = results["example_level"], results["client_level"]
    for level in (example, client):
        assert 0 < level["epsilon"] < math.inf
        assert level["delta"] == 1e-5
        assert level["adversary"]
    assert "example" in example["unit"]
    assert "contributor" in client["unit"]
    assert client["epsilon"] <= 8
    assert client["epsilon_of_this_sum"] <= client["epsilon"]
    total = example["epsilon"] + client["epsilon"]
    assert f"{total:.2f}" not in played[0]
    assert f"epsilon {example['epsilon']:.2f}" in played[0]
    assert f"epsilon {client['epsilon']:.2f}" in played[0]


def test_the_example_level_epsilon_is_that_of_all_steps_at_integer_orders(results):
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = range(2, 257)
    spent = rdp.compute_rdp(q=SAMPLING_RATE, noise_multiplier=1.0, steps=STEPS, orders=orders)
    expected, order = rdp.get_privacy_spent(orders=orders, rdp=spent, delta=1e-5)
    example = results["example_level"]
    assert example["epsilon"] == pytest.approx(expected)
    assert example["best_order"] == order
    assert order in orders


def test_the_merged_adapter_is_the_clipped_mean_with_the_declared_noise(out, results):
    client = results["client_level"]
    vectors = [vector_of(directory) for directory in sorted((out / "adapters").iterdir())]
    assert len(vectors) == client["contributions"] == COHORT
    clipped = [vector * min(1.0, client["clip_norm"] / np.linalg.norm(vector)) for vector in vectors]
    noise = vector_of(out / "merged") - np.mean(clipped, axis=0)
    deviation = float(np.sqrt(np.mean(np.square(noise))))
    slack = 6 / math.sqrt(2 * noise.size)
    assert deviation == pytest.approx(client["expected_deviation"], rel=slack)
    assert deviation == pytest.approx(client["measured_deviation"], rel=1e-3)
    # Epsilon 8 at delta 1e-5 takes a deviation of 0.64 clip norms in the sum, without those who may be corrupt.
    honest = (COHORT - client["max_corrupt"]) / COHORT
    multiplier = client["expected_deviation"] * COHORT * math.sqrt(honest) / client["clip_norm"]
    assert 0.63 < multiplier < 0.66


def test_the_clip_norm_is_that_of_the_operators_own_adapter_rounded_up(out, results):
    norm = float(np.linalg.norm(vector_of(out / "pilot")))
    assert 0 <= results["client_level"]["clip_norm"] - norm < 0.1


def test_the_merged_adapter_loads_in_peft_as_it_is(out, results, example):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    training = example[1]
    settings = training.Settings(**results["settings"])
    loaded = peft.PeftModel.from_pretrained(training.empty_base(settings), out / "merged")
    state, written = peft.get_peft_model_state_dict(loaded, save_embedding_layers=False), tensors_of(out / "merged")
    assert state.keys() == written.keys()
    assert all(np.array_equal(state[name].numpy(), written[name]) for name in written)
    with torch.no_grad():
        assert torch.isfinite(loaded(torch.arange(12).reshape(1, 12)).logits).all()


def test_the_record_verifies_for_the_budget_and_not_for_a_smaller_one(out, results):
    assert results["verified"].startswith("secagg-verify: PASSED")
    assert verify(out, out / "policy.toml").returncode == 0
    strict = out / "strict.toml"
    strict.write_text((out / "policy.toml").read_text().replace('"8/1"', '"1/1"'))
    refused = verify(out, strict)
    assert refused.returncode == 1
    assert "DPN-" in refused.stdout


def test_losses_before_and_after_are_reported_and_plotted(out, results):
    image = pytest.importorskip("matplotlib.image")
    loss = results["loss"]
    assert loss["unit"] == "nats per byte"
    assert loss["texts"] == COHORT
    for way in ("base", "single", "plain_mean", "merged"):
        assert 0 < loss[way]["mean"] < 10
    assert loss["merged"]["mean"] != loss["plain_mean"]["mean"]
    pixels = image.imread(out / "loss.png")
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1000
    assert 0.01 < float((pixels[..., :3].min(axis=2) < 0.9).mean()) < 0.5


def test_no_key_is_left_where_results_are(out):
    assert not [path for path in out.rglob("*") if path.suffix in {".key", ".db"}]


def test_no_text_is_in_two_shares_or_both_trained_on_and_held_out(example):
    corpus = example[0]
    size = corpus.ShareSize(train=16, held_out=2, width=65)
    windows = [
        bytes(min(token, 255) for token in window)
        for share in corpus.read_shares(3, size)
        for part in (share.train, share.held_out)
        for window in part.tolist()
    ]
    assert len(windows) == len(set(windows)) == 3 * (16 + 2)


def test_all_start_from_one_adapter_and_the_noise_of_training_is_not_seeded(example):
    torch = pytest.importorskip("torch")
    training = example[1]
    settings = training.Settings(hidden=16, intermediate=32, context=8, layers=1, steps=2, batch=8)
    base = training.empty_base(settings)
    windows = torch.randint(256, (32, 9), generator=torch.Generator().manual_seed(1))
    starts = [training.train_adapters.tensors_of(training.new_adapter(base, settings)) for _ in range(2)]
    ends = [training.train_adapters.tensors_of(training.train_privately(base, windows, settings)[0]) for _ in range(2)]
    for name, tensor in starts[0].items():
        assert tensor.equal(starts[1][name])
        assert not tensor.equal(ends[0][name])
        assert not ends[0][name].equal(ends[1][name])
