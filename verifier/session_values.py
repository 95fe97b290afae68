"""What several checks need of a session of any mode, read once: its adapters, and what it closed.

Each ``Derived`` reads a file or computes a value and hands it out only if it is right; its owner is the check that
fails otherwise. What has one meaning only in sessions of one protocol is in ``pairwise_values`` and
``one_shot_values``.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from secagg.lora.errors import AdapterError
from secagg.lora.factor_merging import FactorMerging
from secagg.lora.fixed import most_fixed_bytes
from secagg.lora.merging import decode_merging
from secagg.lora.update_merging import UpdateMerging
from secagg.transcript.canonical import CanonicalError
from secagg.transcript.merge import fixed_digest
from secagg.transcript.statements import ContributionHeader, OneShotHeader
from verifier import one_shot_values, pairwise_values
from verifier.checks import Derived, Mode
from verifier.session_lists import ADAPTER_FILE, LAYOUT_FILE, Closed, fail_at
from verifier.session_record import SessionRecord

FIXED_FILE = "fixed.safetensors"
MAX_DESCRIPTION_BYTES = 1 << 26
"""A layout, a template or a manifest."""

AnyHeader: TypeAlias = ContributionHeader | OneShotHeader
AnyMerging: TypeAlias = FactorMerging | UpdateMerging


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


def _merging(session: SessionRecord) -> AnyMerging:
    """Rules: canonical, of the digests in the open entry; layout, encoding and template or manifest fit each other."""
    parameters = session.parameters
    layout_place, template_place = session.files.place(LAYOUT_FILE), session.files.place(ADAPTER_FILE)
    layout = session.files.read(LAYOUT_FILE, MAX_DESCRIPTION_BYTES)
    template = session.files.read(ADAPTER_FILE, MAX_DESCRIPTION_BYTES)
    for place, data, expected in (
        (layout_place, layout, parameters.layout),
        (template_place, template, parameters.adapter),
    ):
        if hashlib.sha256(data).digest() != expected:
            fail_at(place, "another digest than the open entry's")
    try:
        merging = decode_merging(parameters, layout, template)
    except (CanonicalError, AdapterError) as error:
        fail_at(layout_place, str(error))
    if isinstance(merging, FactorMerging) or not fixed_digest(parameters.merge):
        return merging
    place = session.files.place(FIXED_FILE)
    try:
        return merging.with_fixed(session.files.read(FIXED_FILE, most_fixed_bytes(merging.merge, merging.manifest)))
    except AdapterError as error:
        fail_at(place, str(error))


MERGING = Derived("SES-7", _merging)
"""How the adapters are merged, with the tensors that are the same for everybody. Needs OPENED."""
