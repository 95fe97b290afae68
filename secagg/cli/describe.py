"""A session's parameters in words and as JSON, for whoever opens it, joins it or looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secagg.arith.quantiser import Quantiser
from secagg.cli.output import Rows
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.protocol.errors import LocalProtocolError
from secagg.protocol.session import Session
from secagg.transcript.entries import Encoding, Flattening, SessionOpen

_UNNAMED_BASE = bytes(32)


@dataclass(frozen=True, slots=True)
class Described:
    """One session, twice."""

    value: dict[str, Any]
    rows: Rows


def describe_session(session: Session, layout: Layout, template: AdapterTemplate) -> Described:
    """What a session asks of its contributors and promises them."""
    parameters = session.parameters
    encoding, deadlines = parameters.encoding, parameters.deadlines
    cohort = full_cohort(parameters)
    graph, graph_words = _graph(session, cohort)
    step = quantisation_step(encoding)
    per_parameter = session.upload_bytes / encoding.dimension
    value = {
        "session": parameters.session.hex(),
        "coordinator_key": parameters.coordinator.hex(),
        "registrar": parameters.registrar.hex(),
        "roster_size": parameters.roster_size,
        "base_model": template.base_model,
        "base_model_digest": None
        if parameters.base_model_digest == _UNNAMED_BASE
        else parameters.base_model_digest.hex(),
        "dimension": encoding.dimension,
        "tensors": len(layout.tensors),
        "rank": template.r,
        "min_contributors": parameters.min_contributors,
        "max_contributors": encoding.max_contributors,
        "max_corrupt": parameters.max_corrupt,
        "expected_dropout": str(parameters.expected_dropout),
        "clip_norm": str(encoding.clip_norm),
        "value_bits": encoding.value_bits,
        "flatten": isinstance(encoding.flatten, Flattening),
        "quantisation_step": step,
        "upload_bytes": session.upload_bytes,
        "full_roster": graph,
        "deadlines_s": {
            "advertise": deadlines.advertise_s,
            "share": deadlines.share_s,
            "upload": deadlines.upload_s,
            "confirm": deadlines.confirm_s,
            "unmask": deadlines.unmask_s,
        },
        "retention_s": parameters.retention_s,
    }
    flattened = ", flattened" if isinstance(encoding.flatten, Flattening) else ""
    rows = [
        ("session", parameters.session.hex()),
        ("base model", template.base_model + ("" if value["base_model_digest"] else " (by name only, no digest)")),
        ("adapters", f"{encoding.dimension:,} parameters in {len(layout.tensors)} tensors, rank {template.r}"),
        (
            "contributors",
            f"at least {parameters.min_contributors}, at most {min(encoding.max_contributors, parameters.roster_size)} "
            f"of the {parameters.roster_size} in the roster",
        ),
        ("collusion", f"shows nobody's adapter even if {parameters.max_corrupt} of them collude with the coordinator"),
        ("full roster", graph_words),
        ("upload", f"{size(session.upload_bytes)} each ({per_parameter:.2f} bytes per parameter)"),
        (
            "precision",
            f"steps of {step:.3g} ({encoding.value_bits} bits{flattened}), norms above "
            f"{number(encoding.clip_norm)} are scaled down",
        ),
        (
            "deadlines",
            f"advertise {deadlines.advertise_s} s, share {deadlines.share_s} s, upload {deadlines.upload_s} s, "
            f"confirm {deadlines.confirm_s} s, unmask {deadlines.unmask_s} s",
        ),
        ("noise", "none: the sum is exact, and not differentially private"),
        ("registrar", parameters.registrar.hex()),
    ]
    return Described(value, rows)


def full_cohort(parameters: SessionOpen) -> int:
    """How many take part if everybody who may does."""
    return min(parameters.encoding.max_contributors, parameters.roster_size)


def quantisation_step(encoding: Encoding) -> float:
    """The distance of two neighbouring values of a coordinate."""
    return float(1 / Quantiser(encoding.value_bits, encoding.bound()).scale)


def registrar_words(parameters: SessionOpen, pinned: frozenset[bytes]) -> str:
    """Who says that contributors are different people, and what rests on it."""
    key = parameters.registrar.hex()
    if parameters.registrar == parameters.coordinator:
        return (
            f"{key}\nis the coordinator itself: it can invent people, and then no minimum means anything.\n"
            "Your contribution is hidden from everybody else only."
        )
    if parameters.registrar in pinned:
        return (
            f"{key}\nis one you pinned. That your contribution is hidden among "
            f"{parameters.min_contributors} rests on\nthis registrar having one key for one person."
        )
    return (
        f"{key}\nis NOT pinned: the coordinator chose it and may have invented people, and then no minimum\n"
        "means anything. Pin a registrar you trust (policy.registrars, or --registrar)."
    )


def number(value: Any) -> str:  # noqa: ANN401 - a Fraction, which is shown as a decimal
    """A fraction as a decimal of a few digits."""
    return f"{float(value):.6g}"


def size(length_bytes: int) -> str:
    """Bytes in a unit for people."""
    value = float(length_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _graph(session: Session, cohort: int) -> tuple[dict[str, int] | None, str]:
    try:
        graph = session.graph_parameters(cohort)
    except LocalProtocolError as error:
        return None, f"{cohort}: {error.detail}"
    spare = graph.degree - graph.threshold
    return (
        {"cohort": cohort, "degree": graph.degree, "threshold": graph.threshold},
        f"{cohort} contributors: each masks with {graph.degree} others, of whom {graph.threshold} have to stay "
        f"({spare} may drop out)",
    )
