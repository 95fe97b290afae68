"""The log in memory: order, batches, witnesses that fail, files that fail, and what is refused on opening."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from secagg.crypto.notes import open_checkpoint, sign_checkpoint, witness_key
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.runtime.log_record import parse_names, tile_data, tiles_between
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.ports import StaleLogError, StoreError
from secagg.runtime.transparency_log import CosignError, LogRolledBackError, NoCosigners, TransparencyLog
from secagg.transcript import merkle
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.evidence import MAX_SEGMENT_ENTRIES
from secagg.transcript.growing_tree import GrowingTree
from secagg.transcript.note import NoteSignature
from secagg.transcript.tiles import bundle_path, bundles_of, decode_bundle, tile_path, tiles_of
from tests.support.faults import FaultTime, InjectedFaultError
from tests.support.logs import KEY, LOG_KEY, ORIGIN, WITNESS, Witness, entries, entry, head_of, open_log, root

BORDERS = (255, 256, 257, 65_536, 70_000)


class Pauses:
    """A pause that takes no time and is remembered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


class Gate(Witness):
    """A witness that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def cosign(self, checkpoint, consistency):
        lines = await super().cosign(checkpoint, consistency)
        await self.open.wait()
        return lines


class FaultyFiles(MemoryLogFiles):
    """Files whose ``fail_at``-th writing call fails, before or after it has done its work."""

    def __init__(self, fail_at: int, when: FaultTime) -> None:
        super().__init__()
        self._fail_at, self._when = fail_at, when
        self.calls = 0

    async def _pass(self, work: Callable) -> None:
        self.calls += 1
        fails = self.calls == self._fail_at
        if not fails or self._when is FaultTime.AFTER:
            await work()
        if fails:
            raise InjectedFaultError(f"call {self.calls}")

    async def settle(self):
        await self._pass(super().settle)

    async def add(self, files):
        await self._pass(lambda: super(FaultyFiles, self).add(files))

    async def keep_signed(self, note):
        await self._pass(lambda: super(FaultyFiles, self).keep_signed(note))

    async def publish(self, checkpoint):
        await self._pass(lambda: super(FaultyFiles, self).publish(checkpoint))

    async def remove_partials(self, paths):
        await self._pass(lambda: super(FaultyFiles, self).remove_partials(paths))


def run(check) -> object:
    return asyncio.run(check())


# What an append does.


def test_entries_get_their_places_in_order_and_each_has_one():
    async def check() -> None:
        log = open_log(MemoryLogFiles())
        assert await log.append([b"a", b"b"]) == 1
        assert await log.append([b"b", b"c", b"c"]) == 2
        assert await log.append([b"c", b"a"]) == 0
        assert log.size == 3
        assert log.evidence(0).entries == (b"a", b"b", b"c")
        assert [log.find(each) for each in (b"a", b"b", b"c", b"d")] == [0, 1, 2, None]
        await log.close()

    run(check)


def test_what_was_appended_is_under_the_published_checkpoint_when_the_call_returns():
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files)
        for size in (1, 2, 3, 255, 256, 257, 300):
            await log.append(entries(0, size))
            head = head_of(files.checkpoint())
            assert (head.size, head.root) == (size, root(size))
            assert files.last_signed() == files.checkpoint()
        await log.close()

    run(check)


@pytest.mark.parametrize("size", BORDERS)
def test_the_files_are_exactly_the_tiles_of_the_format(size):
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files)
        await log.append(entries(0, size))
        assert set(files.names()) == {tile_path(*tile) for tile in tiles_of(size)} | {
            bundle_path(*bundle) for bundle in bundles_of(size)
        }
        held = [each for bundle in bundles_of(size) for each in decode_bundle(files.read(bundle_path(*bundle)))]
        assert held == entries(0, size)
        hashes = [merkle.leaf_hash(each) for each in held]
        for level, index, width in tiles_of(size):
            data = files.read(tile_path(level, index, width))
            span = 256**level
            expected = b"".join(
                merkle.root_of_hashes(hashes[(index * 256 + i) * span : (index * 256 + i + 1) * span])
                for i in range(width)
            )
            assert data == expected
        await log.close()

    run(check)


def test_tiles_between_two_sizes_are_those_that_the_larger_has_and_the_smaller_has_not():
    sizes = (0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000, 131_072)
    for old in sizes:
        for size in sizes:
            if old <= size:
                expected = sorted(set(tiles_of(size)) - set(tiles_of(old)))
                assert sorted(tiles_between(old, size)) == expected, (old, size)


def test_evidence_holds_all_entries_from_an_index_and_verifies_against_its_checkpoint():
    async def check() -> None:
        log = open_log(MemoryLogFiles())
        await log.append(entries(0, 600))
        for start in (0, 1, 255, 256, 300, 512, 599, 600):
            evidence = log.evidence(start)
            assert evidence.entries == tuple(entries(start, 600))
            frontier = merkle.Frontier.from_hashes(evidence.start, evidence.prefix)
            for each in evidence.entries:
                frontier.append(merkle.leaf_hash(each))
            assert frontier.root == head_of(evidence.checkpoint).root
        for index in (0, 255, 256, 599):
            path, checkpoint = log.inclusion(index)
            merkle.verify_inclusion(merkle.leaf_hash(entry(index)), index, 600, path, head_of(checkpoint).root)
        for old in (0, 1, 256, 599, 600):
            merkle.verify_consistency(old, root(old), 600, root(600), log.consistency(old))
        await log.close()

    run(check)


def test_what_does_not_exist_is_refused():
    async def check() -> None:
        log = open_log(MemoryLogFiles())
        for ask in (lambda: log.evidence(0), lambda: log.inclusion(0), lambda: log.consistency(1)):
            with pytest.raises(StoreError):
                ask()
        await log.append(entries(0, 3))
        for ask in (
            lambda: log.evidence(4),
            lambda: log.evidence(-1),
            lambda: log.inclusion(3),
            lambda: log.inclusion(-1),
            lambda: log.consistency(4),
            lambda: log.consistency(-1),
        ):
            with pytest.raises(StoreError):
                ask()
        for bad in ([], [b"x" * 65_536]):
            with pytest.raises(StoreError, match="entries: expected"):
                await log.append(bad)
        assert await log.append([b"", b"y" * 65_535]) == 4
        await log.close()

    run(check)


def test_a_segment_has_an_end():
    async def check() -> None:
        log = open_log(MemoryLogFiles())
        await log.append(entries(0, MAX_SEGMENT_ENTRIES + 1))
        with pytest.raises(StoreError, match="not within the last"):
            log.evidence(0)
        assert len(log.evidence(1).entries) == MAX_SEGMENT_ENTRIES
        await log.close()

    run(check)


# Many at once.


def test_many_appends_at_once_share_checkpoints_and_every_one_is_answered_with_its_place():
    async def check() -> None:
        files, witness = MemoryLogFiles(), Witness()
        log = open_log(files, witness)
        places = await asyncio.gather(*(log.append([entry(number), b"shared"]) for number in range(500)))
        evidence = log.evidence(0)
        assert sorted(evidence.entries) == sorted([*entries(0, 500), b"shared"])
        assert {evidence.entries[place] for place in places} == {b"shared"}
        assert len(witness.shown) == 1
        await log.close()

    run(check)


def test_what_comes_while_cosignatures_are_under_way_waits_for_the_next_checkpoint():
    async def check() -> None:
        gate = Gate()
        log = open_log(MemoryLogFiles(), gate)
        first = asyncio.create_task(log.append([b"first"]))
        while not gate.shown:
            await asyncio.sleep(0)
        later = [asyncio.create_task(log.append([entry(number)])) for number in range(50)]
        again = asyncio.create_task(log.append([b"first"]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(task.done() for task in (first, again, *later)), "answered before it was cosigned"
        assert log.size == 0
        assert log.find(b"first") is None
        gate.open.set()
        assert await first == 0
        assert await again == 0
        assert sorted(await asyncio.gather(*later)) == list(range(1, 51))
        assert [head_of(note).size for note in gate.shown] == [1, 51]
        await log.close()

    run(check)


def test_a_caller_that_goes_away_takes_nobody_along():
    async def check() -> None:
        gate = Gate()
        log = open_log(MemoryLogFiles(), gate)
        gone, stays = asyncio.create_task(log.append([b"gone"])), asyncio.create_task(log.append([b"stays"]))
        while not gate.shown:
            await asyncio.sleep(0)
        gone.cancel()
        gate.open.set()
        assert await stays == 1
        assert log.find(b"gone") == 0
        await log.close()

    run(check)


# Witnesses.


def test_cosignatures_are_in_the_published_checkpoint_and_verify():
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files, Witness())
        await log.append([b"a"])
        key = witness_key("witness.example", WITNESS.public_bytes)
        witnessed = open_checkpoint(files.checkpoint(), LOG_KEY, [key])
        assert witnessed.public_keys == {WITNESS.public_bytes}
        assert log.evidence(0).checkpoint == files.checkpoint()
        await log.close()

    run(check)


def test_witnesses_that_fail_for_a_while_are_asked_again_with_the_same_head_and_longer_pauses():
    async def check() -> None:
        witness, pauses, said = Witness([CosignError("TOO_FEW")] * 9), Pauses(), []
        log = open_log(MemoryLogFiles(), witness, lambda *what: said.append(what), pause=pauses)
        assert await log.append([b"a"]) == 0
        assert pauses.seconds == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert said == [("log-not-cosigned", "TOO_FEW")] * 9
        assert len(set(witness.shown)) == 1
        assert await log.append([b"b"]) == 1
        await log.close()

    run(check)


def test_lines_that_would_spoil_the_checkpoint_are_not_published():
    class Spoiler(Witness):
        async def cosign(self, checkpoint, consistency):
            lines = await super().cosign(checkpoint, consistency)
            if len(self.shown) > 3:
                return lines
            if len(self.shown) > 2:
                return (NoteSignature(ORIGIN, LOG_KEY.key_id, bytes(64)),)
            return tuple(NoteSignature(f"w{number}", b"abcd", bytes(72)) for number in range(64))

    async def check() -> None:
        files, said = MemoryLogFiles(), []
        log = open_log(files, Spoiler(), lambda *what: said.append(what), pause=Pauses())
        await log.append([b"a"])
        assert said == [("log-not-cosigned", "NoteError")] * 3
        assert head_of(files.checkpoint()).size == 1
        await log.close()

    run(check)


def test_a_witness_that_knows_more_stops_the_log_for_good():
    async def check() -> None:
        files, said = MemoryLogFiles(), []
        log = open_log(files, Witness([LogRolledBackError()]), lambda *what: said.append(what))
        results = await asyncio.gather(*(log.append([entry(number)]) for number in range(5)), return_exceptions=True)
        results += await asyncio.gather(log.append([b"later"]), return_exceptions=True)
        assert len(results) == 6
        assert [type(result) for result in results] == [StoreError] * 6
        assert {str(result) for result in results} == {log._refusal}
        assert said == [("log-rolled-back", "LogRolledBackError")]
        assert files.checkpoint() is None
        await log.close()

    run(check)


def test_what_waits_in_the_queue_when_the_log_stops_is_answered_too():
    async def check() -> None:
        gate = Gate()
        gate._failures = [CosignError("LATER"), LogRolledBackError()]
        queued: list[asyncio.Task] = []

        async def pause(_: float) -> None:
            queued.append(asyncio.create_task(log.append([b"queued"])))
            await asyncio.sleep(0)

        log = open_log(MemoryLogFiles(), gate, pause=pause)
        for result in (*await asyncio.gather(log.append([b"first"]), return_exceptions=True), *queued):
            outcome = result if isinstance(result, Exception) else (await asyncio.wait([result]), result.exception())[1]
            assert isinstance(outcome, StoreError)
        await log.close()

    run(check)


def test_a_head_is_in_the_private_file_before_a_witness_sees_it_and_its_entries_before_that():
    async def check() -> None:
        files = MemoryLogFiles()

        def watch(note) -> None:
            assert files.last_signed() == note.to_bytes()
            head = head_of(note.to_bytes())
            held = [
                each for bundle in bundles_of(head.size) for each in decode_bundle(files.read(bundle_path(*bundle)))
            ]
            assert merkle.root(held) == head.root

        log = open_log(files, Witness(watch=watch))
        for end in (1, 255, 257):
            await log.append(entries(0, end))
        await log.close()

    run(check)


def test_the_tiles_are_there_before_the_checkpoint_that_needs_them():
    class Watched(MemoryLogFiles):
        async def publish(self, checkpoint):
            tiles = parse_names(self.names()).tiles
            assert set(tiles_of(head_of(checkpoint).size)) <= tiles
            await super().publish(checkpoint)

    async def check() -> None:
        log = open_log(Watched())
        for end in (1, 255, 256, 513):
            await log.append(entries(0, end))
        await log.close()

    run(check)


# Partial tiles.


def test_partial_tiles_stay_until_the_full_one_is_published():
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files)
        for size in (3, 9, 255):
            await log.append(entries(0, size))
        assert set(files.names()) == {
            f"tile/{place}/000.p/{width}" for place in ("0", "entries") for width in (3, 9, 255)
        }
        await log.append(entries(0, 258))
        await log.append([b"one more"])
        await log.close()
        assert set(files.names()) == {
            "tile/0/000", "tile/0/001.p/2", "tile/0/001.p/3", "tile/1/000.p/1",
            "tile/entries/000", "tile/entries/001.p/2", "tile/entries/001.p/3",
        }  # fmt: skip

    run(check)


def test_partial_tiles_that_a_crash_left_are_removed_with_the_next_append():
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files)
        await log.append(entries(0, 7))
        held = {name: files.read(name) for name in files.names()}
        await log.append(entries(0, 256))
        await log.close()
        files._files.update(held)
        log = open_log(files)
        assert set(held) <= set(files.names())
        await log.append([b"more"])
        await log.append([b"and more"])
        await log.close()
        assert not set(held) & set(files.names())

    run(check)


# Files that fail.


@pytest.mark.parametrize("when", FaultTime)
def test_a_failing_write_fails_the_append_and_the_next_one_goes_on_with_one_history(when):
    async def check(fail_at: int) -> int:
        files, witness, said = FaultyFiles(fail_at, when), Witness(), []
        log = open_log(files, witness, lambda *what: said.append(what))
        failures = 0
        for end in (2, 254, 258, 259):
            while True:
                try:
                    assert await log.append(entries(0, end)) == end - 1
                    break
                except StoreError:
                    failures += 1
        await log.close()
        assert failures <= 1
        assert len(said) <= 1
        heads: dict[int, set[bytes]] = {}
        for note in witness.shown:
            heads.setdefault(head_of(note).size, set()).add(note)
        assert all(len(notes) == 1 for notes in heads.values())
        reopened = open_log(files)
        assert reopened.evidence(0).entries == tuple(entries(0, 259))
        await reopened.close()
        return files.calls

    calls = asyncio.run(check(0))
    assert calls > 16
    for fail_at in range(1, calls + 1):
        asyncio.run(check(fail_at))


def test_what_a_crash_left_unpublished_is_published_before_anything_new():
    async def check() -> None:
        files, gate = MemoryLogFiles(), Gate()
        log = open_log(files, gate)
        waiting = asyncio.create_task(log.append(entries(0, 5)))
        while not gate.shown:
            await asyncio.sleep(0)
        await log.close()
        with pytest.raises(StoreError, match="closed"):
            await waiting
        witness = Witness()
        log = open_log(files, witness)
        assert log.size == 0
        assert await log.append([b"new"]) == 5
        assert witness.shown[0] == gate.shown[0], "the same head, the same bytes"
        assert [head_of(note).size for note in witness.shown] == [5, 6]
        assert log.evidence(0).entries == (*entries(0, 5), b"new")
        await log.close()

    run(check)


def test_a_closed_log_refuses_and_closes_again():
    async def check() -> None:
        log = open_log(MemoryLogFiles())
        await log.append([b"a"])
        await log.close()
        await log.close()
        with pytest.raises(StoreError, match="closed"):
            await log.append([b"b"])
        assert log.evidence(0).entries == (b"a",)

    run(check)


def test_a_bug_elsewhere_leaves_nobody_waiting():
    class Broken(Witness):
        async def cosign(self, checkpoint, consistency):
            raise ZeroDivisionError

    async def check() -> None:
        log = open_log(MemoryLogFiles(), Broken())
        with pytest.raises(StoreError, match="has stopped"):
            await log.append([b"a"])
        with pytest.raises(StoreError, match="has stopped"):
            await log.append([b"b"])
        await log.close()

    run(check)


# What is refused on opening.


def written(size: int = 5) -> MemoryLogFiles:
    async def check() -> MemoryLogFiles:
        files = MemoryLogFiles()
        log = open_log(files)
        await log.append(entries(0, size))
        await log.close()
        return files

    return asyncio.run(check())


def note_over(size: int, key: SigningKey = KEY, origin: str = ORIGIN, found: bytes | None = None) -> bytes:
    return sign_checkpoint(key, Checkpoint(origin, size, found or root(size))).to_bytes()


def without_last_entry(files: MemoryLogFiles) -> None:
    old = written(4)
    files._files = old._files


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without_last_entry, id="entries older than what was signed"),
        pytest.param(lambda files: files._files.clear(), id="no entries at all"),
        pytest.param(lambda files: setattr(files, "_signed", None), id="no private note"),
        pytest.param(lambda files: setattr(files, "_signed", note_over(4)), id="an old private note"),
        pytest.param(lambda files: setattr(files, "_signed", note_over(6)), id="a private note over more"),
        pytest.param(lambda files: setattr(files, "_signed", note_over(5, found=bytes(32))), id="another root signed"),
        pytest.param(
            lambda files: setattr(files, "_checkpoint", note_over(5, found=bytes(32))), id="another root published"
        ),
        pytest.param(
            lambda files: setattr(files, "_checkpoint", note_over(3, found=bytes(32))), id="another old root published"
        ),
    ],
)
def test_files_that_are_older_or_other_than_what_was_signed_are_stale(change):
    files = written()
    change(files)
    with pytest.raises(StaleLogError, match="two histories"):
        open_log(files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: setattr(files, "_checkpoint", b"junk"), "checkpoint: note"),
        (lambda files: setattr(files, "_signed", b"junk\n"), "private note: note"),
        (lambda files: setattr(files, "_checkpoint", files._checkpoint[:-20]), "checkpoint"),
        (
            lambda files: setattr(files, "_checkpoint", note_over(5, origin="other.example")),
            "not the origin of this log",
        ),
        (lambda files: setattr(files, "_checkpoint", note_over(5, key=WITNESS)), "no signature of the log"),
        (lambda files: files._files.update({"tile/entries/000.p/5": b"\x00\x09abc"}), "entries/000.p/5: torn"),
        (lambda files: files._files.update({"tile/entries/000.p/5": b""}), "entries/000.p/5: torn"),
        (lambda files: files._files.update({"tile/entries/000.p/6": b"\x00\x01a" * 5}), "entries/000.p/6: torn"),
        (lambda files: files._files.update({"tile/entries/000.p/2": b"\x00\x01a\x00\x01b"}), "entries/000.p/2: wrong"),
        (lambda files: files._files.update({"tile/entries/001.p/1": b"\x00\x01a"}), "entries/000: missing"),
        (lambda files: files._files.update({"tile/0/000.p/5": bytes(160)}), "tile/0/000.p/5: wrong"),
        (lambda files: files._files.update({"tile/0/000.p/5": b"short"}), "tile/0/000.p/5: torn"),
        (lambda files: files._files.update({"tile/0/000.p/6": bytes(192)}), "tile/0/000.p/6: superfluous"),
        (lambda files: files._files.update({"tile/3/000.p/1": bytes(32)}), "tile/3/000.p/1: superfluous"),
        (lambda files: files._files.pop("tile/0/000.p/5"), "tile/0/000.p/5: missing"),
    ],
)
def test_damaged_and_foreign_files_are_refused_and_left_as_they_are(change, words):
    files = written()
    change(files)
    before = dict(files._files)
    with pytest.raises(StoreError, match=words) as caught:
        open_log(files)
    assert not isinstance(caught.value, StaleLogError)
    assert files._files == before


def test_a_file_in_the_way_is_not_overwritten():
    files = written()

    async def check() -> None:
        log = open_log(files)
        files._files["tile/entries/000.p/6"] = b"\x00\x01z" * 6
        with pytest.raises(StoreError, match=r"000\.p/6"):
            await log.append([b"new"])
        assert files._files["tile/entries/000.p/6"] == b"\x00\x01z" * 6
        assert head_of(files.last_signed()).size == 5
        await log.close()

    run(check)


def test_another_key_or_origin_does_not_open_a_log():
    other = SigningKey(Secret(b"o" * 32))
    for key, origin in ((other, ORIGIN), (KEY, "other.example/log")):
        with pytest.raises(StoreError, match="the key and the origin"):
            TransparencyLog(written(), NoCosigners(), key, origin, lambda *_: None)


def test_names_that_are_no_tiles_do_not_matter():
    files = written()
    files._files |= {"tile/.DS_Store": b"x", "tile/0/readme": b"x", "tile/entries/index.html": b"x"}
    assert open_log(files).size == 5


def test_a_bundle_that_changes_under_an_open_log_is_noticed():
    files = written(300)

    async def check() -> None:
        log = open_log(files)
        data = bytearray(files._files["tile/entries/000"])
        data[3] ^= 1
        files._files["tile/entries/000"] = bytes(data)
        with pytest.raises(StoreError, match="holds other entries"):
            log.evidence(0)
        assert len(log.evidence(256).entries) == 44
        await log.close()

    run(check)


def test_the_log_signs_no_head_that_leaves_its_last_one_behind():
    files = written()

    async def check() -> None:
        log = open_log(files)
        log._state.signed = Checkpoint(ORIGIN, 3, bytes(32))
        with pytest.raises(StoreError, match="do not continue"):
            await log.append([b"new"])
        await log.close()

    run(check)


def test_a_large_log_opens_with_what_it_had():
    async def check() -> None:
        files = MemoryLogFiles()
        log = open_log(files)
        await log.append(entries(0, 70_000))
        await log.close()
        log = open_log(files)
        assert log.size == 70_000
        assert log.find(entry(69_999)) == 69_999
        tree = GrowingTree()
        for number in range(70_000):
            tree.append(merkle.leaf_hash(entry(number)))
        assert head_of(log.evidence(70_000).checkpoint).root == tree.root()
        assert tile_data(tree, (2, 0, 1)) == files.read("tile/2/000.p/1")
        await log.close()

    run(check)
