"""Each attack on a pairwise session fails, for its own reason; without the rules that stop it, it succeeds.

What an attack has won is computed by the attack: these tests switch rules of the product off, one or the few that stand
in the way, and look at what is computed then.
"""

from __future__ import annotations
import __future__

import copy
import functools
import inspect
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from secagg.arith.shamir import ReconstructionError
from secagg.crypto.secret import Secret
from secagg.derive import boxes, opening, threshold
from secagg.protocol import log
from secagg.protocol.log import LogView
from secagg.protocol.pairwise import admission, client, dealing, lists, session
from secagg.protocol.pairwise.client_states import CLIENT_PERSISTENCE, Contributed
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.ports import SessionKey
from secagg.transcript.entries import SessionClose, decode_entry
from secagg.transcript.policy import LogPolicy
from simulations.attacks import collusion
from simulations.attacks.attack import AttackResult
from simulations.attacks.pairwise_attacks import ATTACKS
from simulations.attacks.pairwise_coordinator import telling
from simulations.attacks.pairwise_stage import People, plan_of
from simulations.world.clients import ClientNode
from simulations.world.loop import run_virtually
from simulations.world.stores import Disk, ProcessStore

SEED = 3
PLAYS = {each.name: each.run for each in ATTACKS}

REASONS = {
    "alive-and-dropped": {"TOO_FEW_CONFIRMATIONS"},
    "two-closes": {"LOG_UNWITNESSED", "TOO_FEW_CONFIRMATIONS"},
    "two-closes-in-one-log": {"LOG_ORDER", "TOO_FEW_CONFIRMATIONS"},
    "below-minimum": {"BELOW_MINIMUM"},
    "replayed-close": {"LEFT_OUT"},
    "asks-twice": {"WRONG_PHASE"},
    "restart-opposite-share": {"LOG_FORKED", "LEFT_OUT"},
    "forged-pair-seeds": {"WITHHELD_BOXES"},
    "withheld-boxes": {"WITHHELD_BOXES"},
    "moved-box": {"WITHHELD_BOXES"},
    "key-substitution": {"BAD_KEY"},
    "strangers": {"OUTSIDE_ROSTER"},
    "grind-cohort": set(),
    "seed-search": set(),
    "collusion": {"TOO_FEW_CONFIRMATIONS", "BELOW_MINIMUM"},
    "sybils": set(),
    "wrong-shares": {"WRONG_SHARES"},
    "wrong-length": {"WRONG_LENGTH"},
    "other-session": {"WRONG_SESSION"},
    "two-uploads": {"EQUIVOCATION"},
    "drops": set(),
}


@functools.cache
def result(name: str) -> AttackResult:
    return PLAYS[name](SEED)


def switch_off(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *lines: str) -> None:
    """Let these conditions of a function never hold."""
    source = inspect.getsource(getattr(module, name))
    for line in lines:
        assert source.count(line) == 1, f"{name}: {line}"
        source = source.replace(line, "if False:")
    code = compile(source, module.__name__, "exec", flags=__future__.annotations.compiler_flag)
    made: dict[str, object] = {}
    exec(code, vars(module), made)  # noqa: S102
    monkeypatch.setattr(module, name, made[name])


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quorum and threshold as if nobody were corrupt."""
    parameters, quorum = session.graph_parameters, session.quorum
    monkeypatch.setattr(session, "quorum", lambda cohort, _corrupt: quorum(cohort, 0))
    monkeypatch.setattr(session, "graph_parameters", lambda cohort, _corrupt, *rest: parameters(cohort, 0, *rest))


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that start again find all their files as they were when they had contributed, and not yet confirmed."""
    kept: dict[Disk, object] = {}
    effect_done, start = ProcessStore.effect_done, ClientNode.start

    async def done(self: ProcessStore, key: SessionKey, effect: int) -> None:
        await effect_done(self, key, effect)
        stored = await self.load(key)
        is_client = self._process.name.startswith("client-") and stored is not None
        if is_client and isinstance(CLIENT_PERSISTENCE.decode(stored.state), Contributed):
            kept[self._disk] = copy.deepcopy(self._disk.sessions)

    def starting(self: ClientNode, *ports: object) -> object:
        if self.disk in kept:
            self.disk.sessions, self.memory = copy.deepcopy(kept[self.disk]), ForgetfulMemory()
        return start(self, *ports)

    monkeypatch.setattr(ProcessStore, "effect_done", done)
    monkeypatch.setattr(ClientNode, "start", starting)


def test_every_attack_has_an_expected_refusal_here() -> None:
    assert set(REASONS) == set(PLAYS)


@pytest.mark.parametrize("name", PLAYS)
def test_it_fails_and_for_its_own_reason(name: str) -> None:
    found = result(name)
    assert not found.succeeded
    assert found.learned == ()
    assert {each.rpartition(": ")[2] for each in found.refusals} == REASONS[name]
    assert found.steps


@pytest.mark.parametrize("name", ["below-minimum", "wrong-length"])
def test_the_same_seed_tells_the_same_story(name: str) -> None:
    assert PLAYS[name](SEED) == result(name)
    assert PLAYS[name](SEED + 1) != result(name)


def test_what_is_computed_from_shares_is_what_was_seen() -> None:
    """Two ways to know what a coordinator knows: by computing it, and by a rank argument over all that it saw."""
    plan = plan_of(SEED)

    async def play() -> None:
        scene = telling(plan, lambda _: [], lambda _number, _starts: None)
        await scene.play()
        opened = scene.loot.smallest()
        assert opened is not None
        assert opened.is_true
        assert opened.clients - scene.people.corrupt == scene.view.smallest_sum() == frozenset(scene.people.honest)
        assert np.array_equal(opened.integer_sum, scene.world.expected_sum(opened.clients))
        # Corrupt clients gave their own inputs away, each by itself.
        assert {each.clients for each in scene.loot.exposed()} == {opened.clients} | {
            frozenset({number}) for number in scene.people.corrupt
        }

    run_virtually(play())


class TestWithoutTheRuleThatStopsIt:
    def wins(self, name: str) -> AttackResult:
        found = PLAYS[name](SEED)
        assert found.succeeded
        assert found.learned
        return found

    def input_of_victim(self, seed: int = SEED) -> str:
        return f"the input of client {People.of(plan_of(seed)).victim}, every coordinate"

    def test_two_stories_open_both_secrets(self, uncounted: None) -> None:
        assert self.wins("alive-and-dropped").learned == (self.input_of_victim(),)

    def test_two_closes_are_both_answered(self, uncounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LogPolicy, "is_met_by", lambda *_: True)
        assert self.wins("two-closes").learned == (self.input_of_victim(),)

    def test_without_witnesses_alone_the_quorum_still_stops_two_closes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LogPolicy, "is_met_by", lambda *_: True)
        found = PLAYS["two-closes"](SEED)
        assert not found.succeeded
        assert {each.rpartition(": ")[2] for each in found.refusals} == {"TOO_FEW_CONFIRMATIONS"}

    def test_two_closes_in_one_log_are_both_answered(self, uncounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients that take the last close of a log, and do not mind that there are two."""

        def last(view: LogView) -> bytes:
            return [data for data in view.entries if isinstance(decode_entry(data), SessionClose)][-1]

        monkeypatch.setattr(log, "_check_entry", lambda *_: None)
        monkeypatch.setattr(LogView, "close_entry", property(last))
        monkeypatch.setattr(
            LogView, "close", property(lambda view: decode_entry(last(view)) if view.size > 4 else None)
        )
        assert self.wins("two-closes-in-one-log").learned == (self.input_of_victim(),)

    def test_a_sum_below_the_minimum_is_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, lists, "check_closed", "if len(accepted) < session.parameters.min_contributors:")
        assert "the sum of the inputs of clients" in self.wins("below-minimum").learned[0]

    def test_an_old_close_is_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, client, "_closed", "if accepted.get(place.index) != state.sent:")
        monkeypatch.setattr(lists, "check_header", lambda *_: None)
        assert self.wins("replayed-close").learned == (
            f"the root of client {People.of(plan_of(SEED)).victim}, which uploaded",
        )

    @pytest.mark.parametrize("name", ["asks-twice", "restart-opposite-share"])
    def test_clients_that_are_restored_from_a_backup_answer_twice(self, name: str, restored: None) -> None:
        assert self.wins(name).learned == (self.input_of_victim(),)

    def test_forged_pair_seeds_are_masked_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dealing, "_check_boxes", lambda *_: None)
        highest = People.of(plan_of(SEED)).order[-1]
        assert self.wins("forged-pair-seeds").learned == (f"the input of client {highest}, every coordinate",)

    def test_a_thinned_graph_leaves_one_client_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, dealing, "open_inbox", "if [item.sender for item in inbox] != expected:")
        switch_off(monkeypatch, client, "_shared", "if len(received) < dealer.threshold:")
        monkeypatch.setattr(lists, "asymmetric_edges", lambda *_: [])
        assert self.wins("withheld-boxes").learned == (self.input_of_victim(),)

    def test_a_moved_box_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Four rules bind a box to its place: the signed root, the context of each seal, and the commitments."""
        monkeypatch.setattr(dealing, "_check_boxes", lambda *_: None)
        for name in ("share_box_info", "pair_box_info", "_commit_dealt"):
            monkeypatch.setattr(boxes, name, lambda *_: bytes(32))
        found = PLAYS["moved-box"](SEED)
        assert found.succeeded
        assert any("took the shares" in step for step in found.steps)

    def test_substituted_keys_are_sealed_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(
            monkeypatch, dealing, "check_neighbour_keys", "if digests != (statement.mask_key, statement.share_key):"
        )
        assert self.wins("key-substitution").learned == (self.input_of_victim(),)

    def test_invented_clients_learn_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, lists, "check_advertised", "if statement.identity not in session.positions:")
        assert self.wins("strangers").learned == (self.input_of_victim(),)

    def test_a_graph_is_found_that_is_bad_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threshold._parameters.cache_clear()
        monkeypatch.setattr(threshold, "_corrupt_in_windows", lambda *_: 0)
        try:
            assert PLAYS["grind-cohort"](SEED).succeeded
        finally:
            threshold._parameters.cache_clear()

    def test_a_folded_seed_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(boxes, "pair_seed", folded(boxes.pair_seed))
        victim = People.of(plan_of(SEED, min_contributors=8, max_corrupt=6)).victim
        assert self.wins("seed-search").learned == (f"the input of client {victim}, every coordinate",)

    def test_one_corrupt_client_more_than_promised_opens_less_than_promised(self) -> None:
        plan = plan_of(SEED)
        allowed = run_virtually(collusion.closes_small_sets(plan, People.of(plan), (6,)))
        one_more = run_virtually(collusion.closes_small_sets(plan, People.of(plan, corrupt=3), (6,)))
        assert (allowed.succeeded, one_more.succeeded) == (False, True)

    def test_five_identities_of_one_person_learn_one_input(self) -> None:
        plan = plan_of(SEED)
        found = run_virtually(collusion.closes_small_sets(plan, People.of(plan, corrupt=5), (6,)))
        assert found.succeeded
        assert found.learned[0].endswith("every coordinate")

    def test_wrong_shares_that_are_not_checked_leave_no_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, admission, "_check_answer", "if not fits:")
        assert not PLAYS["wrong-shares"](SEED).succeeded  # t right shares of seven are still found

        def gives_up(*_: object) -> None:
            raise ReconstructionError(1)

        monkeypatch.setattr(opening, "reconstruct_with_errors", gives_up)
        assert "there is no sum" in self.wins("wrong-shares").learned[0]

    def test_a_masked_input_of_another_length_is_in_the_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, lists, "check_header", "if header.lanes != session.field_layout.lanes:")
        self.wins("wrong-length")

    def test_a_header_for_another_session_is_in_the_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (admission, lists):
            monkeypatch.setattr(module, "check_statement_session", lambda *_: None)
        assert "another session" in self.wins("other-session").learned[0]

    def test_a_second_upload_takes_the_place_of_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch_off(monkeypatch, admission, "admit", "if known is not None:")
        self.wins("two-uploads")

    def test_masks_of_those_who_are_gone_stay_in_the_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(opening.ClosedCohort, "dropped", lambda _: [])
        assert "there is no sum" in self.wins("drops").learned[0]


def folded(pair_seed: Callable[[Secret, bytes, int], Secret]) -> Callable[[Secret, bytes, int], Secret]:
    """Pair seeds of so few bits as the search tries."""

    def few(root: Secret, digest: bytes, higher: int) -> Secret:
        number = int.from_bytes(pair_seed(root, digest, higher).expose(), "big") % 2**collusion.SEARCHED_BITS
        return Secret(number.to_bytes(32, "big"))

    return few
