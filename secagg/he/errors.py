"""The errors of homomorphic encryption: TenSEAL is missing, and bytes that are none of ours."""


class HeUnavailableError(RuntimeError):
    """TenSEAL cannot be imported; the text says what to install."""

    def __init__(self) -> None:
        super().__init__('the key authority mode needs TenSEAL: pip install "secagg-lora[he]"')

    def __reduce__(self) -> tuple[type["HeUnavailableError"], tuple[()]]:
        return type(self), ()


class CiphertextError(ValueError):
    """Bytes are no ciphertext, public context or decryption key of this package's format and parameters."""
