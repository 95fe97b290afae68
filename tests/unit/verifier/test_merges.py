"""RES-4 of every merge: what a session publishes follows from its mean, and every way in which it may not."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from secagg.lora.container import encode_tensors, read_header, read_tensors
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript import canonical
from tests.support import forged_merges
from tests.support.forge import MAIN, Forge
from tests.support.forge_following import FollowingForge, pilot_basis, two_session
from tests.unit.verifier.session_checks import audit_of, checked, failing, reason, unclean
from verifier.checks import Level
from verifier.run import run_audit

MODEL, CONFIG, REPORT, BASIS = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "merge.json",
    "basis.safetensors",
)
A, B = "base_model.model.layer.0.lora_A.weight", "base_model.model.layer.0.lora_B.weight"


def alone(plan):
    """A record of one session that merges so."""
    return lambda edits: Forge(edits, replace(MAIN, **plan())).run_main()


def following(pair):
    """A record of two sessions; edits are of the second."""
    return lambda edits: FollowingForge(pair, edits).run()


WITH_ADAPTER = {
    "dense": alone(forged_merges.dense),
    "sketch": alone(forged_merges.sketch),
    "frozen-a": alone(forged_merges.frozen),
    "two-session": following(two_session()),
    "pilot-basis, one side": following(pilot_basis(1)),
    "pilot-basis, two sides": following(pilot_basis(2)),
}
FIRST = {
    "two-session-range": following(two_session()),
    "pilot, one side": following(pilot_basis(1)),
    "pilot, two sides": following(pilot_basis(2)),
}
each_adapter = pytest.mark.parametrize("forge", WITH_ADAPTER.values(), ids=WITH_ADAPTER)
each_first = pytest.mark.parametrize("forge", FIRST.values(), ids=FIRST)


def tensors_of(data):
    file = io.BytesIO(data)
    return {name: values.copy() for name, values in read_tensors(file, read_header(file, len(data)))}


def file_of(tensors):
    return b"".join(encode_tensors(tensors))


def edited(name, change):
    """An edit of one file of the aggregate; the log names what came of it."""
    return {"aggregate": lambda files, _: files | {name: change(files[name])}}


def tensors_edited(change, name=MODEL):
    """An edit of the tensors of a file, which is written as it should be."""

    def apply(data):
        tensors = tensors_of(data)
        change(tensors)
        return file_of(tensors)

    return edited(name, apply)


def found_with(tmp_path, forge, edits):
    return checked(forge(edits).write(tmp_path), Level.SUM)


# Nothing is wrong


@each_adapter
def test_an_honest_record_passes_and_says_how_good_the_adapter_is(tmp_path, forge):
    report = run_audit(audit_of(forge({}).write(tmp_path), Level.FULL))
    assert unclean({one.check.identifier: one for one in report.checks}) == {}
    merge = report.sessions[-1].merge
    assert merge.error_ppm is not None
    assert merge.error_ppm < 300_000
    assert merge.is_degraded is False


def test_of_factors_nothing_is_said_about_quality(tmp_path):
    report = run_audit(audit_of(Forge().run().write(tmp_path), Level.SUM))
    assert {(one.merge.strategy, one.merge.error_ppm, one.merge.is_degraded) for one in report.sessions} == {
        ("factors", None, None)
    }


def test_what_was_not_checked_is_not_said(tmp_path):
    """Below level sum nobody has compared the report with the sum."""
    written = Forge(main=replace(MAIN, **forged_merges.dense())).run_main().write(tmp_path)
    for level in (Level.META, Level.PREOPEN):
        (session,) = run_audit(audit_of(written, level)).sessions
        assert (session.merge.strategy, session.merge.error_ppm) == ("dense", None)
    (written.session / "aggregate" / REPORT).write_bytes(b"{}")
    (session,) = run_audit(audit_of(written, Level.SUM)).sessions
    assert (session.failed, session.merge.error_ppm) == (("RES-4",), None)


def test_updates_that_do_not_fit_the_rank_are_reported_as_degraded(tmp_path):
    def noise(packed, session):
        layout, rng = session.parameters.encoding.field_layout(), np.random.default_rng(1)
        return {index: layout.pack(rng.integers(-(2**18), 2**18, layout.dimension)) for index in packed}

    written = alone(forged_merges.dense)({"packed": noise}).write(tmp_path)
    report = run_audit(audit_of(written, Level.SUM))
    assert [one.check.identifier for one in report.checks if one.failed] == []
    (session,) = report.sessions
    assert session.merge.is_degraded
    assert session.merge.error_ppm > 350_000


# The adapter


@each_adapter
@pytest.mark.parametrize("name", [A, B])
def test_a_value_that_was_changed_is_found(tmp_path, forge, name):
    def nudge(tensors):
        tensors[name].flat[np.abs(tensors[name]).argmax()] *= np.float32(1.01)

    found = found_with(tmp_path, forge, tensors_edited(nudge))
    assert failing(found) == ["RES-4"]
    assert f"{MODEL}: the update of layer.0 is not what the mean gives" in reason(found, "RES-4")


def test_the_update_of_any_module_counts(tmp_path):
    def nudge(tensors):
        tensors["base_model.model.layer.1.lora_B.weight"] *= np.float32(1.001)

    found = found_with(tmp_path, WITH_ADAPTER["dense"], tensors_edited(nudge))
    assert failing(found) == ["RES-4"]
    assert "the update of layer.1" in reason(found, "RES-4")


@each_adapter
def test_what_rounding_changes_is_no_failure(tmp_path, forge):
    """Another machine's decomposition: values that differ in their last bits."""

    def nudge(tensors):
        for name, values in tensors.items():
            tensors[name] = np.nextafter(values, np.float32(np.inf))

    assert failing(found_with(tmp_path, forge, tensors_edited(nudge))) == []


def test_singular_vectors_may_be_turned(tmp_path):
    turn = np.array([[0, 1], [-1, 0]], np.float32)

    def apply(tensors):
        tensors[A], tensors[B] = turn.T @ tensors[A], tensors[B] @ turn

    assert failing(found_with(tmp_path, WITH_ADAPTER["sketch"], tensors_edited(apply))) == []


def test_factors_of_which_one_is_huge_are_found_though_their_product_is_right(tmp_path):
    def stretch(tensors):
        tensors[A] *= np.float32(2.0**60)
        tensors[B] *= np.float32(2.0**-60)

    found = found_with(tmp_path, WITH_ADAPTER["sketch"], tensors_edited(stretch))
    assert failing(found) == ["RES-4"]
    assert "is not as large as the mean gives" in reason(found, "RES-4")


def test_values_that_are_no_numbers_are_found(tmp_path):
    def poison(tensors):
        tensors[B][0, 0] = np.nan

    assert failing(found_with(tmp_path, WITH_ADAPTER["dense"], tensors_edited(poison))) == ["RES-4"]


@pytest.mark.parametrize("change", ["more", "fewer", "another shape"])
def test_other_tensors_are_found(tmp_path, change):
    def apply(tensors):
        if change == "more":
            tensors["base_model.model.layer.2.lora_A.weight"] = np.zeros((2, 2), np.float32)
        elif change == "fewer":
            del tensors[A]
        else:
            tensors[A] = np.vstack([tensors[A], tensors[A] * 0])
            tensors[B] = np.hstack([tensors[B], tensors[B] * 0])

    found = found_with(tmp_path, WITH_ADAPTER["dense"], tensors_edited(apply))
    assert failing(found) == ["RES-4"]


def hidden_in_header(data):
    """A file with the same tensors, whose header says something more."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["note"] = "a message"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def padded_header(data):
    """A file with the same tensors and eight more spaces."""
    length = int.from_bytes(data[:8], "little")
    return (length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :]


def moved_tensors(data):
    """A file with the same tensors in another order."""
    length = int.from_bytes(data[:8], "little")
    header, position, values = json.loads(data[8 : 8 + length]), 0, b""
    for name in sorted(header.keys() - {"__metadata__"}, reverse=True):
        begin, end = header[name]["data_offsets"]
        values += data[8 + length + begin : 8 + length + end]
        header[name]["data_offsets"] = [position, position + end - begin]
        position += end - begin
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


HIDDEN = {"metadata": hidden_in_header, "spaces": padded_header, "order": moved_tensors}
each_hidden = pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)


@each_hidden
def test_tensors_in_any_other_form_are_found(tmp_path, hide):
    """What the values leave open, somebody could say something with."""
    found = found_with(tmp_path, WITH_ADAPTER["sketch"], edited(MODEL, hide))
    assert failing(found) == ["RES-4"]
    assert "not in the form in which tensors are written" in reason(found, "RES-4")


def test_a_file_that_is_none_is_found(tmp_path):
    found = found_with(tmp_path, WITH_ADAPTER["sketch"], edited(MODEL, lambda data: data[:-4]))
    assert failing(found) == ["RES-4"]


@each_adapter
def test_another_config_is_found(tmp_path, forge):
    """A larger alpha would scale every update that is loaded."""
    change = edited(CONFIG, lambda data: data.replace(b'"lora_alpha": 2', b'"lora_alpha": 4'))
    found = found_with(tmp_path, forge, change)
    assert failing(found) == ["RES-4"]
    assert reason(found, "RES-4").endswith(f"{CONFIG}: not what the manifest gives")


def test_an_adapter_is_made_only_where_its_file_is_as_long_as_it(tmp_path, monkeypatch):
    """A rank of 65536 is a few digits in a manifest, and takes all memory."""
    monkeypatch.setattr(UpdateMerging, "merged", lambda *_: pytest.fail("made"))
    edits = {
        "aggregate": lambda files, _: files,
        "template": lambda manifest, _: replace(manifest, rank=65_536),
    }
    forge = Forge(edits, replace(MAIN, **forged_merges.dense()))
    monkeypatch.setattr(type(forge.main), "merged_files", lambda *_: dict.fromkeys((CONFIG, MODEL, REPORT), b"{}"))
    found = checked(forge.run_main().write(tmp_path), Level.SUM)
    assert failing(found) == ["RES-4"]
    assert "2 bytes, the tensors of rank 65536 have 8126464" in reason(found, "RES-4")


# The report


def report_edited(change):
    def apply(data):
        value = json.loads(data)
        change(value)
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()

    return edited(REPORT, apply)


def module_fact(name, step):
    return lambda value: value["modules"][0].update({name: value["modules"][0][name] + step})


@each_adapter
@pytest.mark.parametrize("name", ["error_ppm", "energy_ppm", "scalar_ppm"])
def test_a_number_of_the_report_that_does_not_follow_is_found(tmp_path, forge, name):
    step = -101 if name == "energy_ppm" else 101
    found = found_with(tmp_path, forge, report_edited(module_fact(name, step)))
    assert failing(found) == ["RES-4"]
    assert f"{REPORT}: not what the mean gives: {name} of layer.0" in reason(found, "RES-4")


def test_numbers_of_the_report_may_differ_as_rounding_does(tmp_path):
    for name in ("error_ppm", "scalar_ppm"):
        found = found_with(tmp_path / name, WITH_ADAPTER["sketch"], report_edited(module_fact(name, 99)))
        assert failing(found) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "dense"},
        {"contributors": 9},
        {"scaled_down_ppm": 500_000},
        {"clamped_ppm": 500_000},
        {"degraded": 1},
        {"type": "merge"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_report_that_says_something_else_is_found(tmp_path, changes):
    found = found_with(tmp_path, WITH_ADAPTER["sketch"], report_edited(lambda value: value.update(changes)))
    assert failing(found) == ["RES-4"]


def test_a_report_that_is_not_canonical_is_found(tmp_path):
    found = found_with(tmp_path, WITH_ADAPTER["sketch"], edited(REPORT, lambda data: data + b"\n"))
    assert failing(found) == ["RES-4"]


@pytest.mark.parametrize("left_out", [MODEL, CONFIG, REPORT])
def test_a_result_without_one_of_the_files_is_found(tmp_path, left_out):
    def drop(entry, _):
        return replace(entry, aggregate=tuple(file for file in entry.aggregate if file.name != left_out))

    found = found_with(tmp_path, WITH_ADAPTER["dense"], {"result": drop})
    assert failing(found) == ["RES-4"]
    assert "the merge makes adapter_config.json, adapter_model.safetensors, merge.json" in reason(found, "RES-4")


# Bases


def basis_edited(change, forge, tmp_path, name="left"):
    """What is found where a first session published bases that were changed."""

    def apply(tensors):
        tensors[f"layer.0/{name}"] = change(tensors[f"layer.0/{name}"]).astype(np.float32)

    edits = {f"first.{key}": edit for key, edit in tensors_edited(apply, BASIS).items()}
    return found_with(tmp_path, forge, edits)


@each_first
def test_a_basis_of_something_else_is_found(tmp_path, forge):
    def other(basis):
        return np.linalg.qr(np.random.default_rng(5).standard_normal(basis.shape)).Q

    found = basis_edited(other, forge, tmp_path)
    assert failing(found) == ["RES-4"]
    assert f"{BASIS}: the left basis of layer.0 does not span the sum" in reason(found, "RES-4")


@each_first
def test_a_basis_that_is_not_orthonormal_is_found(tmp_path, forge):
    """It would weigh directions, and what is projected on it would not be bounded by the norm."""
    found = basis_edited(lambda basis: basis * 1.001, forge, tmp_path)
    # The second session's contributors refuse such a basis, too.
    assert failing(found) == ["SES-7", "RES-4"]
    assert f"{BASIS}: the left basis of layer.0 is not orthonormal" in reason(found, "RES-4")


def test_the_right_basis_is_compared_too(tmp_path):
    found = basis_edited(lambda basis: basis[::-1], FIRST["pilot, two sides"], tmp_path, "right")
    assert failing(found) == ["RES-4"]
    assert f"{BASIS}: the right basis of layer.0 does not span the sum" in reason(found, "RES-4")


@each_first
def test_a_basis_may_be_turned_within_what_it_spans(tmp_path, forge):
    assert failing(basis_edited(lambda basis: -basis[:, ::-1], forge, tmp_path)) == []


@each_hidden
def test_bases_in_any_other_form_are_found(tmp_path, hide):
    edits = {f"first.{key}": edit for key, edit in edited(BASIS, hide).items()}
    found = found_with(tmp_path, FIRST["pilot, two sides"], edits)
    # The second session uses the same bases in the form in which they should have been published.
    assert failing(found) == ["MRG-2", "RES-4"]
    assert "not in the form in which tensors are written" in reason(found, "RES-4")


# Fixed tensors and manifests


def test_fixed_tensors_of_another_digest_are_refused(tmp_path):
    written = alone(forged_merges.frozen)({}).write(tmp_path)
    path = written.session / "fixed.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = checked(written, Level.SUM)
    assert failing(found) == ["SES-7"]
    assert "fixed.safetensors" in reason(found, "SES-7")


def test_fixed_tensors_that_are_not_there_are_no_failure_and_no_pass(tmp_path):
    written = alone(forged_merges.frozen)({}).write(tmp_path)
    (written.session / "fixed.safetensors").unlink()
    found = checked(written, Level.SUM)
    assert failing(found) == []
    assert {"SES-7", "RES-4"} <= unclean(found).keys()


def test_a_layout_that_does_not_follow_from_the_manifest_is_refused(tmp_path):
    """Pieces of other names would mean something else in the same places."""

    def other(manifest):
        return replace(manifest, modules=(replace(manifest.modules[0], path="layer.0x"), *manifest.modules[1:]))

    edits = {
        "open": lambda entry, session: replace(entry, adapter=other(session.template).digest),
        "files": lambda files, session: (
            files | {"adapter.json": canonical.encode(other(session.template).to_json_value())}
        ),
    }
    found = found_with(tmp_path, WITH_ADAPTER["dense"], edits)
    assert failing(found) == ["SES-7"]
    assert "what the strategy sends of the modules" in reason(found, "SES-7")
