"""What several checks need of a session of any mode, read once: its adapters, and what it closed.

Each ``Derived`` reads a file or computes a value and hands it out only if it is right; its owner is the check that
fails otherwise. What has one meaning only in sessions of one protocol is in ``pairwise_values`` and
``one_shot_values``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from secagg.lora.errors import AdapterError
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.transcript import canonical
from secagg.transcript.statements import ContributionHeader, OneShotHeader
from verifier import one_shot_values, pairwise_values
from verifier.checks import Derived, Mode
from verifier.session_lists import ADAPTER_FILE, LAYOUT_FILE, Closed, fail_at
from verifier.session_record import SessionRecord

MAX_DESCRIPTION_BYTES = 1 << 26
"""A layout or a template."""

AnyHeader: TypeAlias = ContributionHeader | OneShotHeader


# Who contributed


def _closed(session: SessionRecord) -> Closed[AnyHeader]:
    if session.mode is Mode.PAIRWISE:
        return session.get(pairwise_values.CLOSED)
    return session.get(one_shot_values.CLOSED)


CLOSED: Derived[SessionRecord, Closed[AnyHeader]] = Derived("CON-3", _closed)
"""The closed set. Needs CLOSED."""


def _contributors(session: SessionRecord) -> Closed[AnyHeader]:
    # Each of them has its owner; what is wrong is refused there.
    if session.mode is Mode.PAIRWISE:
        return session.get(pairwise_values.CONTRIBUTORS)
    return session.get(one_shot_values.CONTRIBUTORS)


CONTRIBUTORS: Derived[SessionRecord, Closed[AnyHeader]] = Derived("SES-4", _contributors)
"""The closed set, all of it in the sets that were logged before. Needs CLOSED."""


# What the sum is about


@dataclass(frozen=True, slots=True)
class Adapters:
    """The tensors of the vector and what all adapters have in common."""

    layout: Layout
    template: AdapterTemplate


def _adapters(session: SessionRecord) -> Adapters:
    """Rules: canonical, of the digests in the open entry; layout, encoding and template fit each other."""
    parameters = session.parameters
    layout_place, template_place = session.files.place(LAYOUT_FILE), session.files.place(ADAPTER_FILE)
    layout_data = session.files.read(LAYOUT_FILE, MAX_DESCRIPTION_BYTES)
    template_data = session.files.read(ADAPTER_FILE, MAX_DESCRIPTION_BYTES)
    for place, data, expected in (
        (layout_place, layout_data, parameters.layout),
        (template_place, template_data, parameters.adapter),
    ):
        if hashlib.sha256(data).digest() != expected:
            fail_at(place, "another digest than the open entry's")
    place = layout_place
    try:
        layout = Layout.from_json_value(canonical.decode(layout_data))
        place = template_place
        template = AdapterTemplate.from_json_value(canonical.decode(template_data))
        template.check_tensors(dict(layout.tensors))
    except (canonical.CanonicalError, AdapterError) as error:
        fail_at(place, str(error))
    if template.base_model != parameters.base_model:
        fail_at(template_place, "for another base model than the open entry's")
    if layout.dimension != parameters.encoding.dimension:
        fail_at(layout_place, f"{layout.dimension} coordinates, the encoding has {parameters.encoding.dimension}")
    return Adapters(layout, template)


ADAPTERS = Derived("SES-7", _adapters)
"""Layout and template. Needs OPENED."""
