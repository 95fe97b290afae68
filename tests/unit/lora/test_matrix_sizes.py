"""Test matrices that nobody could hold are refused, whatever little is sent."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.matrix_sizes import MAX_MATRIX, check_matrices
from secagg.transcript.merge import BasisMerge, PilotMerge, ProjectionMerge, RangeMerge, SketchMerge

ONE, SEED = Fraction(1), bytes(32)
BASIS = BasisMerge(ONE, SEED, 1, 1, 1, Fraction(1, 2), bytes(16), SEED)
WIDE, TALL = (2**10, 2**20), (2**20, 2**10)
MOST = MAX_MATRIX // 2**20


@pytest.mark.parametrize(
    ("sizes", "merge", "names"),
    [
        (WIDE, SketchMerge(ONE, SEED, 1, MOST, 1), {"core_columns": "core"}),
        (TALL, SketchMerge(ONE, SEED, 1, MOST, 1), {"core_columns": "core"}),
        (WIDE, SketchMerge(ONE, SEED, 1, 1, MOST), {"probe_columns": "probe"}),
        (WIDE, RangeMerge(ONE, SEED, MOST), {"columns": "range"}),
        (TALL, PilotMerge(ONE, SEED, MOST, 2, Fraction(1, 2)), {"columns": "corange"}),
        (WIDE, ProjectionMerge(ONE, SEED, 1, MOST, bytes(16), SEED, SEED), {"probe_columns": "probe"}),
        (WIDE, replace(BASIS, probe_columns=MOST), {"probe_columns": "probe"}),
        (WIDE, replace(BASIS, sides=2, probe_columns=MOST), {"probe_columns": "cross-probe"}),
        (TALL, replace(BASIS, sides=2, probe_columns=MOST), {"probe_columns": "cross-probe"}),
    ],
)
def test_one_column_more_than_there_is_room_for_is_refused(sizes, merge, names):
    manifest = Manifest("base", "", "", 1, False, "refuse", (MergedModule("a", "linear", *sizes),))
    check_matrices(merge, manifest)
    for name, piece in names.items():
        with pytest.raises(AdapterError) as caught:
            check_matrices(replace(merge, **{name: getattr(merge, name) + 1}), manifest)
        assert (caught.value.reason, caught.value.field) == (AdapterRejectReason.TOO_LARGE, f"{piece} of a")
