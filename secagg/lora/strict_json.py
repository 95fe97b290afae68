"""JSON objects out of foreign files: bounded before, and nothing ambiguous accepted."""

from __future__ import annotations

import json
from typing import NoReturn

from secagg.lora.errors import AdapterError, AdapterRejectReason


def parse_object(data: bytes, field: str) -> dict[str, object]:
    """The JSON object that ``data`` holds; ``field`` is the name of the text for errors.

    The caller bounds the length of ``data``.

    Raises:
        AdapterError: MALFORMED_FILE; not UTF-8, not JSON, not an object, a key twice, NaN or infinity.
    """

    def refuse(found: str) -> AdapterError:
        return AdapterError(AdapterRejectReason.MALFORMED_FILE, field=field, found=found, expected="one JSON object")

    def object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in pairs:
            if key in result:
                raise refuse(f"key {key!r} given twice")
            result[key] = value
        return result

    def refuse_constant(text: str) -> NoReturn:
        raise refuse(f"the number {text}")

    try:
        value: object = json.loads(
            data.decode("utf-8"), object_pairs_hook=object_without_duplicates, parse_constant=refuse_constant
        )
    except AdapterError:
        raise
    except (ValueError, RecursionError) as error:
        # ValueError covers text that is not UTF-8, not JSON, or has an integer of thousands of digits.
        raise refuse(f"{type(error).__name__} in {len(data)} bytes") from None
    if not isinstance(value, dict):
        raise refuse(f"a JSON {type(value).__name__}")
    return value
