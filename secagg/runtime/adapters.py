"""Which adapters a session is about: layout and template, as its open entry names them."""

from __future__ import annotations

from secagg.derive.result import FloatVector
from secagg.lora.config import CONFIG_FILE
from secagg.lora.layout import Layout
from secagg.lora.reader import TENSOR_FILE
from secagg.lora.template import AdapterTemplate
from secagg.lora.vector import FactorMean
from secagg.lora.writer import encode_adapter
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript import canonical
from secagg.transcript.entries import SessionOpen


def check_layout(parameters: SessionOpen, layout: bytes, adapter: bytes) -> tuple[Layout, AdapterTemplate]:
    """The layout and the adapter template of a session, as its open entry names them.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; another digest or dimension, or shapes that do not fit the template.
        AdapterError, CanonicalError: malformed.
    """
    try:
        decoded = Layout.from_json_value(canonical.decode(layout))
        template = AdapterTemplate.from_json_value(canonical.decode(adapter))
    except canonical.CanonicalError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"layout or adapter: {error}") from None
    if decoded.digest != parameters.layout:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "layout: digest differs from the open entry")
    if template.digest != parameters.adapter:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "adapter: digest differs from the open entry")
    if template.base_model != parameters.base_model:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "adapter: for another base model than the open entry")
    if decoded.dimension != parameters.encoding.dimension:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "layout: dimension differs from the encoding")
    template.check_tensors(dict(decoded.tensors))
    return decoded, template


def merged_adapter(parameters: SessionOpen, layout: bytes, adapter: bytes, mean: FloatVector) -> tuple[bytes, bytes]:
    """The two files of the adapter that the mean is: tensors and configuration.

    Raises:
        RemoteProtocolError: layout or template are not the session's.
        AdapterError: the mean is not finite.
    """
    decoded, template = check_layout(parameters, layout, adapter)
    files = encode_adapter(template, FactorMean().to_adapter(mean, decoded, template))
    return b"".join(files[TENSOR_FILE]), b"".join(files[CONFIG_FILE])
