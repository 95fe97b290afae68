"""The log's side of witnessing: honest witnesses over HTTP, and witnesses that lie, stall or send rubbish."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from secagg.crypto.notes import cosign, open_checkpoint, witness_key
from secagg.identity.tls import create_certificate
from secagg.runtime.clock import SystemClock
from secagg.runtime.witness import origin_hash
from secagg.services.cosigners import (
    MAX_ANSWER_BYTES,
    CosignTimes,
    HttpCosigners,
    PolicyNotMetError,
    RollbackShownError,
    WitnessFault,
)
from secagg.services.witness import WitnessServer
from secagg.transcript.note import Note, NoteError, NoteSignature
from secagg.transcript.policy import GroupRule, LogPolicy, LogRule, WitnessRule
from secagg.transcript.witness_request import AddCheckpoint
from tests.support.lying_witness import Asked, Talk, answering, answering_each, hanging, lying, repeating, saying
from tests.support.witness_process import LOG, in_event_loop, serving, witness_of
from tests.support.witnessed_log import NOW_S, ORIGIN, FixedClock, History, key_of

QUICK = CosignTimes(timeout_s=30.0, grace_s=0.05)
IMPATIENT = CosignTimes(timeout_s=0.3, grace_s=0.05)


def policy_of(urls: Sequence[str], threshold: int) -> LogPolicy:
    """Witnesses w1, w2, ... at these addresses, of which ``threshold`` are enough."""
    names = [f"w{number}" for number in range(1, len(urls) + 1)]
    rules = [
        WitnessRule(name, witness_key(name, key_of(name).public_bytes), url)
        for name, url in zip(names, urls, strict=True)
    ]
    return LogPolicy((LogRule(LOG.key),), tuple(rules), (GroupRule("enough", threshold, tuple(names)),), "enough")


def cosigners(urls: Sequence[str], threshold: int, times: CosignTimes = QUICK) -> HttpCosigners:
    return HttpCosigners(policy_of(urls, threshold), LOG.key, FixedClock(), 0, times)


async def ask(asking: HttpCosigners, size: int, history: History = LOG) -> tuple[NoteSignature, ...]:
    return await asking.cosign(Note.parse(history.note(size)), lambda old: history.proof(old, size))


def signers(lines: Sequence[NoteSignature], size: int, history: History = LOG) -> list[str]:
    """Who of w1 to w5 has validly cosigned."""
    note = Note.parse(history.note(size)).with_signatures(lines)
    keys = [witness_key(f"w{number}", key_of(f"w{number}").public_bytes) for number in range(1, 6)]
    found = open_checkpoint(note.to_bytes(), history.key, keys).public_keys
    assert len(found) == len(lines)
    return [key.name for key in keys if key.public_key in found]


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


async def witnesses(stack: AsyncExitStack, *names: str) -> list[str]:
    return [url(await stack.enter_async_context(serving(witness_of(name)))) for name in names]


# Honest witnesses.


@in_event_loop
async def test_a_growing_log_is_cosigned_by_all_in_the_policy_s_order():
    async with AsyncExitStack() as stack:
        asking = cosigners(await witnesses(stack, "w1", "w2", "w3"), 3)
        for size in (0, 3, 4, 20):
            lines = await ask(asking, size)
            assert [line.name for line in lines] == signers(lines, size) == ["w1", "w2", "w3"]


@in_event_loop
async def test_the_same_checkpoint_can_be_asked_for_again_also_after_a_restart():
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2")
        for asking in (cosigners(urls, 2), cosigners(urls, 2)):
            assert signers(await ask(asking, 7), 7) == ["w1", "w2"]
            assert signers(await ask(asking, 7), 7) == ["w1", "w2"]


@in_event_loop
async def test_a_witness_that_missed_some_checkpoints_is_asked_from_the_size_it_names():
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2")
        await ask(cosigners(urls[:1], 1), 9)  # w2 is away
        published = HttpCosigners(policy_of(urls, 2), LOG.key, FixedClock(), 9, QUICK)
        assert signers(await ask(published, 12), 12) == ["w1", "w2"]


@in_event_loop
async def test_what_a_witness_has_seen_is_remembered():
    honest = witness_of("w1")
    bodies = []

    def answer(asked: Asked) -> tuple[int, bytes]:
        bodies.append(AddCheckpoint.parse(asked.body).old_size)
        response = honest.add_checkpoint(asked.body)
        return response.status, response.body

    async with lying(answering_each(answer)) as recorded:
        asking = cosigners([recorded.url], 1)
        for size in (3, 5, 9):
            await ask(asking, size)
    assert bodies == [0, 3, 5]


@in_event_loop
async def test_no_witness_is_asked_where_the_policy_has_none():
    asking = HttpCosigners(LogPolicy.without_witnesses(), LOG.key, FixedClock())
    assert await ask(asking, 5) == ()


@in_event_loop
async def test_a_met_policy_waits_for_the_rest_no_longer_than_the_grace():
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2")
        stalled = await stack.enter_async_context(lying(hanging))
        asking = cosigners([*urls, stalled.url], 2, CosignTimes(timeout_s=3600.0, grace_s=0.05))
        async with asyncio.timeout(10):
            assert signers(await ask(asking, 5), 5) == ["w1", "w2"]


# One witness lies, the others are honest: it changes nothing.


def line(signer: str, history: History, size: int, time_s: int = NOW_S, name: str = "w1") -> bytes:
    """A cosignature line that claims the name and key id of w1, made by whoever."""
    made = cosign(key_of(signer), name, history.checkpoint(size).to_text(), time_s)
    key_id = witness_key("w1", key_of("w1").public_bytes).key_id
    return NoteSignature("w1", key_id, made.signature).to_line().encode()


def raw_line(signature: bytes) -> bytes:
    return NoteSignature("w1", witness_key("w1", key_of("w1").public_bytes).key_id, signature).to_line().encode()


HONEST = line("w1", LOG, 5)
OTHER_KEY_UNDER_ITS_OWN_NAME = cosign(key_of("w2"), "w2", LOG.checkpoint(5).to_text(), NOW_S).to_line().encode()
SIGNATURE = (WitnessFault.BAD_COSIGNATURE,)
ANSWER = (WitnessFault.BAD_ANSWER,)
OK = b"HTTP/1.1 200 OK\r\n"
LIES: dict[str, tuple[Talk, tuple[WitnessFault, ...]]] = {
    "another key": (answering(200, line("w2", LOG, 5)), SIGNATURE),
    "another witness's line": (answering(200, OTHER_KEY_UNDER_ITS_OWN_NAME), SIGNATURE),
    "another checkpoint": (answering(200, line("w1", LOG, 4)), SIGNATURE),
    "a fork": (answering(200, line("w1", LOG.fork(2), 5)), SIGNATURE),
    "another log": (answering(200, line("w1", History.of(5, "other.example"), 5)), SIGNATURE),
    "another time than signed": (answering(200, raw_line(struct.pack(">Q", NOW_S + 1) + bytes(64))), SIGNATURE),
    "a short signature": (answering(200, raw_line(b"x")), SIGNATURE),
    "a plain signature of the log": (answering(200, LOG.note(5).split(b"\n\n")[1]), SIGNATURE),
    "a good line and a bad one": (answering(200, HONEST + line("w2", LOG, 5)), SIGNATURE),
    "the same line twice": (answering(200, HONEST * 2), SIGNATURE),
    "sixty-five lines": (answering(200, b"".join(raw_line(b"%d" % n) for n in range(65))), SIGNATURE),
    "no line": (answering(200, b""), SIGNATURE),
    "a whole note": (answering(200, LOG.note(5)[:-1] + b"\n" + HONEST), SIGNATURE),
    "an empty line first": (answering(200, b"\n" + HONEST), SIGNATURE),
    "not text": (answering(200, b"\xff\xfe\xfd\n"), SIGNATURE),
    "the far future": (answering(200, line("w1", LOG, 5, NOW_S + 10**6)), (WitnessFault.BAD_TIME,)),
    "the end of time": (answering(200, line("w1", LOG, 5, 2**63 - 1)), (WitnessFault.BAD_TIME,)),
    "long ago": (answering(200, line("w1", LOG, 5, NOW_S - 10**6)), (WitnessFault.BAD_TIME,)),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9.7\r\n"), ANSWER),
    "nothing": (saying(b""), ANSWER),
    "a status that is none": (saying(b"HTTP/1.1 -200 OK\r\n\r\n" + HONEST), ANSWER),
    "cut off": (saying(OK + b"Content-Length: 500\r\n\r\n" + HONEST), ANSWER),
    "cut off in a chunk": (saying(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + HONEST), ANSWER),
    "a huge body": (answering(200, HONEST + bytes(MAX_ANSWER_BYTES)), ANSWER),
    "a body without end": (repeating(OK + b"\r\n", bytes(1 << 16)), ANSWER),
    "headers without end": (repeating(OK, b"X: y\r\n" * 4096), ANSWER),
    "a redirect": (answering(307, b"", "Location: http://127.0.0.1:1/add-checkpoint\r\n"), (WitnessFault.REFUSED,)),
    "a refusal": (answering(403, HONEST), (WitnessFault.REFUSED,)),
    "a conflict over nothing": (answering(409, b""), (WitnessFault.CLAIMS_OTHER,)),
    "a proof that does not please": (answering(422, b"no\n"), (WitnessFault.CLAIMS_OTHER,)),
    "a larger log": (answering(409, b"6\n"), (WitnessFault.CLAIMS_MORE,)),
    "the largest log": (answering(409, b"9223372036854775807\n"), (WitnessFault.CLAIMS_MORE,)),
    "a size that is none": (answering(409, b"06\n"), (WitnessFault.CLAIMS_OTHER,)),
    "always the same size": (answering(409, b"3\n"), ANSWER),
    "a line at a conflict": (answering(409, HONEST), (WitnessFault.CLAIMS_OTHER,)),
}


@pytest.mark.parametrize("lie", LIES)
@in_event_loop
async def test_a_lie_of_one_witness_is_not_counted_and_not_believed(lie):
    talk, faults = LIES[lie]
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(lying(talk))
        async with serving(witness_of("w2")) as port, serving(witness_of("w3")) as other:
            urls = [liar.url, url(port), url(other)]
            assert signers(await ask(cosigners(urls, 2), 5), 5) == ["w2", "w3"]
            with pytest.raises(PolicyNotMetError) as refused:
                await ask(cosigners([liar.url, url(port), "http://127.0.0.1:1"], 2), 5)
            failures = refused.value.failures
            assert failures["w1"].fault in faults
            assert failures["w3"].fault is WitnessFault.UNREACHABLE
            assert set(failures) == {"w1", "w3"}
            assert f"w1 {failures['w1'].fault.value}" in str(refused.value)
            assert refused.value.reason == f"POLICY_NOT_MET w1:{failures['w1'].fault.name} w3:UNREACHABLE"
            assert len(liar.asked) <= 8


@in_event_loop
async def test_a_cosignature_that_is_honest_counts_whoever_sends_it_and_however_it_is_sent():
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HONEST), HONEST)
    for talk in (
        answering(200, HONEST),
        saying(OK + b"\r\n" + HONEST),
        saying(chunked),
        saying(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked),
    ):
        async with lying(talk) as sent:
            assert signers(await ask(cosigners([sent.url], 1), 5), 5) == ["w1"]


@in_event_loop
async def test_lines_of_strangers_are_left_out_of_what_is_published():
    stranger = cosign(key_of("stranger"), "stranger", LOG.checkpoint(5).to_text(), NOW_S).to_line().encode()
    async with lying(answering(200, stranger + HONEST)) as sent:
        lines = await ask(cosigners([sent.url], 1), 5)
    assert [each.name for each in lines] == ["w1"]


@pytest.mark.parametrize("talk", [hanging, repeating(b"H", b"")], ids=["hangs", "stops"])
@in_event_loop
async def test_a_witness_that_does_not_answer_is_too_late_and_costs_no_more_than_the_timeout(talk):
    async with lying(talk) as stalled, serving(witness_of("w2")) as port, asyncio.timeout(10):
        with pytest.raises(PolicyNotMetError) as refused:
            await ask(cosigners([stalled.url, url(port)], 2, IMPATIENT), 5)
        assert {name: each.fault for name, each in refused.value.failures.items()} == {"w1": WitnessFault.TOO_LATE}


@in_event_loop
async def test_a_witness_that_answers_a_byte_at_a_time_is_too_late():
    async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with lying(drip) as dripping, asyncio.timeout(10):
        with pytest.raises(PolicyNotMetError) as refused:
            await ask(cosigners([dripping.url], 1, IMPATIENT), 5)
    assert refused.value.failures["w1"].fault is WitnessFault.TOO_LATE


@in_event_loop
async def test_one_key_behind_two_addresses_counts_once():
    """w1 also answers in the place of w2, under either name."""
    as_w2 = cosign(key_of("w1"), "w2", LOG.checkpoint(5).to_text(), NOW_S)
    forged = replace(as_w2, key_id=witness_key("w2", key_of("w2").public_bytes).key_id)
    for body in (HONEST, as_w2.to_line().encode(), forged.to_line().encode()):
        async with serving(witness_of("w1")) as port, lying(answering(200, body)) as double:
            with pytest.raises(PolicyNotMetError) as refused:
                await ask(cosigners([url(port), double.url], 2), 5)
            assert refused.value.failures["w2"].fault is WitnessFault.BAD_COSIGNATURE


@in_event_loop
async def test_nothing_goes_to_an_address_that_is_not_in_the_policy():
    async with lying(answering(200, HONEST)) as elsewhere:
        location = f"Location: {elsewhere.url}/add-checkpoint\r\nRefresh: 0; url={elsewhere.url}\r\n"
        for status in (301, 302, 303, 307, 308):
            async with lying(answering(status, b"", location)) as redirecting:
                with pytest.raises(PolicyNotMetError):
                    await ask(cosigners([redirecting.url], 1), 5)
                assert [asked.path for asked in redirecting.asked] == ["/add-checkpoint"]
        assert elsewhere.asked == []


@in_event_loop
async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    async with lying(answering(200, HONEST)) as proxy, serving(witness_of("w1")) as port:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert signers(await ask(cosigners([url(port)], 1), 5), 5) == ["w1"]
        assert proxy.asked == []


# Our own log went back in time, or is run twice.


@in_event_loop
async def test_a_log_that_went_back_is_told_by_its_own_signature():
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2", "w3")
        await ask(cosigners(urls, 3), 9)
        with pytest.raises(RollbackShownError) as stopped:
            await ask(cosigners(urls, 2), 7)
        evidence = stopped.value.evidence
        assert open_checkpoint(evidence, LOG.key, ()).checkpoint == LOG.checkpoint(9)


@pytest.mark.parametrize("size", [9, 12])
@in_event_loop
async def test_a_log_that_went_back_and_grew_again_is_told_by_its_own_signature(size):
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2", "w3")
        await ask(cosigners(urls, 3), 9)
        with pytest.raises(RollbackShownError) as stopped:
            await ask(cosigners(urls, 2), size, LOG.fork(7))
        assert open_checkpoint(stopped.value.evidence, LOG.key, ()).checkpoint == LOG.checkpoint(9)


@in_event_loop
async def test_one_witness_s_proof_is_enough_to_stop_whoever_else_cosigned():
    async with AsyncExitStack() as stack:
        urls = await witnesses(stack, "w1", "w2", "w3")
        await ask(cosigners(urls[:1], 1), 9)
        with pytest.raises(RollbackShownError) as stopped:
            await ask(cosigners(urls, 2, CosignTimes(30.0, 10.0)), 7)
        assert stopped.value.witness == "w1"


MONITOR = f"/{origin_hash(ORIGIN)}/checkpoint"


def showing(note: bytes, conflict: tuple[int, bytes]) -> Talk:
    return answering_each(lambda asked: (200, note) if asked.path == MONITOR else conflict)


NOT_EVIDENCE = {
    "signed by a stranger": History(LOG.entries, ORIGIN, "stranger").note(9),
    "of another log": History.of(9, "other.example").note(9),
    "our own past": LOG.note(3),
    "our own present": LOG.note(5),
    "the empty log": LOG.note(0),
    "rubbish": b"\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("shown", NOT_EVIDENCE)
@pytest.mark.parametrize("conflict", [(409, b"9\n"), (422, b""), (409, b"")], ids=["more", "422", "409"])
@in_event_loop
async def test_one_liar_cannot_stop_a_log_that_did_nothing_wrong(shown, conflict):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(lying(showing(NOT_EVIDENCE[shown], conflict)))
        async with serving(witness_of("w2")) as port, serving(witness_of("w3")) as other:
            urls = [liar.url, url(port), url(other)]
            lines = await ask(cosigners(urls, 2, CosignTimes(30.0, 10.0)), 5)
            assert signers(lines, 5) == ["w2", "w3"]
            # Nor does it while another witness is away: asking again can help.
            with pytest.raises(PolicyNotMetError):
                await ask(cosigners([liar.url, url(port), "http://127.0.0.1:1"], 2), 5)


@pytest.mark.parametrize("conflict", [(409, b"9\n"), (422, b""), (409, b"")], ids=["more", "422", "409"])
@in_event_loop
async def test_claims_that_nobody_shows_stop_no_log_however_many_make_them(conflict):
    """A word would cost them nothing, and the log everything: it asks again."""
    async with AsyncExitStack() as stack:
        claiming = [await stack.enter_async_context(lying(answering(*conflict))) for _ in range(2)]
        urls = [*(each.url for each in claiming), *await witnesses(stack, "w3")]
        with pytest.raises(PolicyNotMetError) as refused:
            await ask(cosigners(urls, 2), 5)
    assert set(refused.value.failures) == {"w1", "w2"}


# TLS, and what is refused before anything is sent.


@in_event_loop
async def test_a_witness_behind_tls_must_have_a_certificate_for_its_name(tmp_path, monkeypatch):
    create_certificate(tmp_path, ["localhost"], SystemClock().now_s(), 30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    served = WitnessServer(witness_of("w1"), _Silent())
    server = await asyncio.start_server(served._connected, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(PolicyNotMetError) as refused:
            await ask(cosigners([f"https://localhost:{port}"], 1), 5)
        assert refused.value.failures["w1"].fault is WitnessFault.UNREACHABLE
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.crt"))
        assert signers(await ask(cosigners([f"https://localhost:{port}"], 1), 5), 5) == ["w1"]
        with pytest.raises(PolicyNotMetError):
            await ask(cosigners([f"https://127.0.0.1:{port}"], 1), 5)
    finally:
        server.close()
        await asyncio.gather(*served._connections, return_exceptions=True)


class _Silent:
    def event(self, name: str, **fields: str | int) -> None:
        pass


@in_event_loop
async def test_only_a_checkpoint_of_our_log_is_sent():
    async with lying(answering(200, HONEST)) as asked:
        asking = cosigners([asked.url], 1)
        for note in (
            b"",
            History.of(5, "other.example").note(5),
            History(LOG.entries, ORIGIN, "stranger").note(5),
        ):
            with pytest.raises(NoteError):
                await asking.cosign(Note.parse(note), lambda _: ())
        assert asked.asked == []


@in_event_loop
async def test_a_fault_of_our_own_is_not_taken_for_a_witness_s():
    def broken(old_size: int) -> tuple[bytes, ...]:
        raise LookupError("no such tree")

    async with serving(witness_of("w1")) as port:
        with pytest.raises(LookupError):
            await cosigners([url(port)], 1).cosign(Note.parse(LOG.note(5)), broken)
