"""The strategies that are compared: how adapters start, and what the operator asks `secagg session open` for."""

from dataclasses import dataclass

from federated_finetune.sessions import LEAST
from federated_finetune.training import Settings, Start, seed_of


@dataclass(frozen=True, slots=True)
class Starts:
    """How the adapters of one round start.

    Attributes:
        own_rank: everybody chooses a rank of its own; otherwise all have ``Settings.rank``.
        own_a: everybody draws an A of its own; otherwise the service hands out one.
        trained: marks of the factors that are trained.
    """

    own_rank: bool
    own_a: bool
    trained: tuple[str, ...] = (".lora_A.", ".lora_B.")

    def of(self, settings: Settings, round_: int, contributor: int) -> Start:
        """That of one contributor; None of these depends on the strategy, so that they can be compared."""
        rank = settings.ranks[contributor % len(settings.ranks)] if self.own_rank else settings.rank
        whose = contributor if self.own_a else "everybody"
        return Start(rank, seed_of("a", settings.seed, round_, whose), self.trained)


STRANGERS = Starts(own_rank=True, own_a=True)
"""People who never met: any rank, any start."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One line of the figure.

    Attributes:
        key: in losses.json.
        name: for people.
        starts: of the adapters.
        options: of ``secagg session open``; what stands in braces follows from the settings.
    """

    key: str
    name: str
    starts: Starts
    options: str

    def words(self, settings: Settings) -> list[str]:
        """The options for these settings."""
        rank, full = settings.rank_out, min(settings.hidden, settings.intermediate)
        everybody = settings.contributors - 2
        options = self.options.format(rank=rank, core=4 * rank, full=full, norm=settings.update_norm)
        return [*options.split(), "--min-contributors", str(LEAST if self.is_pilot else everybody)]

    @property
    def is_pilot(self) -> bool:
        """Whether some contributors are only in the first of two sums."""
        return "pilot-basis" in self.options


FACTORS = "--merge factors --clip-norm 100 --value-bits 24"
"""One range for all coordinates, so more bits for each: that of the others follows from the norm of the updates."""

STRATEGIES = (
    Strategy("dense", "dense: the mean itself", STRANGERS, "--merge dense --rank-out {full} --clip-norm {norm}"),
    Strategy(
        "sketch", "sketch", STRANGERS, "--merge sketch --rank-out {rank} --core-columns {core} --clip-norm {norm}"
    ),
    Strategy("two-session", "two-session", STRANGERS, "--merge two-session --rank-out {rank} --clip-norm {norm}"),
    Strategy(
        "pilot-basis",
        "pilot basis",
        STRANGERS,
        "--merge pilot-basis --rank-out {rank} --pilot-share 1/2 --clip-norm {norm}",
    ),
    Strategy("factors-own", "factor mean, own starts", Starts(own_rank=False, own_a=True), FACTORS),
    Strategy("factors-shared", "factor mean, one start", Starts(own_rank=False, own_a=False), FACTORS),
    Strategy(
        "frozen-a",
        "frozen A",
        Starts(own_rank=False, own_a=False, trained=(".lora_B.",)),
        "--merge frozen-a --clip-norm {norm}",
    ),
)
