"""Merge updates from sums of linear maps of them: every strategy but ``factors`` (docs/merging.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from secagg.lora.adapter import Adapter
from secagg.lora.config import CONFIG_FILE
from secagg.lora.errors import AdapterError, AdapterRejectReason
from secagg.lora.fixed import BASIS_FILE, basis_shapes, encode_fixed, read_fixed
from secagg.lora.layout import Layout
from secagg.lora.manifest import Manifest, MergedModule
from secagg.lora.maps import FixedTensors, LinearMaps, fixed_name
from secagg.lora.merge_report import REPORT_FILE, MergeReport, ModuleReport, ppm, shares_of
from secagg.lora.messages import Message, message_of
from secagg.lora.pieces import CLIPPED, layout_of, piece_name, pieces_of
from secagg.lora.published_check import basis_faults, is_canonical, read_published, update_faults
from secagg.lora.reader import TENSOR_FILE
from secagg.lora.reconstruction import MergedUpdate, basis_of, reconstruct, spanned_by
from secagg.lora.template import AdapterTemplate
from secagg.lora.updates import Matrix, Wide
from secagg.lora.values import require_float32
from secagg.lora.writer import encode_adapter
from secagg.transcript.canonical import JsonValue
from secagg.transcript.merge import FirstMerge, FrozenMerge, LinearMerge, strategy_of

FloatVector = npt.NDArray[np.float32]
Progress = Callable[[str], None]
Files = dict[str, list[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class UpdateMerging:
    """See the module; the public methods are those of ``merging.Merging``."""

    manifest: Manifest
    layout: Layout
    maps: LinearMaps = field(repr=False)

    @classmethod
    def of(cls, merge: LinearMerge, manifest: Manifest, *, counts_clipping: bool) -> UpdateMerging:
        """The merging of a session; ``counts_clipping`` unless there is noise. Raises AdapterError as ``layout_of``."""
        return cls(manifest, layout_of(merge, manifest, counts_clipping=counts_clipping), LinearMaps(merge))

    @property
    def merge(self) -> LinearMerge:
        """The strategy."""
        return self.maps.merge

    @property
    def digest(self) -> bytes:
        """SHA-256 of the manifest."""
        return self.manifest.digest

    def to_json_value(self) -> dict[str, JsonValue]:
        """That of the manifest."""
        return self.manifest.to_json_value()

    @property
    def base_model(self) -> str:
        """What all adapters are for."""
        return self.manifest.base_model

    @property
    def rank(self) -> int:
        """Of the merged adapter."""
        return self.manifest.rank

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of the aggregate, ascending."""
        first = isinstance(self.merge, FirstMerge)
        return (BASIS_FILE,) if first else (CONFIG_FILE, TENSOR_FILE, REPORT_FILE)

    @property
    def template(self) -> AdapterTemplate:
        """What the merged adapter says of itself: one rank, alpha the same, no patterns."""
        manifest = self.manifest
        return AdapterTemplate(
            manifest.base_model,
            manifest.revision,
            manifest.task_type,
            manifest.rank,
            manifest.rank,
            use_rslora=False,
            fan_in_fan_out=manifest.fan_in_fan_out,
        )

    def with_fixed(self, data: bytes) -> UpdateMerging:
        """The same with the session's fixed tensors. Raises AdapterError as ``read_fixed``."""
        return replace(self, maps=LinearMaps(self.merge, read_fixed(self.merge, self.manifest, data)))

    def start(self) -> dict[str, Matrix]:
        """The tensors of the adapter that everybody starts from where A is frozen: that A, and B = 0.

        Raises:
            AdapterError: BAD_FIXED_TENSORS; A is not frozen, or the session's fixed tensors are not there.
        """
        if not isinstance(self.merge, FrozenMerge) or not self.maps.fixed:
            raise AdapterError(
                AdapterRejectReason.BAD_FIXED_TENSORS,
                field="merge",
                found=strategy_of(self.merge),
                expected="frozen-a: only there does everybody start from one adapter",
                fix="train from a start of your own",
            )
        tensors: dict[str, Matrix] = {}
        for module in self.manifest:
            a = self.maps.fixed[fixed_name(module, "a")]
            tensors[module.a_name] = a.reshape(module.a_shape(self.manifest.rank))
            tensors[module.b_name] = np.zeros(module.b_shape(self.manifest.rank), np.float32)
        return tensors

    def message(self, adapter: Adapter) -> Message:
        """See ``message_of``."""
        return message_of(adapter, self.manifest, self.layout, self.maps)

    def aggregate(
        self, mean: FloatVector, contributors: int, progress: Progress
    ) -> dict[str, list[bytes | memoryview]]:
        """The merged adapter and its report; in a first session the bases of the sums."""
        if isinstance(self.merge, FirstMerge):
            return {BASIS_FILE: [encode_fixed(self.bases(mean, progress))]}
        tensors, report = self.merged(mean, contributors, progress)
        return {**encode_adapter(self.template, tensors), REPORT_FILE: [report.to_bytes()]}

    def merged(self, mean: FloatVector, contributors: int, progress: Progress) -> tuple[dict[str, Matrix], MergeReport]:
        """The tensors of the merged adapter by PEFT name, and how good it is.

        Raises:
            AdapterError: BAD_VECTOR, NON_FINITE.
        """
        tensors: dict[str, Matrix] = {}
        updates: list[MergedUpdate] = []
        for module, update in self._updates(mean, progress):
            tensors[module.a_name] = update.right.astype(np.float32).reshape(module.a_shape(self.manifest.rank))
            tensors[module.b_name] = update.left.astype(np.float32).reshape(module.b_shape(self.manifest.rank))
            empty = np.empty((0, 0))
            updates.append(replace(update, left=empty, right=empty))
        return tensors, self._report(mean, contributors, updates)

    def bases(self, mean: FloatVector, progress: Progress) -> FixedTensors:
        """The orthonormal bases that a second session projects on."""
        return {
            fixed_name(module, side): basis_of(spanned).astype(np.float32)
            for module, pieces in self._means(mean, progress)
            for side, spanned in spanned_by(pieces).items()
        }

    def faults(
        self, mean: FloatVector, contributors: int, published: Mapping[str, bytes], progress: Progress
    ) -> Iterator[tuple[str, str]]:
        """See ``Merging.faults``: tensors and report within a tolerance, the config to the byte."""
        if isinstance(self.merge, FirstMerge):
            yield from self._basis_faults(mean, published[BASIS_FILE], progress)
            return
        expected, report = self.merged(mean, contributors, progress)
        (config,) = encode_adapter(self.template, expected)[CONFIG_FILE]
        if published[CONFIG_FILE] != config:
            yield CONFIG_FILE, "not what the manifest gives"
        try:
            tensors = read_published({name: values.shape for name, values in expected.items()}, published[TENSOR_FILE])
        except AdapterError as error:
            yield TENSOR_FILE, str(error)
        else:
            yield from ((TENSOR_FILE, reason) for reason in update_faults(self.manifest, expected, tensors))
            if not is_canonical(tensors, published[TENSOR_FILE]):
                yield TENSOR_FILE, "not in the form in which tensors are written"
        try:
            difference = report.difference(MergeReport.from_bytes(published[REPORT_FILE]))
        except AdapterError as error:
            difference = str(error)
        if difference is not None:
            yield REPORT_FILE, f"not what the mean gives: {difference}"

    def _basis_faults(self, mean: FloatVector, published: bytes, progress: Progress) -> Iterator[tuple[str, str]]:
        try:
            bases = read_published(basis_shapes(self.merge, self.manifest), published)
        except AdapterError as error:
            yield BASIS_FILE, str(error)
            return
        yield from ((BASIS_FILE, reason) for reason in basis_faults(self._means(mean, progress), bases))
        if not is_canonical(bases, published):
            yield BASIS_FILE, "not in the form in which tensors are written"

    def _means(self, mean: FloatVector, progress: Progress) -> Iterator[tuple[MergedModule, dict[str, Wide]]]:
        """The pieces of each module of which there are any: fp64, without their scales."""
        require_float32("mean", mean)
        places = self.layout.split(mean)
        count = len(self.manifest.modules)
        for number, module in enumerate(self.manifest, start=1):
            progress(f"merging {module.path}, {number} of {count}")
            pieces = pieces_of(self.merge, module, self.manifest.rank)
            if pieces:
                yield (
                    module,
                    {
                        piece: places[piece_name(module, piece)].astype(np.float64) / 2.0 ** module.scales[piece]
                        for piece in pieces
                    },
                )

    def _updates(self, mean: FloatVector, progress: Progress) -> Iterator[tuple[MergedModule, MergedUpdate]]:
        for module, pieces in self._means(mean, progress):
            yield module, reconstruct(module, self.manifest.rank, pieces, self.maps)

    def _report(self, mean: FloatVector, contributors: int, updates: list[MergedUpdate]) -> MergeReport:
        shares = shares_of([update.energy for update in updates])
        counts = self.layout.split(mean).get(CLIPPED)
        # Stochastic rounding is unbiased, so a mean of counts may come out a little below zero.
        scaled_down, clamped = (-1, -1) if counts is None else (ppm(max(0.0, float(value))) for value in counts)
        modules = tuple(
            ModuleReport(
                module.path,
                "+".join(pieces_of(self.merge, module, self.manifest.rank)),
                share,
                ppm(update.error),
                ppm(update.scalar),
            )
            for module, share, update in zip(self.manifest, shares, updates, strict=True)
        )
        return MergeReport(strategy_of(self.merge), contributors, scaled_down, clamped, modules)
