"""A session's parameters in words and as JSON, for whoever opens it, joins it or looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secagg.cli.describe_merge import merge_rows, merge_value
from secagg.cli.describe_noise import noise_rows, noise_value
from secagg.cli.output import Rows
from secagg.derive.openers import is_bound
from secagg.lora.merging import Merging
from secagg.protocol.errors import LocalProtocolError
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.sessions import AnySession
from secagg.transcript.encoding import CoordinateRange, Encoding, Flattening
from secagg.transcript.entries import SessionOpen
from secagg.transcript.openers import Committee, CommitteeMember, KeyAuthority

_UNNAMED_BASE = bytes(32)


@dataclass(frozen=True, slots=True)
class Described:
    """One session, twice."""

    value: dict[str, Any]
    rows: Rows


def adapters_words(merging: Merging) -> str:
    """What is sent of each adapter."""
    layout = merging.layout
    return f"{layout.dimension:,} parameters in {len(layout.tensors)} tensors, rank {merging.rank}"


def describe_session(session: AnySession, merging: Merging) -> Described:
    """What a session asks of its contributors and promises them."""
    parameters = session.parameters
    encoding = parameters.encoding
    own = _describe_pairwise(session) if isinstance(session, PairwiseSession) else _describe_one_shot(session)
    step = quantisation_step(parameters)
    per_parameter = session.upload_bytes / encoding.dimension
    named = parameters.base_model_digest != _UNNAMED_BASE
    value = {
        "session": parameters.session.hex(),
        "protocol": parameters.protocol,
        "coordinator_key": parameters.coordinator.hex(),
        "registrar": parameters.registrar.hex(),
        "roster_size": parameters.roster_size,
        "base_model": merging.base_model,
        "base_model_digest": parameters.base_model_digest.hex() if named else None,
        "dimension": encoding.dimension,
        "tensors": len(merging.layout.tensors),
        "rank": merging.rank,
        "merge": merge_value(parameters.merge, merging),
        "min_contributors": parameters.min_contributors,
        "max_contributors": encoding.max_contributors,
        "max_corrupt": parameters.max_corrupt,
        "clip_norm": str(encoding.clip_norm),
        "value_bits": encoding.value_bits,
        "flatten": isinstance(encoding.flatten, Flattening),
        "quantisation_step": step,
        "upload_bytes": session.upload_bytes,
        **own.value,
        "noise": noise_value(parameters),
        "retention_s": parameters.retention_s,
    }
    flattened = ", flattened" if isinstance(encoding.flatten, Flattening) else ""
    rows = [
        ("session", parameters.session.hex()),
        ("base model", merging.base_model + ("" if named else " (by name only, no digest)")),
        *merge_rows(parameters.merge, merging),
        (
            "contributors",
            f"at least {parameters.min_contributors}, at most {min(encoding.max_contributors, parameters.roster_size)} "
            f"of the {parameters.roster_size} in the roster",
        ),
        ("collusion", f"shows nobody's adapter even if {parameters.max_corrupt} of them collude with the coordinator"),
        *own.rows,
        ("upload", f"{size(session.upload_bytes)} each ({per_parameter:.2f} bytes per number)"),
        (
            "precision",
            f"steps of {step:.3g} ({encoding.value_bits} bits{flattened}), {_bound_words(encoding)}",
        ),
        ("deadlines", ", ".join(f"{name} {seconds} s" for name, seconds in own.value["deadlines_s"].items())),
        *noise_rows(parameters),
        ("registrar", parameters.registrar.hex()),
    ]
    return Described(value, rows)


def _bound_words(encoding: Encoding) -> str:
    if isinstance(encoding.flatten, CoordinateRange):
        return f"numbers beyond {number(encoding.flatten.bound)} are clamped and counted"
    return f"norms above {number(encoding.clip_norm)} are scaled down"


def _describe_pairwise(session: PairwiseSession) -> Described:
    parameters, deadlines = session.parameters, session.parameters.deadlines
    graph, graph_words = _graph(session, full_cohort(parameters))
    value = {
        "expected_dropout": str(parameters.expected_dropout),
        "full_roster": graph,
        "deadlines_s": {
            "advertise": deadlines.advertise_s,
            "share": deadlines.share_s,
            "upload": deadlines.upload_s,
            "confirm": deadlines.confirm_s,
            "unmask": deadlines.unmask_s,
        },
    }
    return Described(value, [("full roster", graph_words)])


def _describe_one_shot(session: OneShotSession) -> Described:
    deadlines, layout, mask = session.parameters.deadlines, session.field_layout, session.ring_mask
    commits = isinstance(session.opening, KeyAuthority)
    value: dict[str, Any] = {
        "opening": _opening_value(session.opening),
        "usable_bits": layout.usable_bits,
        "field_bits": layout.field_bits,
        "fields_per_lane": layout.fields_per_lane,
        "lanes": session.upload_lanes,
        "deadlines_s": {
            **({"commit": deadlines.commit_s} if commits else {}),
            "upload": deadlines.upload_s,
            "hold": deadlines.hold_s,
            "open": deadlines.open_s,
        },
    }
    widths = (
        f"{layout.fields_per_lane} fields of {layout.field_bits} bits in {layout.usable_bits} of 64; "
        f"{mask.shift} bits drown in the ring mask's error"
    )
    return Described(value, [("opened by", opening_words(session.opening, None)), ("lanes", widths)])


def _opening_value(opening: Committee | KeyAuthority) -> dict[str, Any]:
    if isinstance(opening, KeyAuthority):
        return {
            "kind": "authority",
            "name": opening.name,
            "identity": opening.identity.hex(),
            "attestors": [key.hex() for key in opening.attestors],
            "attestations": opening.attestations,
        }
    return {
        "kind": "committee",
        "members": [{"name": member.name, "identity": member.identity.hex()} for member in opening.members],
        "needed": opening.needed,
        "max_corrupt": opening.max_corrupt,
    }


def opening_words(opening: Committee | KeyAuthority, pinned: frozenset[bytes] | None) -> str:
    """Who opens the sum, whom of them the reader pinned, and what rests on it; a line for each.

    None where the reader is the operator, who pins nobody.
    """
    if isinstance(opening, KeyAuthority):
        return (
            f"the key authority {opening.name}: {opening.identity.hex()}{_pin(opening.identity, pinned)}\n"
            f"once {opening.attestations} of {len(opening.attestors)} attestors have recomputed the sum of the "
            "ciphertexts.\nIt can decrypt whatever it is given: that it opens nothing but the sum rests on it alone."
        )
    lines = [
        f"any {opening.needed} of a committee of {len(opening.members)}, of whom {opening.max_corrupt} may be corrupt:"
    ]
    lines += [f"{member.identity.hex()} {member.name}{_standing(member, pinned)}" for member in opening.members]
    return "\n".join(lines)


def opener_identities(opening: Committee | KeyAuthority) -> frozenset[bytes]:
    """The keys that sign what opens the sum."""
    if isinstance(opening, KeyAuthority):
        return frozenset({opening.identity})
    return frozenset(member.identity for member in opening.members)


def _standing(member: CommitteeMember, pinned: frozenset[bytes] | None) -> str:
    """Whether a member counts as honest."""
    if not is_bound(member):
        return ", whose sealing key it did NOT sign: counts as corrupt"
    return _pin(member.identity, pinned)


def _pin(identity: bytes, pinned: frozenset[bytes] | None) -> str:
    if pinned is None:
        return ""
    return ", which you pinned" if identity in pinned else ", NOT pinned: counts as corrupt"


def full_cohort(parameters: SessionOpen) -> int:
    """How many take part if everybody who may does."""
    return min(parameters.encoding.max_contributors, parameters.roster_size)


def quantisation_step(parameters: SessionOpen) -> float:
    """The distance of two neighbouring values of a coordinate."""
    return float(1 / parameters.encoding.quantiser(parameters.noise).scale)


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


def _graph(session: PairwiseSession, cohort: int) -> tuple[dict[str, int] | None, str]:
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
