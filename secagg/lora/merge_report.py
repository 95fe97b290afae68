"""How good a merged adapter is, module by module, from sums alone: ``merge.json`` beside it.

Canonical JSON; integers only, in millionths. What follows from a singular value decomposition is not the same to the
last bit everywhere, so whoever checks a report recomputes it and allows for ``TOLERANCE_PPM``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.transcript import canonical
from secagg.transcript.canonical import JsonValue

REPORT_FILE = "merge.json"
TOLERANCE_PPM = 100
DEGRADED_ERROR = 0.35
"""A module is poor above this estimated error,"""
DEGRADED_SHARE = 0.25
"""and an adapter degraded when more than this part of the energy is in poor modules."""
_PPM = 10**6
_MOST = 2**53 - 1


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """One module; fractions in millionths.

    Attributes:
        path: the module's.
        sent: the names of what was sent of it, in order, joined by ``+``.
        energy_ppm: its part of the squared norm of all merged modules.
        error_ppm: estimated relative error of its merged update.
        scalar_ppm: what the update was multiplied by, because the probe fits it best so.
    """

    path: str
    sent: str
    energy_ppm: int
    error_ppm: int
    scalar_ppm: int


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The whole adapter.

    Attributes:
        strategy: as a person names it.
        contributors: how many adapters are merged.
        scaled_down_ppm: which part of them was scaled down to the session's norm; -1 where noise forbids to count.
        clamped_ppm: which part of all coordinates was clamped; -1 where noise forbids to count.
        modules: in the manifest's order.
    """

    strategy: str
    contributors: int
    scaled_down_ppm: int
    clamped_ppm: int
    modules: tuple[ModuleReport, ...]

    @property
    def degraded_ppm(self) -> int:
        """Which part of the energy is in modules of an estimated error above ``DEGRADED_ERROR``."""
        return sum(module.energy_ppm for module in self.modules if module.error_ppm > DEGRADED_ERROR * _PPM)

    @property
    def is_degraded(self) -> bool:
        """Whether the adapter should not be deployed without another look."""
        return self.degraded_ppm > DEGRADED_SHARE * _PPM

    @property
    def error_ppm(self) -> int:
        """Estimated relative error of the whole adapter: that of the modules, weighted by their energy."""
        square = sum(module.energy_ppm * module.error_ppm**2 for module in self.modules)
        total = sum(module.energy_ppm for module in self.modules)
        return round((square / total) ** 0.5) if total else 0

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        modules: list[JsonValue] = [
            {
                "path": module.path,
                "sent": module.sent,
                "energy_ppm": module.energy_ppm,
                "error_ppm": module.error_ppm,
                "scalar_ppm": module.scalar_ppm,
            }
            for module in self.modules
        ]
        return canonical.encode(
            {
                "type": "merge-report",
                "strategy": self.strategy,
                "contributors": self.contributors,
                "scaled_down_ppm": self.scaled_down_ppm,
                "clamped_ppm": self.clamped_ppm,
                "degraded": int(self.is_degraded),
                "modules": modules,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> MergeReport:
        """The report with these bytes.

        Raises:
            AdapterError: MALFORMED_FILE; it is none.
        """
        try:
            value = canonical.decode(data)
        except canonical.CanonicalError as error:
            raise _refusal(REPORT_FILE, error) from None
        keys = {"type", "strategy", "contributors", "scaled_down_ppm", "clamped_ppm", "degraded", "modules"}
        if not isinstance(value, dict) or value.keys() != keys or value["type"] != "merge-report":
            raise _refusal(REPORT_FILE, value)
        modules = value["modules"]
        if not isinstance(modules, list) or not isinstance(value["strategy"], str):
            raise _refusal("modules", modules)
        report = cls(
            value["strategy"],
            _integer("contributors", value["contributors"], 1),
            _integer("scaled_down_ppm", value["scaled_down_ppm"], -1),
            _integer("clamped_ppm", value["clamped_ppm"], -1),
            tuple(_module(f"modules[{i}]", module) for i, module in enumerate(modules)),
        )
        if value["degraded"] != int(report.is_degraded):
            raise _refusal("degraded", value["degraded"])
        return report

    def difference(self, published: MergeReport) -> str | None:
        """Where ``published`` says something else than this, beyond the tolerance; None where it does not."""
        # These follow from the mean without a decomposition, and are the same to the last digit.
        for fact in ("strategy", "contributors", "scaled_down_ppm", "clamped_ppm"):
            if getattr(self, fact) != getattr(published, fact):
                return fact
        if [(m.path, m.sent) for m in self.modules] != [(m.path, m.sent) for m in published.modules]:
            return "modules"
        for own, theirs in zip(self.modules, published.modules, strict=True):
            for name in ("energy_ppm", "error_ppm", "scalar_ppm"):
                if abs(getattr(own, name) - getattr(theirs, name)) > TOLERANCE_PPM:
                    return f"{name} of {own.path}"
        return None


def ppm(value: float) -> int:
    """A fraction in millionths, as far as integers of the record go."""
    return min(_MOST, round(value * _PPM))


def shares_of(energies: Sequence[float]) -> list[int]:
    """Each energy's part of their sum, in millionths; all zero where there is none."""
    total = sum(energies)
    return [ppm(energy / total) if total else 0 for energy in energies]


def _module(where: str, value: object) -> ModuleReport:
    names = ("path", "sent", "energy_ppm", "error_ppm", "scalar_ppm")
    if not isinstance(value, dict) or value.keys() != set(names):
        raise _refusal(where, value)
    if not isinstance(value["path"], str) or not isinstance(value["sent"], str):
        raise _refusal(where, value)
    return ModuleReport(
        value["path"], value["sent"], *(_integer(f"{where}.{name}", value[name], 0) for name in names[2:])
    )


def _integer(where: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST:
        raise _refusal(where, value)
    return value


def _refusal(where: str, found: object) -> AdapterError:
    return AdapterError(
        AdapterRejectReason.MALFORMED_FILE, field=f"{REPORT_FILE}: {where}", found=quoted(found), expected="a report"
    )
