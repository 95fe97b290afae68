"""What tensor values have to be: float32 and finite. One NaN would destroy the sum of everybody."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secagg.lora.errors import AdapterError, AdapterRejectReason


def require_float32(name: str, values: npt.NDArray[np.float32]) -> None:
    """Do nothing if ``values`` is float32 and every element is finite.

    Raises:
        AdapterError: WRONG_DTYPE, or NON_FINITE with the first index in C order; names the tensor.
    """
    if values.dtype != np.float32:
        raise AdapterError(AdapterRejectReason.WRONG_DTYPE, tensor=name, found=str(values.dtype), expected="float32")
    finite = np.isfinite(values)
    if finite.all():
        return
    index = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), values.shape))
    raise AdapterError(
        AdapterRejectReason.NON_FINITE,
        tensor=name,
        found=f"{float(values[index])} at index {index}",
        expected="finite numbers",
        fix="the training diverged or overflowed; train again with a lower learning rate or in bfloat16",
    )
