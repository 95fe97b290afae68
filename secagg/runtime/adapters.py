"""Which adapters a session is about: layout and template, as its open entry names them."""

from __future__ import annotations

from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
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
    if decoded.dimension != parameters.encoding.dimension:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "layout: dimension differs from the encoding")
    template.check_tensors(dict(decoded.tensors))
    return decoded, template
