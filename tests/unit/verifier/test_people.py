"""ELG, CON, DPN: who took part, what they signed, and every way to break one of these checks alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secagg.transcript import merkle
from secagg.transcript.statements import Accepted, Dropped, Rejected, Signed
from tests.support.forge import MAIN, Forge, key_of, write_record
from tests.unit.verifier.session_checks import checked, failing, failing_after, found_of, reason, unclean
from verifier.checks import Level, Status


def changed(index, edit):
    """An edit of one item of a mapping or list."""

    def apply(items, _):
        items = items.copy()
        items[index] = edit(items[index])
        return items

    return apply


def resigned(index, **fields):
    """An edit of statements: the client itself signs something else."""
    return changed(index, lambda statement: replace(statement, **fields))


def forged(index, **fields):
    """An edit of signed leaves: somebody without the client's key changes the statement."""
    return changed(index, lambda signed: Signed(replace(signed.statement, **fields), signed.signature))


def failing_for(directory, plan):
    """The checks that fail of a record whose session ``main`` goes by this plan alone."""
    return failing(checked(Forge(main=plan).run_main().write(directory), Level.SUM))


# ELG-1


@pytest.mark.parametrize(("position", "gone"), [(0, {0}), (5, {5}), (11, {11}), (11, {11, 12})])
def test_elg_1_fails_for_somebody_who_is_not_in_the_roster(tmp_path, position, gone):
    def without(members, _):
        return [member for number, member in enumerate(members) if number not in gone]

    results = checked(Forge({"roster": without}).run_main().write(tmp_path), Level.SUM)
    assert failing(results) == ["ELG-1"]
    assert results["ELG-1"].failures[0].place.line == MAIN.members.index(position) + 1


@pytest.mark.parametrize("damage", ["swapped", "one less", "one more", "not terminated", "garbage", "another stratum"])
def test_elg_1_fails_for_a_roster_that_the_open_entry_does_not_name(tmp_path, damage):
    def edit(files, forge):
        lines = files["roster.jsonl"].splitlines(keepends=True)
        damaged = {
            "swapped": [lines[1], lines[0], *lines[2:]],
            "one less": lines[:-1],
            "one more": [*lines, lines[-1]],
            "not terminated": [*lines[:-1], lines[-1][:-1]],
            "garbage": [*lines[:-1], b"garbage\n"],
            "another stratum": [*lines[:-1], replace(forge.around.roster.members[-1], stratum="x").to_bytes() + b"\n"],
        }
        return files | {"roster.jsonl": b"".join(damaged[damage])}

    assert failing_after(tmp_path, files=edit) == ["ELG-1"]


def test_elg_1_fails_for_a_roster_of_another_size_than_it_has(tmp_path):
    edits = {
        "open": lambda opened, _: replace(opened, roster_size=14),
        "roster_entry": lambda entry, forge: resize(entry, forge, 14),
    }
    written = Forge(edits).run_main().write(tmp_path)
    assert failing(checked(written, Level.SUM)) == ["ELG-1"]


def resize(entry, forge, size):
    head = replace(entry.head, size=size)
    return replace(entry, head=head, signature=forge.registrar.sign_statement(head.to_bytes()))


# ELG-2


def test_elg_2_fails_for_one_identity_that_takes_part_twice(tmp_path):
    plan = replace(MAIN, members=(0, 1, 1, 4, 5, 6, 7, 8, 9, 10, 11))
    written = Forge(main=plan).run_main().write(tmp_path)
    assert failing(checked(written, Level.META)) == ["ELG-2"]


@pytest.mark.parametrize("ours", ["mask_key", "share_key"])
@pytest.mark.parametrize("theirs", ["mask_key", "share_key"])
def test_elg_2_fails_for_a_sealing_key_that_two_places_have(tmp_path, ours, theirs):
    def copied(statements, _):
        stolen = getattr(statements[1], theirs)
        return statements | {3: replace(statements[3], **{ours: stolen})}

    assert failing_after(tmp_path, advertise=copied) == ["ELG-2"]


def test_elg_2_fails_for_a_client_whose_two_keys_are_one(tmp_path):
    def same(statements, _):
        return statements | {3: replace(statements[3], share_key=statements[3].mask_key)}

    assert failing_after(tmp_path, advertise=same) == ["ELG-2"]


# ELG-3


def test_elg_3_fails_for_a_registrar_that_the_policy_does_not_pin(tmp_path):
    written = write_record(tmp_path)
    pinned = key_of("registrar").public_bytes.hex()
    written.policy.write_text(written.policy.read_text().replace(pinned, key_of("another").public_bytes.hex()))
    assert failing(checked(written, Level.SUM)) == ["ELG-3"]


def test_elg_3_fails_for_a_roster_that_the_registrar_did_not_sign(tmp_path):
    def signed_by_the_coordinator(entry, forge):
        return replace(entry, signature=forge.coordinator.sign_statement(entry.head.to_bytes()))

    assert failing_after(tmp_path, roster_entry=signed_by_the_coordinator) == ["ELG-3"]


def test_elg_3_fails_for_a_roster_that_was_signed_with_another_size(tmp_path):
    assert failing_after(tmp_path, roster_entry=lambda entry, forge: resize(entry, forge, 12)) == ["ELG-3"]


# CON-1


@pytest.mark.parametrize(
    ("edits", "file", "line"),
    [
        ({"u1": forged(5, share_key=bytes(32))}, "keys.jsonl", 6),
        ({"u2": forged(5, self_mask_commitment=bytes(32))}, "u2.jsonl", 6),
        ({"contributions": forged(0, upload=bytes(32))}, "contributions.jsonl", 1),
    ],
)
def test_con_1_fails_for_a_statement_that_its_client_did_not_sign(tmp_path, edits, file, line):
    if "u2" in edits:
        # What is checked against the commitment fails as well: only the signature counts here.
        edits = {"u2": changed(5, lambda signed: replace(signed, signature=bytes(64)))}
    results = found_of(tmp_path, **edits)
    # The receipt at hand is of the first contribution, and says itself who signed it.
    assert failing(results) == (["CON-1", "RCP-1"] if "contributions" in edits else ["CON-1"])
    place = results["CON-1"].failures[0].place
    assert place.file.endswith(file)
    assert place.line == line


def test_con_1_counts_all_failures_and_keeps_the_first(tmp_path):
    def unsigned(leaves, _):
        return [replace(leaf, signature=bytes(64)) for leaf in leaves]

    found = found_of(tmp_path, u1=unsigned)["CON-1"]
    assert (found.failed, len(found.failures)) == (11, 10)


def test_con_1_fails_for_a_contribution_of_another_length(tmp_path):
    def longer(headers, _):
        return headers | {0: replace(headers[0], lanes=headers[0].lanes + 1)}

    results = found_of(tmp_path, headers=longer)
    assert failing(results) == ["CON-1"]
    assert results["CON-1"].failures[0].place.field == "statement.lanes"


# CON-2


def test_con_2_fails_for_an_upload_that_is_there_twice(tmp_path):
    def copied(headers, _):
        return headers | {1: replace(headers[1], upload=headers[0].upload)}

    results = found_of(tmp_path, headers=copied)
    assert failing(results) == ["CON-2"]
    assert "the same as in line 1" in reason(results, "CON-2")


def test_con_2_fails_for_a_linear_hash_that_is_there_twice(tmp_path):
    def copied(headers, _):
        return headers | {1: replace(headers[1], linear_hash=headers[0].linear_hash)}

    assert "CON-2" in failing_after(tmp_path, headers=copied)


# CON-3


def closed_only(directory, **edits):
    """What becomes of the checks of level meta for a session that is closed and no more; nobody has a receipt."""
    forge = Forge(edits)
    main = forge.main
    forge.append(forge.roster_entry())
    for step in (main.open, main.advertise, main.share, main.close):
        forge.append(step())
    written = forge.write(directory)
    written.receipt.unlink()
    return checked(written, Level.META)


def relabelled(index, make):
    """An edit of the dispositions."""
    return lambda leaves, forge: [make(leaf, forge) if leaf.index == index else leaf for leaf in leaves]


@pytest.mark.parametrize(
    "edit",
    [
        relabelled(2, lambda leaf, _: Dropped(2, "share-keys")),
        relabelled(7, lambda leaf, _: Dropped(7, "masked-input")),
        relabelled(7, lambda leaf, _: Rejected(7, "LATE")),
        relabelled(4, lambda leaf, _: Dropped(3, "masked-input")),
        relabelled(0, lambda leaf, forge: Accepted(0, forge.contributions[1])),
        relabelled(2, lambda leaf, forge: Accepted(2, forge.signed(2, forge.share_statements[2]))),
        lambda leaves, _: leaves[:-1],
        lambda leaves, _: [*leaves, leaves[-1]],
    ],
    ids=[
        "dropped where it shared keys",
        "dropped later than it did",
        "rejected and was not there",
        "in the place of another",
        "with the contribution of another",
        "with another statement",
        "one less",
        "one more",
    ],
)
def test_con_3_fails_for_dispositions_that_do_not_account_for_everybody(tmp_path, edit):
    assert failing(closed_only(tmp_path, dispositions=edit)) == ["CON-3"]


@pytest.mark.parametrize("field", ["count", "rejected", "dropped", "contributions", "dispositions"])
def test_con_3_fails_for_a_close_entry_with_another_count_or_root(tmp_path, field):
    def edit(closing, _):
        value = getattr(closing, field)
        return replace(closing, **{field: value + 1 if isinstance(value, int) else bytes(32)})

    assert failing(closed_only(tmp_path, close=edit)) == ["CON-3"]


def test_con_3_fails_where_the_logged_contributions_are_not_the_accepted_ones(tmp_path):
    def others(forge):
        # Signed by its client for the same session, and in nobody's disposition.
        return [*forge.contributed[:-1], forge.contributions[2]]

    def edit_files(files, forge):
        return files | {"contributions.jsonl": b"".join(signed.to_bytes() + b"\n" for signed in others(forge))}

    def edit_close(closing, forge):
        return replace(closing, contributions=merkle.root([signed.to_bytes() for signed in others(forge)]))

    assert failing(closed_only(tmp_path, files=edit_files, close=edit_close)) == ["CON-3"]


@pytest.mark.parametrize("name", ["dispositions.jsonl", "contributions.jsonl"])
@pytest.mark.parametrize("damage", ["swapped", "one less", "one more", "not terminated", "garbage"])
def test_con_3_fails_for_a_file_that_the_close_entry_does_not_name(tmp_path, name, damage):
    def edit(files, _):
        lines = files[name].splitlines(keepends=True)
        damaged = {
            "swapped": [lines[1], lines[0], *lines[2:]],
            "one less": lines[:-1],
            "one more": [*lines, lines[-1]],
            "not terminated": [*lines[:-1], lines[-1][:-1]],
            "garbage": [*lines[:-1], b"garbage\n"],
        }
        return files | {name: b"".join(damaged[damage])}

    assert failing_after(tmp_path, files=edit) == ["CON-3"]


# CON-4


def test_con_4_fails_for_an_edge_that_one_end_only_applied(tmp_path):
    plan = replace(MAIN, missing={8: frozenset({9})})
    assert failing_for(tmp_path, plan) == ["CON-4"]


@pytest.mark.parametrize("stranger", [7, 0])
def test_con_4_fails_for_a_missing_neighbour_that_is_none(tmp_path, stranger):
    results = found_of(tmp_path, headers=resigned(0, missing=(stranger,)))
    assert failing(results) == ["CON-4"]
    assert results["OPN-1"].status is Status.UNAVAILABLE


@pytest.mark.parametrize(("missing", "expected"), [({3, 5, 6}, []), ({3, 5, 6, 8}, ["CON-4"])])
def test_con_4_fails_below_the_threshold_of_mask_neighbours(tmp_path, missing, expected):
    # Nine neighbours shared keys, the threshold is six.
    both = {0: frozenset(missing)} | {other: frozenset({0}) for other in missing}
    written = Forge(main=replace(MAIN, missing=both)).run_main().write(tmp_path)
    assert failing(checked(written, Level.META)) == expected


# DPN-1


def test_dpn_1_fails_where_the_policy_asks_for_noise(tmp_path):
    written = write_record(tmp_path)
    written.policy.write_text(written.policy.read_text().replace('mechanism = "none"', 'mechanism = "skellam"'))
    results = checked(written, Level.SUM)
    assert failing(results) == ["DPN-1"]
    assert results["DPN-1"].failed == 3


def test_an_honest_record_is_clean_at_every_level(tmp_path):
    written = write_record(tmp_path)
    for level in Level:
        assert unclean(checked(written, level)) == {}
