"""One-line weakenings of the protocol, each of which the simulator has to find within a stated number of seeds."""

from __future__ import annotations

from dataclasses import dataclass

from simulations.world.plan import Protocol

_PAIRWISE = "secagg/protocol/pairwise"
_ONE_SHOT = "secagg/protocol/one_shot"


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old`` stands exactly once in ``file``; with ``new`` in its place the session is weaker.

    Attributes:
        name: what is weaker, in words.
        file: below the directory of the packages.
        old: a piece of the file.
        new: what stands there instead.
        protocol: of the sessions that show it.
        invariants: which of them see it; any of these is enough.
        seeds: within so many, from 0 on, it has to be found.
    """

    name: str
    file: str
    old: str
    new: str
    protocol: Protocol
    invariants: tuple[str, ...]
    seeds: int = 150


_SUCCEED = "sessions-that-can-succeed-do"
_LOST = "nothing-acknowledged-lost"
_RECORD = "record-verifiable"
_ACCUSED = "honest-are-not-accused"

MUTANTS: tuple[Mutant, ...] = (
    # Durable first, then seen.
    Mutant(
        "what is acknowledged need not be durable",
        "secagg/runtime/driver.py",
        "        await self._apply(transition)\n        return transition.state",
        "        self._apply(transition).send(None)\n        return transition.state",
        Protocol.PAIRWISE,
        (_LOST, _SUCCEED, "sessions-end"),
    ),
    Mutant(
        "rows are not stored",
        "secagg/runtime/driver.py",
        "{key: self._persistence.encode(row) for key, row in transition.rows.items()},",
        "{},",
        Protocol.PAIRWISE,
        (_LOST, _SUCCEED, _RECORD, "sessions-end", "no-errors"),
    ),
    Mutant(
        "effects that were not carried out are forgotten in a crash",
        "secagg/runtime/driver.py",
        "            self._carry_out(identifier, self._persistence.decode(effect))",
        "            self._persistence.decode(effect)",
        Protocol.PAIRWISE,
        (_SUCCEED, "sessions-end", "clients-end"),
    ),
    Mutant(
        "deadlines stop at a crash of the coordinator",
        "secagg/runtime/session_host.py",
        "                self._add_staged(row.signed.statement.identity)\n        self._start_timer()",
        "                self._add_staged(row.signed.statement.identity)",
        Protocol.PAIRWISE,
        ("sessions-end", _SUCCEED, "clients-end"),
    ),
    Mutant(
        "members are not told after a crash what they were not told before it",
        "secagg/runtime/one_shot_host.py",
        "        if not self.is_over:\n            self._openers.start()",
        "        if self.is_over:\n            self._openers.start()",
        Protocol.ONE_SHOT,
        (_SUCCEED,),
    ),
    # Who counts, and how often.
    Mutant(
        "an upload that comes twice counts twice",
        f"{_PAIRWISE}/coordinator.py",
        "    row = admission.staged_row(moment.rows, position, event.digest)\n    if moment.rows.get(key) == row:",
        "    row = admission.staged_row(moment.rows, position, event.digest)\n    if not row:",
        Protocol.PAIRWISE,
        (_SUCCEED, _RECORD),
    ),
    Mutant(
        "a one-shot upload that comes twice counts twice",
        f"{_ONE_SHOT}/coordinator.py",
        "    row = admission.staged_row(moment.rows, position, event.digest)\n    if moment.rows.get(key) == row:",
        "    row = admission.staged_row(moment.rows, position, event.digest)\n    if not row:",
        Protocol.ONE_SHOT,
        (_SUCCEED, _RECORD),
    ),
    Mutant(
        "a message that comes twice counts twice",
        f"{_PAIRWISE}/coordinator.py",
        "    if moment.rows.get(row_key(position, kind)) == row:",
        "    if not row:",
        Protocol.PAIRWISE,
        (_SUCCEED, _ACCUSED, "no-errors"),
    ),
    Mutant(
        "the last of two messages counts",
        f"{_PAIRWISE}/admission.py",
        "        if known == row:\n            return position, kind, known\n        raise",
        "        if known:\n            return position, kind, row\n        raise",
        Protocol.PAIRWISE,
        (_SUCCEED, _RECORD, _ACCUSED, "no-errors", "sessions-end"),
    ),
    Mutant(
        "the coordinator closes below the minimum",
        f"{_PAIRWISE}/coordinator.py",
        "    if len(headers) < moment.session.parameters.min_contributors:",
        "    if not headers:",
        Protocol.PAIRWISE,
        (_RECORD, _ACCUSED),
    ),
    Mutant(
        "the coordinator of a one-shot session closes below the minimum",
        f"{_ONE_SHOT}/coordinator.py",
        "    if len(accepted) < session.parameters.min_contributors:",
        "    if len(accepted) < 2:",
        Protocol.ONE_SHOT,
        (_RECORD, "no-small-sum"),
    ),
    Mutant(
        "a client opens one less than the minimum",
        f"{_PAIRWISE}/lists.py",
        "    if len(accepted) < session.parameters.min_contributors:",
        "    if len(accepted) < session.parameters.min_contributors - 1:",
        Protocol.PAIRWISE,
        ("no-small-sum",),
    ),
    Mutant(
        "a member opens less than the minimum",
        f"{_ONE_SHOT}/member.py",
        "    if not least <= close.count <=",
        "    if not 0 <= close.count <=",
        Protocol.ONE_SHOT,
        ("no-small-sum",),
    ),
    # Uploads and their hashes.
    Mutant(
        "any bytes are the upload",
        f"{_PAIRWISE}/admission.py",
        "    if header.signed.statement.upload != digest:",
        "    if not digest:",
        Protocol.PAIRWISE,
        (_SUCCEED, "sessions-end"),
    ),
    Mutant(
        "the sum need not have the signed hash",
        "secagg/runtime/limb_sums.py",
        "        total = self._settle(accepted)\n        if total.is_as_signed():",
        "        total = self._settle(accepted)\n        if total:",
        Protocol.ONE_SHOT,
        (_RECORD,),
    ),
    Mutant(
        "the sum is without the upload that came last",
        "secagg/runtime/limb_sums.py",
        "        for index in accepted:\n            self._add(index, accepted[index])",
        "        for index in list(accepted)[:-1]:\n            self._add(index, accepted[index])",
        Protocol.PAIRWISE,
        (_SUCCEED, _RECORD, "one-hot-sums"),
    ),
    # Shares and members.
    Mutant(
        "a member that complains holds the share",
        f"{_ONE_SHOT}/coordinator.py",
        "row = HoldingRow(before.held | held, before.refused | (bit ^ held))",
        "row = HoldingRow(before.held | bit, before.refused)",
        Protocol.ONE_SHOT,
        (_SUCCEED,),
        300,
    ),
    Mutant(
        "a contribution counts where any named member holds its share",
        f"{_ONE_SHOT}/tables.py",
        "tuple(at for at in staged if holdings(rows, at).held & together == together)",
        "tuple(at for at in staged if holdings(rows, at).held | together)",
        Protocol.ONE_SHOT,
        (_SUCCEED,),
        300,
    ),
    Mutant(
        "the coordinator waits for no member",
        f"{_ONE_SHOT}/coordinator.py",
        "    if settled == len(staged):\n        return _close_settling(moment, rows)\n    deadline_s",
        "    if settled <= len(staged):\n        return _close_settling(moment, rows)\n    deadline_s",
        Protocol.ONE_SHOT,
        (_SUCCEED,),
    ),
    Mutant(
        "a sum opens that does not certify",
        "secagg/derive/ring_opening.py",
        "        self.mask.certify_and_unmask(lanes, secret_sum, self.contributors, self.public_key)",
        "        try:\n"
        "            self.mask.certify_and_unmask(lanes, secret_sum, self.contributors, self.public_key)\n"
        "        except CertificationError:\n"
        "            lanes >>= np.uint64(self.mask.shift)",
        Protocol.ONE_SHOT,
        (_RECORD, "one-hot-sums", _SUCCEED),
    ),
    Mutant(
        "a member's bit is its neighbour's",
        f"{_ONE_SHOT}/member.py",
        "        bitmap[position // 8] |= 1 << position % 8",
        "        bitmap[position // 8] |= 2 << position % 7",
        Protocol.ONE_SHOT,
        (_SUCCEED, "no-errors", "one-set-opened"),
    ),
    # Masks.
    Mutant(
        "shares of contributors and of dropouts change places",
        f"{_PAIRWISE}/client.py",
        "        if held.index in accepted\n",
        "        if held.index not in accepted\n",
        Protocol.PAIRWISE,
        (_ACCUSED, _SUCCEED),
    ),
    Mutant(
        "masks of who dropped out stay in the sum",
        "secagg/derive/opening.py",
        "            add.extend(more_to_add)",
        "            add.extend(())",
        Protocol.PAIRWISE,
        (_SUCCEED,),
    ),
    Mutant(
        "masks of who dropped out are taken away once more",
        "secagg/derive/opening.py",
        "boxes.pair_seed(root, cohort.session, index), add, dropped",
        "boxes.pair_seed(root, cohort.session, index), subtract, dropped",
        Protocol.PAIRWISE,
        (_SUCCEED,),
    ),
    Mutant(
        "a share is dealt for the point of the next index",
        f"{_PAIRWISE}/dealing.py",
        "points = np.array(dealer.neighbours, dtype=np.uint64) + np.uint64(1)",
        "points = np.array(dealer.neighbours, dtype=np.uint64) + np.uint64(2)",
        Protocol.PAIRWISE,
        (_SUCCEED,),
    ),
    # Closes.
    Mutant(
        "another close is confirmed and nobody minds",
        f"{_PAIRWISE}/client.py",
        "        if statement.close != close:",
        "        if not statement.close:",
        Protocol.PAIRWISE,
        ("one-close-answered",),
    ),
    Mutant(
        "who confirmed remembers nothing of it",
        f"{_PAIRWISE}/client.py",
        "return Transition(confirmed, (Send(ConfirmClose(",
        "return Transition(state, (Send(ConfirmClose(",
        Protocol.PAIRWISE,
        (_SUCCEED, "clients-end", "no-errors"),
    ),
    Mutant(
        "no witness need cosign",
        "secagg/protocol/log.py",
        "    if not policy.is_met_by(witnessed.public_keys):",
        "    if not policy:",
        Protocol.PAIRWISE,
        ("states-agree",),
    ),
    Mutant(
        "one end of an edge may go without its mask",
        f"{_PAIRWISE}/admission.py",
        "            rejected |= {index, min(partners)}",
        "            rejected |= set()",
        Protocol.PAIRWISE,
        (_ACCUSED, _RECORD, "sessions-end"),
    ),
    Mutant(
        "the time for uploads is over when it begins",
        f"{_PAIRWISE}/coordinator.py",
        "            return dataclasses.replace(state, deadline_s=moment.now_s + deadlines.upload_s)",
        "            return dataclasses.replace(state, deadline_s=moment.now_s)",
        Protocol.PAIRWISE,
        (_SUCCEED,),
    ),
)
