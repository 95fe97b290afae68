"""Federated rounds: everybody trains from the same weights, a session merges, everybody folds what is merged in."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from federated_finetune.corpus import KindText
from federated_finetune.sessions import Federation, Merged
from federated_finetune.strategies import STRANGERS, Starts, Strategy
from federated_finetune.training import Job, Settings, Start, fold, losses, seed_of, train, update_error

Losses = dict[str, float]
"""On the held-out text of each kind, nats per byte."""
_T = TypeVar("_T")


def mean_of(found: Losses) -> float:
    """Over the kinds."""
    return sum(found.values()) / len(found)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one strategy came to; ``error`` is that of the merged update, against the mean of all."""

    losses: Losses
    merged: Merged
    error: float


@dataclass
class Play:
    """One seed: the text, where models are, who computes, and who merges.

    Attributes:
        settings: of this seed.
        texts: of each kind.
        private: where models and adapters go.
        pool: trains and measures.
        service: merges, one round at a time.
        trained: adapters by the weights and starts that they are from; strategies share those of their first round.
    """

    settings: Settings
    texts: Sequence[KindText]
    private: Path
    pool: Executor
    service: Federation
    trained: dict[tuple[Path, Starts, int], "asyncio.Task[list[Path]]"] = field(default_factory=dict)
    merging: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def base(self) -> Path:
        """The base's weights."""
        return self.private / "base"

    @property
    def held_out(self) -> dict[str, npt.NDArray[np.int64]]:
        """By kind."""
        return {text.name: text.held_out.numpy() for text in self.texts}

    def tokens_of(self, contributor: int) -> npt.NDArray[np.int64]:
        """What contributor number so and so trains on: the kinds take turns."""
        part, kind = divmod(contributor, len(self.texts))
        tokens: npt.NDArray[np.int64] = self.texts[kind].parts[part].numpy()
        return tokens

    async def call(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Have the pool do it."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    async def measure(self, model: Path) -> Losses:
        """The losses of a model."""
        return await self.call(losses, self.settings, model, self.held_out)

    async def train_one(self, model: Path, start: Start, contributor: int, round_: int) -> Path:
        """One contributor's adapter."""
        name = seed_of(model.name, start, contributor, round_)
        directory = self.private / "adapters" / f"{name:08x}"
        seed = seed_of("order", self.settings.seed, round_, contributor)
        job = Job(model, self.tokens_of(contributor), start, directory, seed, self.settings)
        await self.call(train, job)
        return directory

    async def adapters(self, model: Path, starts: Starts, round_: int) -> list[Path]:
        """Everybody's adapters from these weights, trained once."""
        key = (model, starts, round_)
        if key not in self.trained:
            self.trained[key] = asyncio.ensure_future(self._train_all(*key))
        return await self.trained[key]

    async def _train_all(self, model: Path, starts: Starts, round_: int) -> list[Path]:
        everybody = range(self.settings.contributors)
        return await asyncio.gather(
            *(self.train_one(model, starts.of(self.settings, round_, each), each, round_) for each in everybody)
        )

    async def example(self, starts: Starts, round_: int) -> Path:
        """The untrained adapter that the service hands out, or shows."""
        start = Starts(own_rank=False, own_a=False, trained=starts.trained).of(self.settings, round_, 0)
        directory = self.private / "adapters" / f"example-{seed_of(start):08x}"
        if not directory.exists():
            untrained = Job(self.base, np.zeros(0, np.int64), start, directory, 0, self.settings.untrained())
            await self.call(train, untrained)
        return directory

    async def strategy(self, strategy: Strategy, out: Path) -> list[Round]:
        """All rounds of one strategy; merged adapters go below ``out``."""
        model, found = self.base, list[Round]()
        for round_ in range(1, self.settings.rounds + 1):
            adapters = await self.adapters(model, strategy.starts, round_)
            example, to = await self.example(strategy.starts, round_), out / strategy.key / str(round_)
            async with self.merging:
                merged = await self.service.merge(strategy.words(self.settings), example, adapters, to)
            after = self.private / f"{strategy.key}-{round_}"
            await self.call(fold, self.settings, model, to, after)
            error = await self.call(update_error, adapters, to)
            found.append(Round(await self.measure(after), merged, error))
            model = after
            print(f"  {strategy.name}, round {round_}: loss {mean_of(found[-1].losses):.3f}", flush=True)
        return found

    async def alone(self, contributor: int) -> list[Losses]:
        """The losses of one contributor who goes on by itself, with as many steps."""
        model, found = self.base, list[Losses]()
        for round_ in range(1, self.settings.rounds + 1):
            if round_ == 1:
                adapter = (await self.adapters(model, STRANGERS, round_))[contributor]
            else:
                adapter = await self.train_one(
                    model, STRANGERS.of(self.settings, round_, contributor), contributor, round_
                )
            after = self.private / f"alone-{contributor}-{round_}"
            await self.call(fold, self.settings, model, adapter, after)
            found.append(await self.measure(after))
            model = after
        return found
