"""A coordinator that wants one person's projection out of the two sums of ``two-session``.

The first session publishes ``Y``, the sum of all ``D_j Omega``, and a basis Q of it; the second one the sum Z of all
``Q^T D_j``. Over the same people ``Q^T Y = Z Omega``. Were one person missing in Z, the difference would be that one's
``Q^T D Omega``. The rule is in docs/threat-model.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from secagg import second_session as library
from secagg.lora.fixed import BASIS_FILE, fixed_name, read_fixed
from secagg.lora.manifest import Manifest
from secagg.lora.signs import sign_matrix
from secagg.lora.update_merging import UpdateMerging
from secagg.participation import OneShotParticipation, Participation
from secagg.protocol import log
from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import AdvertisedList, ClosedList, SharedList
from secagg.protocol.one_shot import admission, coordinator
from secagg.protocol.one_shot.authority_rules import check_request, check_sets
from secagg.protocol.one_shot.client_states import Delivered, Send
from secagg.protocol.one_shot.coordinator_states import Aborted, CommitmentRow, Committing, Publishing
from secagg.protocol.one_shot.messages import CommitContribution, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise import admission as pairwise_admission
from secagg.protocol.pairwise import client as pairwise_client
from secagg.protocol.pairwise.client_states import Send as PairwiseSend
from secagg.protocol.pairwise.coordinator_states import Confirming, Unmasking
from secagg.protocol.phases import Phase
from secagg.protocol.rows import OTHER_CONTRIBUTORS, DeadlinePassed, LogRow, RowKind, row_key
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import open_session
from secagg.runtime.ports import StaleStoreError
from secagg.session_details import Result, SessionDetails
from secagg.transcript import canonical, merkle
from secagg.transcript.entries import (
    AggregateFile,
    KeysAdvertised,
    KeysShared,
    OneShotClose,
    PairwiseOpen,
    SessionAbort,
    decode_entry,
)
from secagg.transcript.merge import (
    FrozenMerge,
    LinearMerge,
    PilotMerge,
    ProjectionMerge,
    RangeMerge,
    admits,
    contributors_digest,
    second_session,
)
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import Absent, Accepted
from tests.support import authority_stage, cohort, one_shot, one_shot_client, stage
from tests.support.cohort import key_of
from tests.support.committee_service import serving_member
from tests.support.one_shot_cohort import open_one_shot
from tests.support.rng import CountingRng
from tests.support.service import RunningService, serving
from tests.support.two_sessions import (
    BOUND,
    COLUMNS,
    LENIENT,
    MODULE,
    PILOTS,
    RANGE,
    SEED,
    Two,
    merging_of,
    parameters_of,
    pilots,
    request_of,
    update_of,
)

FIVE = tuple(key_of(f"id{i}") for i in range(5))


def names(keys: Iterable[object]) -> list[bytes]:
    return [key.public_bytes for key in keys]


def projection(contributors: Iterable[bytes], first: bytes = b"F" * 16) -> ProjectionMerge:
    """The merge of a second session over these."""
    return ProjectionMerge(BOUND, SEED, 6, 4, first, bytes(32), contributors_digest(contributors))


# What the two sums show.


def piece(result: Result, name: str) -> np.ndarray:
    """The sum of a piece of all messages, without its scale, float64."""
    merging = result.details.merging
    (module,) = merging.manifest
    value = merging.layout.split(result.mean)[f"{MODULE.path}/{name}"]
    return value.astype(np.float64) * result.contributors / 2.0 ** module.scales[name]


def difference(first: Result, second: Result) -> np.ndarray:
    """What anybody computes from two published results: ``Q^T Y - Z Omega``."""
    omega = sign_matrix(SEED, MODULE.path, "omega", COLUMNS, RANGE.columns)
    return basis_of(second).T @ piece(first, "range") - piece(second, "projection") @ omega


def basis_of(second: Result) -> np.ndarray:
    return second.details.merging.maps.fixed[fixed_name(MODULE, "left")].astype(np.float64)


async def played_first(two: Two, among: Sequence[object] | None = None) -> tuple[PairwiseOpen, Result]:
    """A first session over ``among``; everybody's store remembers it."""
    first = await two.open(RANGE)
    came = among or two.identities
    ending = _ended_when_here(two, first.session, len(came))
    results, _ = await asyncio.gather(two.contribute_all(first.session, came), ending)
    return first, results[0]


async def _ended_when_here(two: Two, session: bytes, expected: int) -> None:
    host = await two.service.registry.find(session)
    while host.status().phase is Phase.ADVERTISE_KEYS:
        if host.status().received == expected:
            await host.end_phase(Phase.ADVERTISE_KEYS)
        await host.driver.wait_for_change(host.driver.version)


class TestTheLeak:
    def test_without_the_rule_two_sums_show_one_person_s_projection(self, tmp_path: Path, monkeypatch) -> None:
        """Coordinator and clients as they would be without the rule: from published sums alone, to four digits."""

        async def nobody_checks(*_: object) -> None:
            return None

        async def run() -> tuple[Result, Result]:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, result = await played_first(two)
                basis = two.basis(first)
                second = two.second(first, basis, names(FIVE[:4]))
                await two.open_lying(second, basis)
                ending = _ended_when_here(two, second.session, 4)
                results, _ = await asyncio.gather(two.contribute_all(second.session, FIVE[:4]), ending)
                return result, results[0]

        monkeypatch.setattr(library, "followed", nobody_checks)
        first, second = asyncio.run(run())
        omega = sign_matrix(SEED, MODULE.path, "omega", COLUMNS, RANGE.columns)
        hers = basis_of(second).T @ update_of(4) @ omega
        others = [basis_of(second).T @ update_of(number) @ omega for number in range(4)]
        shown = difference(first, second)
        assert shown.shape == (6, 6)
        assert np.linalg.norm(shown - hers) < 1e-4 * np.linalg.norm(hers)
        assert min(np.linalg.norm(shown - each) for each in others) > 0.05 * np.linalg.norm(hers)

    def test_with_the_rule_the_second_sum_says_nothing_new_of_the_first(self, tmp_path: Path) -> None:
        async def run() -> tuple[Result, Result]:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, result = await played_first(two)
                second = two.second(first, two.basis(first), names(FIVE))
                await two.open_second(second)
                return result, (await two.contribute_all(second.session, FIVE))[0]

        first, second = asyncio.run(run())
        assert np.linalg.norm(difference(first, second)) < 1e-4 * np.linalg.norm(piece(first, "range"))


# The rule at pairwise clients: a coordinator that leaves somebody out.


@functools.lru_cache(maxsize=1)
def pairwise_stage() -> stage.Stage:
    """Seven clients in a second session over all seven, stopped at every phase."""
    keys = stage.sorted_keys(7)
    session = cohort.session_of(keys, dimension=7, min_contributors=4)
    parameters = dataclasses.replace(session.parameters, merge=projection(names(keys)))
    return asyncio.run(stage._play(dataclasses.replace(session, parameters=parameters), keys))


class TestDropsSomebodyInTheSecondSession:
    def test_nobody_confirms_or_unmasks_a_sum_without_one_of_them(self) -> None:
        played = pairwise_stage()
        for left_out in range(played.size):
            rest = [index for index in range(played.size) if index != left_out]
            shown = stage.close_with(played, rest)
            reasons = {stage.refusal(played, index, played.contributed[index], shown) for index in rest}
            assert reasons == {RejectReason.OTHER_CONTRIBUTORS}
            told = stage.tell(played, shown, range(played.size))
            assert (told.confirmations, told.answers) == ({}, {})

    def test_everybody_unmasks_the_sum_over_all_of_them(self) -> None:
        played = pairwise_stage()
        told = stage.tell(played, played.closed, range(played.size))
        assert sorted(told.answers) == list(range(played.size))
        assert stage.unmasked(played, range(played.size), [told]) == [stage.UNIT] * played.size

    def test_nobody_shares_keys_among_fewer(self) -> None:
        played = pairwise_stage()
        honest = played.advertised_lists[1]
        leaves = honest.leaves[1:]
        entry = KeysAdvertised(played.session.parameters.session, len(leaves), merkle.root(leaves))
        shown = AdvertisedList(stage.signed_log(played.session, played.log[0], entry), leaves, honest.keys)
        assert stage.refusal(played, 1, played.advertised[1], shown) is RejectReason.OTHER_CONTRIBUTORS

    def test_nobody_masks_an_input_among_fewer(self) -> None:
        played = pairwise_stage()
        honest = played.shared_lists[1]
        leaves = (Absent(0).to_bytes(), *honest.leaves[1:])
        entry = KeysShared(played.session.parameters.session, len(leaves) - 1, merkle.root(leaves))
        inbox = tuple(item for item in honest.inbox if item.sender != 0)
        shown = SharedList(stage.signed_log(played.session, *played.log[:2], entry), leaves, inbox)
        assert stage.refusal(played, 1, played.shared[1], shown) is RejectReason.OTHER_CONTRIBUTORS


# The rule at those who open one-shot sums.


@functools.lru_cache(maxsize=1)
def one_shot_second() -> tuple[OneShotSession, tuple[one_shot.Contribution, ...]]:
    """A second session over six, with everybody's contribution."""
    keys = one_shot.contributor_keys(6)
    session = one_shot.session_of(keys)
    parameters = dataclasses.replace(session.parameters, merge=projection(names(keys)))
    session = OneShotSession(parameters, session.roster)
    return session, tuple(one_shot.contribute(session, key) for key in keys)


class TestAsksOpenersForFewer:
    @pytest.mark.parametrize("left_out", [0, 5])
    def test_no_member_adds_up_shares_without_one_of_them(self, tmp_path: Path, left_out: int) -> None:
        _, everybody = one_shot_second()
        chosen = [each for number, each in enumerate(everybody) if number != left_out]
        with pytest.raises(RemoteProtocolError) as caught:
            asyncio.run(self.asked(tmp_path, chosen))
        assert caught.value.reason is RejectReason.OTHER_CONTRIBUTORS

    def test_a_member_adds_up_the_shares_of_all_of_them(self, tmp_path: Path) -> None:
        session, everybody = one_shot_second()
        answer = asyncio.run(self.asked(tmp_path, everybody))
        assert answer.statement.share_sum == one_shot.share_sum(session, everybody, 0)

    @staticmethod
    async def asked(home: Path, chosen: Sequence[one_shot.Contribution]):
        """What a member that serves over TLS answers, which holds everybody's share."""
        session, everybody = one_shot_second()
        name = session.parameters.session
        async with serving_member(home) as member:
            await member.port.join(name, one_shot.shown_files(session, one_shot.evidence_of(session)))
            assert set(await member.port.hold(name, [each.item(0) for each in everybody])) == {""}
            return await member.port.open(name, one_shot.open_request(session, chosen))

    def test_no_authority_decrypts_the_sum_of_fewer(self) -> None:
        made = authority_stage.prepared()
        session = authority_stage.session_of(made, merge=projection(names(authority_stage.CLIENTS)))
        context = authority_stage.encryption_of(made)
        uploads = [authority_stage.honest_upload(session, context, number) for number in range(6)]

        def decided(closed: authority_stage.Closed):
            asked = check_request(authority_stage.AUTHORITY, None, closed.request())
            return check_sets(asked, closed.committed, closed.contributions)

        whole = authority_stage.Closed.of(uploads)
        assert decided(whole).close == whole.close_digest
        for fewer in (authority_stage.Closed.of(uploads, range(5)), authority_stage.Closed.of(uploads[1:])):
            with pytest.raises(RemoteProtocolError) as caught:
                decided(fewer)
            assert caught.value.reason is RejectReason.OTHER_CONTRIBUTORS

    def test_nobody_uploads_after_a_list_of_fewer(self) -> None:
        session = one_shot_client.one_shot_session(
            opening=one_shot_client.AUTHORITY, merge=projection(names(one_shot_client.KEYS))
        )
        headers = [one_shot_client.signed_header(session, number) for number in range(5)]
        speaker = one_shot_client.Speaker(session)
        speaker.mask()
        with pytest.raises(RemoteProtocolError) as caught:
            speaker.feed(one_shot_client.committed_list(session, headers[:4]))
        assert caught.value.reason is RejectReason.OTHER_CONTRIBUTORS
        assert not any(isinstance(each.message, OneShotContribution) for each in speaker.effects if is_send(each))
        speaker.feed(one_shot_client.committed_list(session, headers))
        assert isinstance(speaker.effects[-1].message, OneShotContribution)

    def test_who_comes_back_for_the_sum_is_told_that_it_is_over_fewer(self) -> None:
        """With more corrupt members than assumed; the contributor was gone before the close."""
        session, everybody = one_shot_second()

        def checked(chosen: Sequence[one_shot.Contribution]) -> None:
            evidence = one_shot.evidence_of(session, one_shot.close_of(session, chosen))
            leaves = tuple(Accepted(session.positions[names([each.key])[0]], each.signed).to_bytes() for each in chosen)

            class Shown:
                log_policy = one_shot.WITNESSED

                async def closed_list(self, _: bytes) -> ClosedList:
                    return ClosedList(evidence, leaves)

            source = Shown()
            source.port = source
            view = log.join(session.parameters, one_shot.WITNESSED, one_shot.evidence_of(session))
            details = SessionDetails(session, None, view, None)
            participation = OneShotParticipation(source, details, SimpleNamespace(run=None), None)
            asyncio.run(participation._check_counted(Delivered(view, everybody[0].signed, None)))

        checked(everybody)
        with pytest.raises(RemoteProtocolError) as caught:
            checked(everybody[:5])
        assert caught.value.reason is RejectReason.OTHER_CONTRIBUTORS


def is_send(effect: object) -> bool:
    return isinstance(effect, Send)


# The honest coordinator: it ends what cannot become whole, as early as it can be seen.


def abort_reason(entries: Sequence[bytes]) -> str:
    last = decode_entry(entries[-1])
    assert isinstance(last, SessionAbort)
    return last.reason


class TestTheHonestCoordinator:
    @pytest.mark.parametrize(
        ("silent_from", "entries"), [(Phase.ADVERTISE_KEYS, 2), (Phase.SHARE_KEYS, 3), (Phase.MASKED_INPUT, 4)]
    )
    def test_ends_a_pairwise_session_in_the_phase_in_which_somebody_is_missing(self, silent_from, entries) -> None:
        async def run() -> tuple[bytes, ...]:
            keys = stage.sorted_keys(5)
            session = cohort.session_of(keys, dimension=5)
            parameters = dataclasses.replace(session.parameters, merge=projection(names(keys)))
            played = await cohort.open_cohort(
                dataclasses.replace(session, parameters=parameters), keys, lambda at: cohort.one_hot(5, at), LENIENT
            )
            played.start_all()
            order = [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT]
            for phase, act in zip(order, (played.advertise, played.share, played.upload), strict=True):
                await played.reach(phase)
                if phase is silent_from:
                    await act(played.clients[1:])
                    break
                await act(played.clients)
            await played.end_phase(Phase.ABORTED)
            shown = played.host.evidence().entries
            await played.host.close()
            return shown

        shown = asyncio.run(run())
        assert abort_reason(shown) == OTHER_CONTRIBUTORS
        assert len(shown) == entries

    @pytest.mark.parametrize("is_up", [True, False], ids=["all members say what they hold", "one is silent"])
    def test_ends_a_committee_s_session_when_an_upload_is_missing(self, is_up: bool) -> None:
        async def run() -> tuple[bytes, ...]:
            keys = [key_of(f"contributor {number}") for number in range(4)]
            played = await open_one_shot(4, lambda _: np.zeros(20, np.float32), merge=projection(names(keys)))
            played.members[3].is_up = is_up
            await played.contribute(0, 1, 2)
            await played.settle()
            # At the end of uploads: nobody waits for the silent member.
            await played.pass_deadline()
            await played.reach(Phase.ABORTED)
            shown = played.host.evidence().entries
            await played.close()
            return shown

        assert abort_reason(asyncio.run(run())) == OTHER_CONTRIBUTORS

    def test_does_without_a_member_rather_than_without_a_contributor(self) -> None:
        async def run() -> OneShotClose:
            keys = [key_of(f"contributor {number}") for number in range(4)]
            played = await open_one_shot(4, lambda _: np.zeros(20, np.float32), merge=projection(names(keys)))
            lost = keys[2].public_bytes

            def forgetful(item, verdict: str) -> str:
                return RejectReason.SHARE_NOT_HELD.name if item.signed.statement.identity == lost else verdict

            played.members[0].verdict = forgetful
            await played.contribute(0, 1, 2, 3)
            while len(played.host.evidence().entries) < 2:
                await played.host.driver.wait_for_change(played.host.driver.version)
            close = decode_entry(played.host.evidence().entries[1])
            await played.close()
            assert isinstance(close, OneShotClose)
            return close

        close = asyncio.run(run())
        assert close.count == 4
        assert close.opener.members == (1, 2, 3)

    def test_ends_an_authority_s_session_when_a_commitment_is_missing(self) -> None:
        session = one_shot_client.one_shot_session(
            opening=one_shot_client.AUTHORITY, merge=projection(names(one_shot_client.KEYS))
        )

        def ended(numbers: Iterable[int]) -> object:
            rows = {row_key(0, RowKind.LOG): LogRow(session.entry, 0)}
            for number in numbers:
                rows[row_key(number, RowKind.COMMITMENT)] = CommitmentRow(
                    one_shot_client.signed_header(session, number)
                )
            moment = coordinator.Moment(session, rows, 1_000_000)
            after = coordinator.step(moment, Committing(1_000_000, len(rows) - 1), DeadlinePassed()).state
            assert isinstance(after, Publishing)
            return after.then

        assert ended(range(4)) == Aborted(OTHER_CONTRIBUTORS, 1_000_000)
        assert not isinstance(ended(range(5)), Aborted)


# A coordinator that lies about the first session, and what its operator's service refuses.


def lies(two: Two, first: PairwiseOpen, basis: bytes) -> dict[str, tuple[RejectReason, PairwiseOpen]]:
    """Second sessions that must not be, by what is wrong with them; each is an attempt of its own."""
    everybody = names(FIVE)
    malformed, other = RejectReason.MALFORMED_MESSAGE, RejectReason.OTHER_CONTRIBUTORS
    second = functools.partial(two.second, first, basis)
    return {
        "one left out": (other, second(everybody[:4], 0)),
        "a stranger instead": (other, second([*everybody[:4], key_of("stranger").public_bytes], 1)),
        "another seed": (malformed, second(everybody, 2, seed=b"t" * 32)),
        "another bound": (malformed, second(everybody, 3, update_norm=Fraction(16))),
        "another basis": (malformed, second(everybody, 4, fixed=bytes(32))),
        "another minimum": (malformed, dataclasses.replace(second(everybody, 5), min_contributors=4)),
        "no attempt": (malformed, dataclasses.replace(second(everybody, 6), session=b"X" * 16)),
        "another base model": (malformed, dataclasses.replace(second(everybody, 7), base_model_digest=b"\1" * 32)),
        "too late an attempt": (malformed, second(everybody, 1000)),
    }


class TestLiesAboutTheFirstSession:
    def test_contributors_refuse_before_they_send_anything(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, _ = await played_first(two)
                basis = two.basis(first)
                for name, (reason, second) in lies(two, first, basis).items():
                    await two.open_lying(second, basis)
                    with pytest.raises(RemoteProtocolError) as caught:
                        await two.contribute(second.session, FIVE[0])
                    assert caught.value.reason is reason, name
                    assert await two.received(second.session) == 0, name
                    assert FIVE[0].public_bytes not in seen_of(service, second.session), name

        asyncio.run(run())

    def test_the_operator_s_service_opens_no_such_session(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                unfinished = await two.open(RANGE)
                first, _ = await played_first(two)
                basis = two.basis(first)
                for name, (reason, lying) in lies(two, first, basis).items():
                    # As the first attempt, which is the one that is due.
                    is_attempt = name not in {"no attempt", "too late an attempt"}
                    session = second_session(first.session, 0) if is_attempt else lying.session
                    with pytest.raises(RemoteProtocolError) as caught:
                        await two.open_second(dataclasses.replace(lying, session=session))
                    assert caught.value.reason is reason, name
                for name, second, sent in (
                    ("not there", two.second(dataclasses.replace(first, session=b"N" * 16), basis, names(FIVE)), b""),
                    ("unfinished", two.second(unfinished, basis, names(FIVE)), b""),
                    ("skips an attempt", two.second(first, basis, names(FIVE), 1), b""),
                    ("sends the basis", two.second(first, basis, names(FIVE)), basis),
                ):
                    with pytest.raises(RemoteProtocolError) as caught:
                        await two.open_second(second, fixed=sent)
                    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE, name
                # And an honest one it does open, once.
                honest = two.second(first, basis, names(FIVE))
                await two.open_second(honest)
                assert await two.open_second(honest) == honest.session
                with pytest.raises(RemoteProtocolError, match="attempt 0 has not failed"):
                    await two.open_second(two.second(first, basis, names(FIVE), 1))
                setup = (await service.registry.find(honest.session)).setup()
                assert setup.fixed == hashlib.sha256(basis).digest()
                assert setup.contributors == honest.merge.contributors

        asyncio.run(run())

    def test_frozen_tensors_are_those_that_the_open_entry_names(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                with pytest.raises(RemoteProtocolError, match="fixed tensors"):
                    await open_frozen(two, hashlib.sha256(b"named").digest(), b"sent")
                with pytest.raises(RemoteProtocolError):
                    await open_frozen(two, hashlib.sha256(b"no tensors").digest(), b"no tensors")
                # As long as those of a large model: it is read, and refused for what is in it.
                long = bytes(84_000_000)
                with pytest.raises(RemoteProtocolError) as caught:
                    await open_frozen(two, hashlib.sha256(long).digest(), long)
                assert caught.value.reason is RejectReason.MALFORMED_MESSAGE

        asyncio.run(run())

    def test_who_saw_another_first_session_refuses(self, tmp_path: Path) -> None:
        """A coordinator that begins again, with another history of the first session, and the same key."""

        async def run() -> None:
            honest = tmp_path / "honest"
            async with serving(honest) as service:
                two = Two(service, FIVE, tmp_path)
                first, _ = await played_first(two)
            async with serving(tmp_path / "again") as service:
                forked = Two(service, FIVE, tmp_path)
                merge = first.merge
                assert isinstance(merge, RangeMerge)
                again = await forked.open(merge, session=first.session, opened_at_s=first.opened_at_s + 1)
                elsewhere = dataclasses.replace(forked, home=tmp_path / "strangers")
                ending = _ended_when_here(forked, again.session, 4)
                await asyncio.gather(elsewhere.contribute_all(again.session, FIVE[:4]), ending)
                basis = forked.basis(again)
                second = forked.second(again, basis, names(FIVE[:4]))
                await forked.open_second(second)
                with pytest.raises(RemoteProtocolError) as caught:
                    await forked.contribute(second.session, FIVE[0])
                assert caught.value.reason is RejectReason.LOG_FORKED
                assert await forked.received(second.session) == 0

        asyncio.run(run())

    def test_after_a_one_shot_session_the_log_needs_witnesses(self) -> None:
        """Its contributors left before the close: without witnesses nothing they know themselves fixes who was in."""
        keys = one_shot.contributor_keys(5)
        plain = one_shot.session_of(keys)
        session = OneShotSession(dataclasses.replace(plain.parameters, merge=RANGE), plain.roster)
        everybody = [one_shot.contribute(session, key) for key in keys]
        result = dataclasses.replace(one_shot.result_of(session, 5), aggregate=(AggregateFile(BASIS_FILE, bytes(32)),))
        evidence = one_shot.evidence_of(session, one_shot.close_of(session, everybody), result)
        merge = projection(names(keys), session.parameters.session)
        following = dataclasses.replace(
            session.parameters,
            session=second_session(session.parameters.session, 0),
            merge=merge,
            min_contributors=5,
        )
        second = OneShotSession(following, session.roster)
        leaves = tuple(Accepted(session.positions[each.key.public_bytes], each.signed).to_bytes() for each in everybody)

        class Shown:
            def __init__(self, policy: LogPolicy) -> None:
                self.log_policy = policy
                self.port = self

            async def details(self, _: bytes) -> SessionDetails:
                view = log.join(session.parameters, self.log_policy, evidence)
                return SessionDetails(session, merging_of(RANGE), view, None)

            async def closed_list(self, _: bytes) -> ClosedList:
                return ClosedList(evidence, leaves)

        details = SessionDetails(second, merging_of(merge), None, None)
        for policy, reason in ((one_shot.WITNESSED, None), (LogPolicy.without_witnesses(), "LOG_UNWITNESSED")):
            if reason is None:
                found = asyncio.run(library.followed(Shown(policy), details, keys[0].public_bytes))
                assert found.first.contributors == frozenset(names(keys))
            else:
                with pytest.raises(LocalProtocolError, match=reason):
                    asyncio.run(library.followed(Shown(policy), details, keys[0].public_bytes))


async def open_frozen(two: Two, named: bytes, sent: bytes) -> None:
    """Ask for a session with frozen tensors of this digest, and hand over these."""
    module = dataclasses.replace(MODULE, scales={"scaled-b": 0})
    manifest = Manifest("tiny-base", "", "CAUSAL_LM", 4, False, "refuse", (module,))
    merging = UpdateMerging.of(FrozenMerge(BOUND, named), manifest, counts_clipping=True)
    plain = parameters_of(two.service.key, two.identities, RANGE)
    parameters = dataclasses.replace(
        plain,
        merge=merging.merge,
        adapter=merging.digest,
        layout=merging.layout.digest,
        encoding=dataclasses.replace(plain.encoding, dimension=merging.layout.dimension),
    )
    request = request_of(plain, two.identities, fixed=sent)
    request.parameters = parameters.to_bytes()
    request.layout = canonical.encode(merging.layout.to_json_value())
    request.adapter = canonical.encode(merging.to_json_value())
    await open_session(two.service.state, request, 30.0)


async def killed(_: Participation) -> None:
    raise asyncio.CancelledError


def seen_of(service: RunningService, session: bytes) -> set[bytes]:
    """Identities of which the coordinator holds anything signed in a session."""
    host = service.registry._hosts[session]
    return {row.signed.statement.identity for row in host.rows.values() if hasattr(row, "signed")}


# Strangers, pilots, other adapters, other attempts.


class TestWhoMayTakePart:
    def test_strangers_cannot_spoil_the_second_session(self, tmp_path: Path) -> None:
        """One of the roster who was not in the first sum; also past the client library, and after a restart."""

        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, _ = await played_first(two, FIVE[:4])
                second = two.second(first, two.basis(first), names(FIVE[:4]))
                await two.open_second(second)
                with pytest.raises(LocalProtocolError) as local:
                    await two.contribute(second.session, FIVE[4])
                assert local.value.reason is RejectReason.NOT_ADMITTED
                assert await self.advertised(two, second, FIVE[4]) is RejectReason.NOT_ADMITTED
            async with serving(tmp_path / "coordinator") as service:
                two = dataclasses.replace(two, service=service)
                assert await self.advertised(two, second, FIVE[4]) is RejectReason.NOT_ADMITTED
                # Nobody else is waited for, and it becomes whole.
                assert (await two.contribute_all(second.session, FIVE[:4]))[0].contributors == 4

        asyncio.run(run())

    @staticmethod
    async def advertised(two: Two, parameters: PairwiseOpen, identity) -> RejectReason:
        """Why the coordinator refuses keys of this identity, whose own machine would send them."""
        async with await two.connected() as source:
            details = await source.details(parameters.session)
            context = pairwise_client.ClientContext(identity, details.session, LENIENT, source.log_policy)
            (effect,) = pairwise_client.start(context, details.view, CountingRng(b"stranger")).effects
            assert isinstance(effect, PairwiseSend)
            with pytest.raises(RemoteProtocolError) as caught:
                await source.port.send(parameters.session, effect.message)
            return caught.value.reason

    def test_the_coordinator_of_a_one_shot_session_takes_nothing_of_a_stranger(self) -> None:
        async def run() -> None:
            played = await open_one_shot(5, lambda _: np.zeros(20, np.float32))
            *four, stranger = played.contributors
            plain = played.session
            parameters = dataclasses.replace(plain.parameters, merge=projection(each.identity for each in four))
            only = frozenset(each.identity for each in four)
            session = OneShotSession(parameters, plain.roster, only)
            assert session.most_contributors == 4
            signed = stranger.contribution.signed
            header = dataclasses.replace(signed.statement, session=session.digest)
            message = dataclasses.replace(
                stranger.contribution, signed=one_shot.signed_by(key_of("contributor 4"), header)
            )
            with pytest.raises(RemoteProtocolError) as caught:
                admission.admit(session, played.host.rows, played.host.driver.state, admission.placeholder(message))
            assert caught.value.reason is RejectReason.NOT_ADMITTED
            await played.close()

        asyncio.run(run())

    def test_the_coordinator_takes_no_commitment_of_a_stranger(self) -> None:
        everybody = one_shot_client.KEYS
        plain = one_shot_client.one_shot_session(
            opening=one_shot_client.AUTHORITY, merge=projection(names(everybody[:4]))
        )
        session = OneShotSession(plain.parameters, plain.roster, frozenset(names(everybody[:4])))
        rows = {row_key(0, RowKind.LOG): LogRow(session.entry, 0)}
        for number, key in enumerate(everybody):
            event = CommitContribution(one_shot_client.signed_header(session, number))
            if number < 4:
                admission.admit(session, rows, Committing(0, 0), event)
                continue
            with pytest.raises(RemoteProtocolError) as caught:
                admission.admit(session, rows, Committing(0, 0), event)
            assert caught.value.reason is RejectReason.NOT_ADMITTED, key

    def test_who_may_take_part_cannot_be_other_than_the_open_entry_says(self) -> None:
        plain = one_shot_client.one_shot_session(merge=projection(names(one_shot_client.KEYS[:4])))
        with pytest.raises(RemoteProtocolError) as caught:
            OneShotSession(plain.parameters, plain.roster, frozenset(names(one_shot_client.KEYS)))
        assert caught.value.reason is RejectReason.OTHER_CONTRIBUTORS

    def test_pilots_refuse_the_second_session_and_others_the_first(self, tmp_path: Path) -> None:
        identities = tuple(key_of(f"id{i}") for i in range(10))
        first_ones = pilots(identities)
        others = [each for each in identities if each not in first_ones]

        async def refused(two: Two, session: bytes, identity) -> RejectReason:
            with pytest.raises(LocalProtocolError) as caught:
                await two.contribute(session, identity)
            assert await two.received(session) == 0
            return caught.value.reason

        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, identities, tmp_path)
                first = await two.open(PILOTS)
                assert await refused(two, first.session, others[0]) is RejectReason.NOT_ADMITTED
                await two.contribute_all(first.session, first_ones)
                basis = two.basis(first)
                second = two.second(first, basis, [])
                await two.open_second(second)
                assert await refused(two, second.session, first_ones[0]) is RejectReason.NOT_ADMITTED
                # With another share the pilots would be others.
                for attempt, change in ((1, {"share": Fraction(1, 1000)}), (2, {"seed": b"t" * 32})):
                    lying = two.second(first, basis, [], attempt, **change)
                    await two.open_lying(lying, basis)
                    with pytest.raises(ProtocolError):
                        await two.contribute(lying.session, first_ones[0])
                    assert await two.received(lying.session) == 0

        asyncio.run(run())

    def test_only_pilots_join_a_one_shot_session_of_pilots(self) -> None:
        merge = PilotMerge(BOUND, SEED, 6, 1, Fraction(1, 2))
        session = one_shot_client.one_shot_session(merge=merge)
        drawn = pilots(one_shot_client.KEYS, merge)
        assert 0 < len(drawn) < 5
        for number, key in enumerate(one_shot_client.KEYS):
            if key in drawn:
                one_shot_client.Speaker(session, number)
                continue
            with pytest.raises(LocalProtocolError) as caught:
                one_shot_client.Speaker(session, number)
            assert caught.value.reason is RejectReason.NOT_ADMITTED

    def test_no_session_is_opened_for_fewer_pilots_than_it_needs(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                few = dataclasses.replace(PILOTS, share=Fraction(1, 1000))
                assert len(pilots(FIVE, few)) < 3
                with pytest.raises(RemoteProtocolError, match="min_contributors: 3, of whom"):
                    await two.open(few)

        asyncio.run(run())

    def test_a_coordinator_takes_no_keys_of_whoever_is_no_pilot(self) -> None:
        keys = stage.sorted_keys(7)
        session = cohort.session_of(keys, dimension=7)
        merge = PilotMerge(BOUND, SEED, 6, 1, Fraction(1, 2))
        session = dataclasses.replace(session, parameters=dataclasses.replace(session.parameters, merge=merge))
        drawn = pilots(keys, merge)
        assert 0 < len(drawn) < 7
        assert session.most_contributors == len(drawn)

        async def run() -> dict[bytes, RejectReason | None]:
            played = await cohort.open_cohort(session, keys, lambda at: cohort.one_hot(7, at), LENIENT)
            view = log.join(session.parameters, cohort.NO_WITNESSES, played.host.evidence())
            # What a client signs that does not know of pilots.
            naive = dataclasses.replace(
                session, parameters=dataclasses.replace(session.parameters, merge=RangeMerge(BOUND, SEED, 6))
            )
            found: dict[bytes, RejectReason | None] = {}
            for key in keys:
                context = pairwise_client.ClientContext(key, naive, LENIENT, cohort.NO_WITNESSES)
                opened = dataclasses.replace(view, entries=(naive.entry,))
                (effect,) = pairwise_client.start(context, opened, CountingRng(key.public_bytes)).effects
                statement = dataclasses.replace(effect.message.signed.statement, session=session.digest)
                message = dataclasses.replace(effect.message, signed=stage.signed_by(key, statement))
                try:
                    pairwise_admission.admit(session, played.host.rows, played.host.driver.state, message)
                    found[key.public_bytes] = None
                except RemoteProtocolError as error:
                    found[key.public_bytes] = error.reason
            await played.host.close()
            return found

        found = asyncio.run(run())
        expected = {key.public_bytes: None if key in drawn else RejectReason.NOT_ADMITTED for key in keys}
        assert found == expected


class TestTheSameAdapterOnce:
    def test_another_adapter_is_refused_in_the_second_session(self, tmp_path: Path) -> None:
        """The difference of the two sums would be the projection of what changed."""

        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, _ = await played_first(two)
                second = two.second(first, two.basis(first), names(FIVE))
                await two.open_second(second)
                with pytest.raises(LocalProtocolError) as caught:
                    await two.contribute(second.session, FIVE[0], two.adapter(FIVE[1]))
                assert caught.value.reason is RejectReason.OTHER_ADAPTER
                # Nor with a store that knows nothing of the first session.
                elsewhere = dataclasses.replace(two, home=tmp_path / "elsewhere")
                with pytest.raises(StaleStoreError):
                    await elsewhere.contribute(second.session, FIVE[0])
                assert await two.received(second.session) == 0

        asyncio.run(run())

    def test_until_it_has_joined_somebody_may_change_its_adapter(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first = await two.open(RANGE)
                one, another = two.adapter(FIVE[0]), two.adapter(FIVE[1])
                async with await two.connected() as source:

                    async def joined(adapter: Path) -> None:
                        participation = await source.contribute(
                            first.session, adapter, FIVE[0], tmp_path / "clients", LENIENT
                        )
                        await participation.close()

                    with pytest.MonkeyPatch.context() as patched:
                        patched.setattr(Participation, "join", killed)
                        with pytest.raises(asyncio.CancelledError):
                            await joined(one)
                    await joined(another)
                    await joined(another)
                    with pytest.raises(LocalProtocolError) as caught:
                        await joined(one)
                    assert caught.value.reason is RejectReason.OTHER_ADAPTER

        asyncio.run(run())

    def test_another_attempt_is_joined_only_after_one_that_failed(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with serving(tmp_path / "coordinator") as service:
                two = Two(service, FIVE, tmp_path)
                first, _ = await played_first(two)
                basis = two.basis(first)
                attempts = [two.second(first, basis, names(FIVE), attempt) for attempt in range(2)]
                await two.open_second(attempts[0])
                async with await two.connected() as source:
                    begun = await source.contribute(
                        attempts[0].session, two.adapter(FIVE[0]), FIVE[0], tmp_path / "clients", LENIENT
                    )
                    taking_part = asyncio.ensure_future(begun.result())
                    while not await two.received(attempts[0].session):
                        await asyncio.sleep(0)
                    taking_part.cancel()
                    await asyncio.gather(taking_part, return_exceptions=True)
                    await begun.close()
                    await two.open_lying(attempts[1], basis)
                    with pytest.raises(LocalProtocolError) as caught:
                        await two.contribute(attempts[1].session, FIVE[0])
                    assert caught.value.reason is RejectReason.WRONG_PHASE
                    assert await two.received(attempts[1].session) == 0
                    # Four are missing when the phase ends: it cannot become whole any more.
                    host = await service.registry.find(attempts[0].session)
                    await host.end_phase(Phase.ADVERTISE_KEYS)
                    await host.ended()
                    assert abort_reason(host.evidence().entries) == OTHER_CONTRIBUTORS
                    found = await source.second_session_of(await source.details(first.session))
                    assert found.session.parameters == attempts[1]
                assert (await two.contribute_all(attempts[1].session, FIVE))[0].contributors == 5

        asyncio.run(run())

    def test_after_a_close_there_is_no_other_attempt_of_pilot_basis(self, tmp_path: Path) -> None:
        """A closed sum may have been opened behind the abort; the next would be over others, and show the difference.

        In two-session it is over the same people.
        """
        identities = tuple(key_of(f"id{i}") for i in range(10))
        others = [each for each in identities if each not in pilots(identities)]
        refused = asyncio.run(self.tried_again(tmp_path / "pilots", PILOTS, identities, others))
        assert refused is RejectReason.WRONG_PHASE
        assert asyncio.run(self.tried_again(tmp_path / "all", RANGE, FIVE, FIVE)) is None

    @staticmethod
    async def tried_again(home: Path, merge: LinearMerge, identities, others) -> RejectReason | None:
        """Close an attempt and abort it before anybody unmasks; why the next is refused, if it is."""
        async with serving(home / "coordinator") as service:
            two = Two(service, identities, home)
            first = await two.open(merge)
            came = [each for each in identities if admits(merge, each.public_bytes)]
            await two.contribute_all(first.session, came)
            basis = two.basis(first)
            attempts = [two.second(first, basis, names(came), attempt) for attempt in range(2)]
            await two.open_second(attempts[0])
            await closed_and_aborted(two, attempts[0].session, others)
            await two.open_second(attempts[1])
            async with await two.connected() as source:
                try:
                    begun = await source.contribute(
                        attempts[1].session, two.adapter(others[0]), others[0], home / "clients", LENIENT
                    )
                except LocalProtocolError as error:
                    return error.reason
                await begun.close()
            return None


async def closed_and_aborted(two: Two, session: bytes, among: Iterable[object]) -> None:
    """Run a session up to its close; nobody learns of confirmations, so nobody answers, and it is aborted."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    host = await two.service.registry.find(session)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GrpcCoordinator, "confirmations", never)
        taking_part = [asyncio.ensure_future(two.contribute(session, each)) for each in among]
        while not isinstance(host.driver.state, Confirming | Unmasking):
            await host.driver.wait_for_change(host.driver.version)
        for each in taking_part:
            each.cancel()
        await asyncio.gather(*taking_part, return_exceptions=True)
    for phase in (Phase.CONSISTENCY_CHECK, Phase.UNMASK):
        await host.end_phase(phase)
    await host.ended()
    assert host.status().phase is Phase.ABORTED


def test_the_published_basis_is_what_everybody_projects_on(tmp_path: Path) -> None:
    """A coordinator that hands out another file than the first session's result names."""

    async def run() -> None:
        async with serving(tmp_path / "coordinator") as service:
            two = Two(service, FIVE, tmp_path)
            first, _ = await played_first(two)
            basis = two.basis(first)
            second = two.second(first, basis, names(FIVE))
            assert read_fixed(second.merge, merging_of(second.merge).manifest, basis)
            altered = bytearray(basis)
            altered[-1] ^= 1
            await two.open_lying(second, bytes(altered))
            with pytest.raises(RemoteProtocolError) as caught:
                await two.contribute(second.session, FIVE[0])
            assert caught.value.reason is RejectReason.LOG_MISMATCH
            assert await two.received(second.session) == 0

    asyncio.run(run())
