"""examples/federated_finetune end to end with a tiny model: a round of every strategy over gRPC, record and figure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]  # a minute where little else is going on

EXAMPLES = Path(__file__).parents[2] / "examples"
COHORT = 8
STRANGERS = ("dense", "sketch", "two-session", "pilot-basis")
STRATEGIES = (*STRANGERS, "factors-own", "factors-shared", "frozen-a")
TWO_SESSIONS = ("two-session", "pilot-basis")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What the command printed, and where it wrote."""
    pytest.importorskip("peft")
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("federated") / "out"
    script = EXAMPLES / "federated_finetune" / "run.py"
    command = [sys.executable, script, "--out", out, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout, out


@pytest.fixture
def out(played):
    return played[1]


@pytest.fixture
def report(out):
    return json.loads((out / "losses.json").read_text())


@pytest.fixture
def strategies(report):
    """By key, what the one seed came to."""
    return {key: strategy["seeds"][0] for key, strategy in report["strategies"].items()}


@pytest.fixture
def example(monkeypatch):
    """The modules of the example."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    pytest.importorskip("matplotlib")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from federated_finetune import corpus, plot, strategies, training

    yield corpus, plot, strategies, training
    torch.set_num_threads(threads)


def last(strategy):
    return strategy["loss"]["mean"][-1]


def test_merged_adapters_are_better_than_the_base_and_than_contributors_alone(report, strategies):
    base = report["base"][0]["mean"][0]
    alone = np.mean([one["mean"][-1] for one in report["alone"][0]])
    assert len(report["alone"][0]) == COHORT
    for key in STRANGERS:
        assert strategies[key]["loss"]["mean"][0] == base
        assert last(strategies[key]) < min(base, alone)


def test_means_of_factors_from_independent_starts_keep_little_and_sketches_most_of_what_there_is_to_gain(
    report, strategies
):
    base = report["base"][0]["mean"][0]
    best = base - last(strategies["dense"])
    assert best > 0.01
    assert base - last(strategies["factors-own"]) < 0.5 * best
    for key in ("sketch", "two-session"):
        assert 0.7 * best < base - last(strategies[key]) < 1.1 * best


def test_errors_of_merged_updates_are_what_was_estimated_from_the_sums_alone(strategies):
    for key in ("sketch", "two-session"):
        (found,), (estimated,) = strategies[key]["error"], strategies[key]["estimated_error"]
        assert 0.5 * found < estimated < 2 * found
    assert strategies["dense"]["error"][0] < 0.1
    assert strategies["frozen-a"]["error"][0] < 0.1
    assert strategies["factors-own"]["error"][0] > 0.8


def test_contributors_who_chose_their_own_ranks_are_merged_whole_and_nobody_is_scaled_down(strategies):
    for key in STRATEGIES:
        (contributors,) = strategies[key]["contributors"]
        assert strategies[key]["scaled_down"] in ([0.0], [None])
        if key == "pilot-basis":
            assert 3 <= len(contributors) <= COHORT - 3
        else:
            assert contributors == list(range(COHORT))


def test_every_merged_adapter_is_the_published_one_of_a_record_that_verifies(report, strategies, out):
    assert report["verified"][0].startswith("PASSED")
    seed = out / "seeds" / "1"
    for key in STRATEGIES:
        (sessions,) = strategies[key]["sessions"]
        assert len(sessions) == (2 if key in TWO_SESSIONS else 1)
        published, merged = seed / "record" / "sessions" / sessions[-1] / "aggregate", seed / "merged" / key / "1"
        names = {path.name for path in published.iterdir()}
        assert names >= {"adapter_config.json", "adapter_model.safetensors"}
        assert {name: (published / name).read_bytes() for name in names} == {
            path.name: path.read_bytes() for path in merged.iterdir()
        }


def test_a_record_whose_adapter_was_changed_does_not_verify(strategies, out):
    seed = out / "seeds" / "1"
    (session,) = strategies["sketch"]["sessions"][0]
    path = seed / "record" / "sessions" / session / "aggregate" / "adapter_model.safetensors"
    original = path.read_bytes()
    command = [sys.executable, "-m", "verifier", "check", seed / "record", "--policy", seed / "policy.toml"]
    command += ["--session", session]
    try:
        path.write_bytes(original[:-4] + bytes(4))
        changed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    finally:
        path.write_bytes(original)
    assert changed.returncode == 1
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


def test_the_table_says_what_the_figures_are(played, strategies):
    for key, name in (("sketch", "sketch"), ("dense", "dense: the mean itself")):
        (line,) = (line for line in played[0].splitlines() if line.startswith(name.ljust(24)))
        assert f"{last(strategies[key]):.3f}" in line


def test_the_figure_is_drawn_in_both_forms(out):
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(out / "figure.png")
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1000
    assert 0.01 < float((pixels[..., :3].min(axis=2) < 0.9).mean()) < 0.5
    assert "<svg" in (out / "figure.svg").read_text()[:1000]


def test_no_key_is_left_where_results_are(out):
    assert not [path for path in out.rglob("*") if path.suffix in {".key", ".db"}]


def test_no_piece_of_text_is_in_two_parts_or_both_trained_on_and_held_out(example):
    corpus = example[0]
    for kind in corpus.KINDS:
        text = corpus.read_kind(kind, 3, 20_000)
        assert [len(part) for part in text.parts] == [20_000] * 3
        trained = bytes(min(token, 255) for part in text.parts for token in part.tolist())
        held_out = [bytes(piece) for piece in _pieces(text.held_out.tolist())]
        assert len(held_out) >= 3
        assert not [piece for piece in held_out if piece in trained]


def _pieces(tokens):
    """What lies between block tokens."""
    piece: list[int] = []
    for token in [*tokens[1:], 256]:
        if token < 256:
            piece.append(token)
            continue
        yield piece
        piece = []


def test_too_little_text_is_said(example):
    corpus = example[0]
    kind = corpus.Kind("verse", lambda: iter(["a line\n\nand another"]))
    with pytest.raises(ValueError, match="verse"):
        corpus.read_kind(kind, 2, 1000)


def test_starts_are_what_the_strategies_say(example):
    strategies, settings = example[2], example[3].Settings()
    everybody = range(settings.contributors)
    starts = {each.key: [each.starts.of(settings, 1, at) for at in everybody] for each in strategies.STRATEGIES}
    assert {start.rank for start in starts["sketch"]} == {2, 4, 8}
    assert len({start.seed for start in starts["sketch"]}) == len(everybody)
    assert starts["sketch"] == starts["dense"] == starts["two-session"] == starts["pilot-basis"]
    assert {start.rank for start in starts["factors-own"]} == {8}
    assert len({start.seed for start in starts["factors-own"]}) == len(everybody)
    assert len(set(starts["factors-shared"])) == len(set(starts["frozen-a"])) == 1
    assert starts["frozen-a"][0].trained == (".lora_B.",)


def test_labels_are_apart_and_in_order(example):
    plot = example[1]
    places = plot.spread(np.array([10.0, 11.0, 12.0, 90.0, 95.0]), 14.0, 0.0)
    assert np.all(np.diff(places) >= 14.0 - 1e-9)
    assert places[0] >= 0.0
    assert abs(places[3:].mean() - 92.5) < 1e-9
