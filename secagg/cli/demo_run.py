"""The demo session itself: keys, services and contributors as processes, and the check of the sum."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secagg.cli.demo_course import CALL_S, Course, Opened, Running, Say, instruct, listen
from secagg.cli.demo_merge import MergeErrors
from secagg.cli.demo_noise import NoiseFound, noise_found
from secagg.cli.demo_plan import DemoFailedError, largest_difference, write_contributors
from secagg.cli.demo_process import ran, serving, started
from secagg.cli.demo_site import ORIGIN, Site, Trust, found
from secagg.cli.demo_witnesses import witnesses
from secagg.client import Result, connect
from secagg.crypto.notes import log_key
from secagg.derive.result import FloatVector
from secagg.remote_operator import open_session


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo reports.

    ``opened`` says who opened the sum, where institutions did; ``errors`` how good the merge is, where it says so.
    """

    session: str
    contributors: list[int]
    dropped: list[dict[str, str | int]]
    max_abs_diff_steps: float
    noise: NoiseFound | None
    errors: MergeErrors | None
    merged: str
    record: str
    policy: str
    opened: Opened
    verified: str

    def value(self) -> dict[str, Any]:
        """For programs."""
        apart = {"opened", "errors"}
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name not in apart}
        noise = None if self.noise is None else self.noise.value()
        errors = {} if self.errors is None else {"merge": self.errors.value()}
        return {**fields, "noise": noise, **errors, **self.opened.value}


async def run_demo(course: Course, directory: Path, private: Path, say: Say) -> DemoOutcome:
    """Run one session; inputs and result go to ``directory``, keys and stores to ``private``.

    Raises:
        DemoFailedError: a party failed, or the sum is not exact.
    """
    plan = course.plan
    say(f"{plan.clients} contributors with the adapters in {directory / 'contributors'}")
    await asyncio.to_thread(write_contributors, plan, directory / "contributors", course.merge.examples)
    site = await asyncio.to_thread(found, course.enrolled, directory, private)
    async with contextlib.AsyncExitStack() as stack:
        site = await stack.enter_async_context(_witnessed(site))
        pins, coordinator, contributors = await asyncio.gather(
            course.start(site, stack),
            stack.enter_async_context(started("secagg.cli.main", *_serve(site))),
            asyncio.gather(*(stack.enter_async_context(started("secagg.cli.demo_client")) for _ in plan.numbers)),
        )
        site = dataclasses.replace(site, port=(await serving(coordinator, "the coordinator"))["port"])
        say(
            f"coordinator on {site.address}, TLS, key {site.coordinator_key.hex()[:16]}..., "
            f"{len(site.policy.witnesses)} witnesses"
        )
        remote = await stack.enter_async_context(await connect(*site.how_to_connect))
        session = await _open(course, site)
        site.write_trust(plan.min_contributors, pins, course.noise)
        say(
            f"session {session.hex()[:16]}... open: at least {plan.min_contributors} contributions, "
            f"up to {plan.max_corrupt} of them may collude with the coordinator"
        )
        for k, process in zip(plan.numbers, contributors, strict=True):
            await instruct(process, site.task(plan, session, k, Trust(pins, course.noise)))
        work = [listen(k, process, plan, say) for k, process in zip(plan.numbers, contributors, strict=True)]
        running = Running(remote.port, site, session, work)
        await course.conduct(running)
        result = await remote.result(session)
        opened = await course.opened(running)
    inputs = await asyncio.to_thread(_inputs, course, site, result)
    noise = None if course.noise is None else await asyncio.to_thread(noise_found, result, inputs)
    difference = await asyncio.to_thread(_largest_difference, result, inputs, noise)
    errors = await asyncio.to_thread(course.merge.errors, plan, site.contributors, site.merged)
    say("checking the published record")
    return DemoOutcome(
        session=session.hex(),
        contributors=plan.contributors,
        dropped=[{"client": k, "phase": plan.leaving[k].phase} for k in sorted(plan.leaving)],
        max_abs_diff_steps=difference,
        noise=noise,
        errors=errors,
        merged=str(site.merged),
        record=str(site.record),
        policy=str(site.audit),
        opened=opened,
        verified=await _verified(site.record, site.audit),
    )


@contextlib.asynccontextmanager
async def _witnessed(site: Site) -> AsyncIterator[Site]:
    """The site with witnesses that run, and the coordinator told of them."""
    async with witnesses(site.private, log_key(ORIGIN, site.coordinator_key)) as policy:
        yield site.with_witnesses(policy)


async def _verified(record: Path, audit: Path) -> str:
    """What ``secagg-verify check`` says of the record, run as anybody would."""
    code, report, errors = await ran("verifier", "check", str(record), "--policy", str(audit))
    if code != 0:
        raise DemoFailedError(f"the record does not verify:\n{report}{errors}")
    return report


def _serve(site: Site) -> tuple[str, ...]:
    return ("coordinator", "serve", "--config", str(site.config), "--format", "json")


async def _open(course: Course, site: Site) -> bytes:
    """Open the session through the operator's socket."""
    request = await asyncio.to_thread(site.request, course.plan, course.options, course.merge)
    return await open_session(site.state, request, CALL_S)


def _inputs(course: Course, site: Site, result: Result) -> dict[int, FloatVector]:
    """Write the merged adapter; what those sent whose contributions are in it."""
    contributors = course.plan.contributors
    if result.contributors != len(contributors):
        raise DemoFailedError(f"{result.contributors} contributions in the sum, expected {len(contributors)}")
    result.write_adapter(site.merged)
    return course.merge.messages(course.plan, site.contributors, result.details.merging)


def _largest_difference(result: Result, inputs: dict[int, FloatVector], noise: NoiseFound | None) -> float:
    """How far the mean is from the plain mean of the inputs, in quantisation steps: less than one, but for noise."""
    parameters = result.details.session.parameters
    encoding = parameters.encoding
    scale = encoding.quantiser(parameters.noise).scale
    difference = largest_difference(result.mean, inputs, encoding.clip_norm, scale)
    if noise is None and difference >= 1:
        raise DemoFailedError(f"the mean is {difference:.2f} quantisation steps off")
    return difference
