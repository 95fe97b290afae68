"""The naive model sums rightly; every attack on it needs its own weakness, no other, and fails without it."""

from dataclasses import replace

import numpy as np
import pytest

from simulations.naive import twister
from simulations.naive.attacks import (
    ATTACKS,
    BOTH_SHARES_SETTING,
    SEARCH_SETTING,
    SUBSTITUTION_SETTING,
    SURVIVOR_SETTING,
    TWO_SETS_SETTING,
    VICTIM,
    both_shares,
    key_substitution,
    seed_search,
    single_survivor,
    two_sets,
)
from simulations.naive.impersonator import Impersonator
from simulations.naive.masks import expand, fold
from simulations.naive.model import AdvertisedKeys, NaiveServer, Refusal, RefusedError, View
from simulations.naive.session import Session
from simulations.naive.setting import ALL_WEAKNESSES, PUBLISHED_FOLD_BITS, Setting, SettingError, Weakness
from simulations.naive.story import NaiveResult, clients_named, counted
from simulations.naive.twister import outputs, seeds_that_fit
from simulations.world.randomness import SeededRng

FEW_BITS = 14
NONE_OF_THEM = frozenset()

# name, attack, its sizes, the weakness it needs, and what a client without that weakness says.
CASES = [
    pytest.param(
        seed_search, replace(SEARCH_SETTING, fold_bits=FEW_BITS), Weakness.FOLDED_SEEDS, None, id="seed-search"
    ),
    pytest.param(both_shares, BOTH_SHARES_SETTING, Weakness.BOTH_SHARES, Refusal.NAMED_TWICE, id="both-shares"),
    pytest.param(
        key_substitution, SUBSTITUTION_SETTING, Weakness.UNSIGNED_KEYS, Refusal.KEY_NOT_SIGNED, id="key-substitution"
    ),
    pytest.param(single_survivor, SURVIVOR_SETTING, Weakness.NO_MINIMUM, Refusal.BELOW_MINIMUM, id="single-survivor"),
    pytest.param(two_sets, TWO_SETS_SETTING, Weakness.NO_CONSISTENCY, Refusal.NOT_CONFIRMED, id="two-sets"),
]


@pytest.mark.parametrize("weaknesses", [ALL_WEAKNESSES, NONE_OF_THEM], ids=["weak", "sound"])
@pytest.mark.parametrize("silent", [frozenset(), frozenset({0, 3})], ids=["nobody drops", "two drop"])
def test_an_honest_session_opens_the_sum_over_those_that_stayed(weaknesses, silent):
    session = Session(3, Setting(clients=6, threshold=3, weaknesses=weaknesses))
    session.collect(silent)
    opened, _ = session.open_honestly()
    expected = sum(
        vector.astype(np.uint64) for index, vector in enumerate(session.vectors) if index not in silent
    ) % np.uint64(2**32)
    assert opened.total.tolist() == expected.tolist()
    assert opened.warnings == ()


def test_a_masked_vector_does_not_look_like_the_vector():
    session = Session(3, Setting(weaknesses=NONE_OF_THEM))
    session.collect()
    small = 1 << session.setting.value_bits
    for masked in session.server.masked.values():
        assert np.count_nonzero(masked >= small) > masked.size // 2


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("attack", "setting", "weakness", "_"), CASES)
def test_an_attack_recovers_the_victim_exactly_when_only_its_own_weakness_is_there(attack, setting, weakness, _, seed):
    only = replace(setting, weaknesses=frozenset({weakness}))
    result = attack(seed, only)
    assert result.succeeded
    assert result.recovered.tolist() == Session(seed, only).vectors[VICTIM].tolist() == result.truth.tolist()
    assert "exactly" in result.learned


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("attack", "setting", "weakness", "refusal"), CASES)
def test_an_attack_fails_when_its_weakness_alone_is_taken_away(attack, setting, weakness, refusal, seed):
    result = attack(seed, replace(setting, weaknesses=ALL_WEAKNESSES - {weakness}))
    assert not result.succeeded
    assert result.recovered is None
    assert result.learned.startswith("nothing: ")
    if refusal is not None:
        assert refusal.value in result.learned


@pytest.mark.parametrize("name", ATTACKS)
def test_every_named_attack_succeeds_with_its_own_sizes_and_tells_how(name):
    result = ATTACKS[name](7)
    assert result.succeeded
    assert result.attack == name
    assert len(result.tried) >= 3
    assert all(step[0].isupper() and step.endswith(".") for step in result.tried)
    assert result.cost


def test_the_attacks_have_the_names_that_the_command_uses():
    assert list(ATTACKS) == ["seed-search", "both-shares", "key-substitution", "single-survivor", "two-sets"]


@pytest.mark.parametrize("clients", [3, 4, 7])
def test_the_seed_search_needs_all_clients_but_the_victim_and_one_to_help(clients):
    setting = Setting(clients=clients, threshold=2, fold_bits=FEW_BITS, weaknesses=frozenset({Weakness.FOLDED_SEEDS}))
    assert seed_search(5, setting).succeeded


def test_the_seed_search_says_what_the_published_width_would_take_and_that_it_is_extrapolated():
    result = seed_search(5, replace(SEARCH_SETTING, fold_bits=FEW_BITS))
    assert f"{1 << FEW_BITS:,} seeds in " in result.cost
    assert f"the {PUBLISHED_FOLD_BITS} bits published would take" in result.cost
    assert "extrapolated, not run" in result.cost


def test_values_as_wide_as_the_modulus_leave_the_search_nothing_to_recognise():
    result = seed_search(5, replace(SEARCH_SETTING, fold_bits=8, value_bits=32))
    assert not result.succeeded
    assert "256 seeds fit, not one" in result.learned


def test_both_shares_end_with_the_right_sum_so_that_nobody_notices():
    assert "as if nothing had happened" in both_shares(1).tried[-1]


def test_under_substituted_keys_every_client_answers_and_the_sum_is_right():
    setting = replace(SUBSTITUTION_SETTING, weaknesses=frozenset({Weakness.UNSIGNED_KEYS}))
    session = Session(4, setting, Impersonator(setting, VICTIM, SeededRng(4, "forged")))
    session.collect()
    opened, answers = session.open_honestly()
    assert len(answers) == setting.clients
    assert opened.total.tolist() == session.sum_of(session.everybody).tolist()


def test_a_server_with_substituted_keys_opens_no_sum_when_somebody_dropped_out():
    session = Session(4, SUBSTITUTION_SETTING, Impersonator(SUBSTITUTION_SETTING, VICTIM, SeededRng(4, "forged")))
    session.collect(frozenset({0}))
    opened, _ = session.open_honestly()
    assert opened is None


def test_two_sets_give_each_client_one_request_with_disjoint_lists():
    session = Session(4, TWO_SETS_SETTING)
    session.collect()
    without = View(session.everybody - {VICTIM}, frozenset({VICTIM}))
    session.ask({0: without})
    with pytest.raises(RefusedError) as refused:
        session.ask({0: View(session.everybody)})
    assert refused.value.reason is Refusal.ANSWERED_BEFORE
    assert refused.value.client == 0


def test_two_groups_that_overlap_are_no_setting_for_two_sets():
    with pytest.raises(SettingError) as wrong:
        two_sets(1, replace(TWO_SETS_SETTING, clients=5))
    assert wrong.value.field == "threshold"


def test_a_client_that_compares_lists_confirms_one_pair_of_lists_and_no_other():
    client = Session(4, Setting(weaknesses=NONE_OF_THEM)).clients[0]
    view = View(frozenset({0, 1, 2}), frozenset({3, 4}))
    assert client.confirm(view) == client.confirm(View(view.alive, view.dropped))
    with pytest.raises(RefusedError) as refused:
        client.confirm(View(view.alive | {3}, frozenset({4})))
    assert refused.value.reason is Refusal.OTHER_LISTS


@pytest.mark.parametrize("alive", [{0}, {0, 1}])
def test_even_the_naive_client_refuses_fewer_than_the_threshold(alive):
    session = Session(4, Setting())
    session.collect()
    with pytest.raises(RefusedError) as refused:
        session.ask({0: View(frozenset(alive))})
    assert refused.value.reason is Refusal.BELOW_THRESHOLD


def test_even_the_naive_client_refuses_keys_that_are_not_distinct_or_not_its_own():
    session = Session(4, Setting())
    keys = {client.index: client.advertise() for client in session.clients}
    with pytest.raises(RefusedError) as refused:
        session.clients[0].deal({**keys, 2: keys[1]}, session.identities)
    assert refused.value.reason is Refusal.KEYS_NOT_DISTINCT
    foreign = AdvertisedKeys(bytes(31) + b"\x01", bytes(31) + b"\x02", bytes(64))
    with pytest.raises(RefusedError) as refused:
        session.clients[0].deal({**keys, 0: foreign}, session.identities)
    assert refused.value.reason is Refusal.OWN_KEY_MISSING


def test_a_box_that_was_changed_does_not_open():
    session = Session(4, Setting())
    keys = {client.index: client.advertise() for client in session.clients}
    box = session.clients[1].deal(keys, session.identities)[0]
    session.clients[0].deal(keys, session.identities)
    with pytest.raises(RefusedError) as refused:
        session.clients[0].mask({1: box[:-1] + bytes([box[-1] ^ 1])})
    assert refused.value.reason is Refusal.BOX_DOES_NOT_OPEN


def test_too_few_answers_open_nothing():
    session = Session(4, Setting())
    session.collect()
    view = View(session.everybody)
    answers = session.ask({0: view, 1: view})
    assert session.server.open(session.everybody, answers) is None
    assert session.server.self_seed(VICTIM, answers) is None
    assert session.server.mask_secret(VICTIM, answers) is None


def test_a_sum_too_large_wraps_with_a_warning_and_is_no_setting_where_the_weakness_is_gone():
    setting = Setting(clients=3, threshold=2, value_bits=32)
    session = Session(4, setting)
    session.collect()
    opened, _ = session.open_honestly()
    true_sum = sum(vector.astype(np.uint64) for vector in session.vectors)
    assert (true_sum >= 2**32).any()
    assert opened.total.tolist() == (true_sum % 2**32).tolist()
    assert opened.warnings == ("values may outgrow the modulus",)
    with pytest.raises(SettingError) as wrong:
        replace(setting, weaknesses=ALL_WEAKNESSES - {Weakness.WRAPPING_SUM})
    assert wrong.value.field == "value_bits"


def test_the_largest_sum_that_fits_is_a_setting_without_a_warning():
    assert not Setting(clients=1024, value_bits=22).may_wrap
    assert Setting(clients=1025, value_bits=22).may_wrap


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clients", 2), ("clients", 2001), ("threshold", 1), ("threshold", 6), ("dimension", 1), ("value_bits", 0),
        ("value_bits", 33), ("fold_bits", 0), ("fold_bits", 33), ("minimum", 1), ("minimum", 6),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(SettingError) as wrong:
        Setting(**{field: value})
    assert wrong.value.field == field


def test_the_twister_gives_what_numpys_gives():
    seeds = np.array([0, 1, 5489, 2**31, 2**32 - 1], dtype=np.uint32)
    for count in (1, 2, 227, 228, 624, 625, 1900):
        ours = outputs(seeds, count)
        assert ours.shape == (seeds.size, count)
        for row, seed in zip(ours, seeds.tolist(), strict=True):
            assert row.tolist() == np.frombuffer(np.random.RandomState(seed).bytes(4 * count), dtype="<u4").tolist()


@pytest.mark.parametrize("seed_bits", [1, 5, 9])
def test_a_search_sees_the_first_two_outputs_of_every_seed_once(seed_bits, monkeypatch):
    monkeypatch.setattr(twister, "_BLOCK_SEEDS", 64)
    expected = outputs(np.arange(1 << seed_bits, dtype=np.uint32), 2)
    seen = []

    def look(first, second):
        seen.append(np.stack([first, second], axis=1))
        return first % 2 == 0

    kept = seeds_that_fit(look, seed_bits)
    assert np.array_equal(np.concatenate(seen), expected)
    assert np.array_equal(kept, np.flatnonzero(expected[:, 0] % 2 == 0))


def test_folding_keeps_the_low_bits_of_the_exclusive_or_of_all_words():
    words = [0x89ABCDEF, 0x01234567, 0xFFFFFFFF]
    seed = b"".join(word.to_bytes(4, "little") for word in words)
    assert fold(seed, 32) == 0x89ABCDEF ^ 0x01234567 ^ 0xFFFFFFFF
    assert fold(seed, 28) == (0x89ABCDEF ^ 0x01234567 ^ 0xFFFFFFFF) % 2**28


def test_text_in_base64_leaves_twenty_eight_bits_of_thirty_two():
    all_bits = 0
    for character in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        all_bits |= character
    assert (4 * all_bits.bit_count(), all_bits) == (PUBLISHED_FOLD_BITS, 0x7F)


def test_two_seeds_that_fold_alike_mask_alike_only_in_the_weak_model():
    one, other = bytes(32), (b"\x01\x02\x03\x04" * 2) + bytes(24)
    weak, sound = Setting(), Setting(weaknesses=NONE_OF_THEM)
    assert expand(one, weak).tolist() == expand(other, weak).tolist()
    assert expand(one, sound).tolist() != expand(other, sound).tolist()


def test_the_same_seed_gives_the_same_result_but_for_the_time_it_took():
    setting = replace(SEARCH_SETTING, fold_bits=FEW_BITS)
    one, other = seed_search(9, setting), seed_search(9, setting)
    assert (one.tried, one.learned, one.truth.tolist()) == (other.tried, other.learned, other.truth.tolist())
    assert one.truth.tolist() != seed_search(10, setting).truth.tolist()


def test_a_result_that_claims_more_or_less_than_its_vectors_show_cannot_exist():
    truth = np.array([1, 2], dtype=np.uint32)
    for recovered, claimed in ((None, True), (truth + np.uint32(1), True), (truth, False)):
        with pytest.raises(SettingError):
            NaiveResult("x", (), "", recovered, truth, claimed, "")


def test_an_honest_server_shows_everybody_the_same_keys():
    session = Session(4, Setting())
    session.collect()
    assert isinstance(session.server, NaiveServer)
    assert session.server.keys_for(0) == session.server.keys_for(4)


def test_numbers_and_clients_read_as_words():
    assert [counted(1, "seed"), counted(2, "seed"), counted(8, "box"), counted(1024, "seed")] == [
        "1 seed",
        "2 seeds",
        "8 boxes",
        "1,024 seeds",
    ]
    assert [clients_named([0]), clients_named([0, 2]), clients_named([0, 2, 3])] == [
        "client 0",
        "clients 0 and 2",
        "clients 0, 2 and 3",
    ]
