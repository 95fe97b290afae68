r"""Files that hold one Ed25519 private key.

One line of canonical JSON and a newline, mode 0600::

    {"kind":K,"public":HEX32,"seed":SEED,"type":"key-file","version":1}
    SEED = {"seed":HEX32,"type":"plain"}
         | {"ciphertext":HEX48,"n":N,"nonce":HEX12,"p":P,"r":R,"salt":HEX16,"type":"scrypt-aes256gcm"}

The second form is AES-256-GCM over the 32-byte seed under ``scrypt(passphrase, salt, N, r, p)`` (RFC 7914). Its
associated data is the canonical form of the whole object without ``ciphertext``, so that nobody without the
passphrase can change kind, public key or parameters. Beside it stands ``FILE.pub``, for everybody::

    {"kind":K,"public":HEX32,"type":"public-key","version":1}

Errors of this module name the file and the member at fault and hold nothing that was read, neither in their text
nor in the exceptions they come from.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from secagg.crypto.rng import Rng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.identity.errors import FileRefusal, IdentityFileError
from secagg.identity.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    create_exclusively,
    read_private,
    read_public,
    remove_durably,
)
from secagg.transcript import canonical
from secagg.transcript.canonical import CanonicalError, JsonValue
from secagg.transcript.record import VERSION, RecordError, hex_codec, integer_codec, text_codec

MAX_FILE_BYTES = 4096
_KEY_FILE = "key-file"
_PUBLIC_KEY = "public-key"
_PLAIN = "plain"
_ENCRYPTED = "scrypt-aes256gcm"
_SEED_BYTES = 32
_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16


class KeyKind(enum.Enum):
    """What a key signs for; a file of one kind is never loaded as another."""

    IDENTITY = "identity"
    REGISTRAR = "registrar"
    COORDINATOR = "coordinator"
    WITNESS = "witness"
    COMMITTEE_MEMBER = "committee-member"
    KEY_AUTHORITY = "key-authority"
    ATTESTOR = "attestor"


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """Parameters of scrypt: it takes ``128 n r`` bytes of memory and time in proportion to ``n r p``.

    The default takes 128 MiB and, measured here, 0.36 s. The bounds (256 MiB, eight times the default's work)
    keep a foreign file from exhausting the machine that opens it.
    """

    n: int = 2**17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        """Raise RecordError outside the bounds."""
        for name, value, most in (("n", self.n, 2**20), ("r", self.r, 32), ("p", self.p, 16)):
            integer_codec(1, most).read(value, f"seed.{name}")
        if self.n < 2 or self.n & (self.n - 1):
            raise RecordError("seed.n", "expected a power of two")
        if self.n * self.r > 2**21 or self.n * self.r * self.p > 2**23:
            raise RecordError("seed", "the cost of scrypt is out of bounds")


@dataclass(frozen=True, slots=True)
class _PlainSeed:
    seed: Secret


@dataclass(frozen=True, slots=True)
class _EncryptedSeed:
    cost: ScryptCost
    salt: bytes
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class _KeyFile:
    kind: KeyKind
    public: bytes
    protection: _PlainSeed | _EncryptedSeed


def create_key_file(
    path: Path, kind: KeyKind, passphrase: Secret | None, rng: Rng, cost: ScryptCost | None = None
) -> bytes:
    """Make a key, write ``path`` (0600) and ``path.pub``, both new; returns the public key.

    Without ``passphrase`` the file's mode is the only protection.

    Raises:
        IdentityFileError: either name is taken, the passphrase is empty, or the disk fails; no key is left behind.
    """
    if passphrase is not None and not len(passphrase):
        raise IdentityFileError(path, FileRefusal.EMPTY_PASSPHRASE)
    seed = Secret(rng.bytes(_SEED_BYTES))
    public = SigningKey(seed).public_bytes
    if passphrase is None:
        content = _file_value(kind, public, {"type": _PLAIN, "seed": seed.expose().hex()})
    else:
        protection = _EncryptedSeed(cost or ScryptCost(), rng.bytes(_SALT_BYTES), rng.bytes(_NONCE_BYTES), b"")
        key = _stretch(path, passphrase, protection)
        header = _header(kind, public, protection)
        ciphertext = AESGCM(key.expose()).encrypt(protection.nonce, seed.expose(), header)
        content = _file_value(kind, public, {**_parameters(protection), "ciphertext": ciphertext.hex()})
    create_exclusively(path, canonical.encode(content) + b"\n", PRIVATE_MODE)
    try:
        create_exclusively(public_path(path), encode_public_key(kind, public), PUBLIC_MODE)
    except IdentityFileError:
        remove_durably(path)  # nobody has seen this key: a file without its public half only confuses
        raise
    return public


def load_key_file(path: Path, kind: KeyKind, ask_passphrase: Callable[[], Secret] | None) -> SigningKey:
    """The key in ``path``; ``ask_passphrase`` is called once if the file is encrypted and well-formed.

    Raises:
        IdentityFileError: ``path`` is a symbolic link, not ours, accessible to group or others, malformed, of another
            kind, holds a public key that is not the seed's, or does not open.
    """
    file = _parse_file(path, read_private(path, MAX_FILE_BYTES))
    if file.kind is not kind:
        raise _wrong_kind(path, file.kind, kind)
    match file.protection:
        case _PlainSeed(seed):
            pass
        case _EncryptedSeed():
            seed = _decrypt(path, file, file.protection, ask_passphrase)
        case _:
            assert_never(file.protection)
    key = SigningKey(seed)
    if key.public_bytes != file.public:
        raise IdentityFileError(path, FileRefusal.KEY_MISMATCH)
    return key


def public_path(path: Path) -> Path:
    """Where the public half of the key file ``path`` stands."""
    return path.with_name(path.name + ".pub")


def encode_public_key(kind: KeyKind, public: bytes) -> bytes:
    """The content of a ``.pub`` file."""
    value: JsonValue = {"type": _PUBLIC_KEY, "version": VERSION, "kind": kind.value, "public": public.hex()}
    return canonical.encode(value) + b"\n"


def load_public_key(path: Path, kind: KeyKind) -> bytes:
    """The public key in a ``.pub`` file. Raises IdentityFileError: not readable, malformed, of another kind."""
    data = read_public(path, MAX_FILE_BYTES)
    found: tuple[KeyKind, bytes] | None = None
    problem = ""
    try:
        value = _members(_decode_line(data), "file", _PUBLIC_KEY, {"version", "kind", "public"})
        found = _read_header(value)
    except RecordError as error:
        problem = f"{error.field}: {error.reason}"
    if found is None:
        raise IdentityFileError(path, FileRefusal.MALFORMED, problem)
    if found[0] is not kind:
        raise _wrong_kind(path, found[0], kind)
    return found[1]


def _parse_file(path: Path, data: bytes) -> _KeyFile:
    # Raised after the except block: an exception raised inside would keep the decoder's, which holds the text.
    problem = ""
    try:
        return _read_file(data)
    except RecordError as error:
        problem = f"{error.field}: {error.reason}"
    raise IdentityFileError(path, FileRefusal.MALFORMED, problem)


def _read_file(data: bytes) -> _KeyFile:
    value = _members(_decode_line(data), "file", _KEY_FILE, {"version", "kind", "public", "seed"})
    kind, public = _read_header(value)
    seed = value["seed"]
    if isinstance(seed, dict) and seed.get("type") == _PLAIN:
        plain = _members(seed, "seed", _PLAIN, {"seed"})
        return _KeyFile(kind, public, _PlainSeed(Secret(hex_codec(_SEED_BYTES).read(plain["seed"], "seed.seed"))))
    sealed = _members(seed, "seed", _ENCRYPTED, {"n", "r", "p", "salt", "nonce", "ciphertext"})
    n, r, p = (integer_codec(1, 2**20).read(sealed[name], f"seed.{name}") for name in ("n", "r", "p"))
    salt = hex_codec(_SALT_BYTES).read(sealed["salt"], "seed.salt")
    nonce = hex_codec(_NONCE_BYTES).read(sealed["nonce"], "seed.nonce")
    ciphertext = hex_codec(_SEED_BYTES + _TAG_BYTES).read(sealed["ciphertext"], "seed.ciphertext")
    return _KeyFile(kind, public, _EncryptedSeed(ScryptCost(n, r, p), salt, nonce, ciphertext))


def _decode_line(data: bytes) -> JsonValue:
    try:
        if data.endswith(b"\n"):
            return canonical.decode(data[:-1])
    except CanonicalError:
        pass  # its text may quote the file
    raise RecordError("file", "expected one line of canonical JSON")


def _members(value: JsonValue, where: str, kind: str, names: set[str]) -> dict[str, JsonValue]:
    """``value`` as an object of type ``kind`` with exactly these members; unknown names are not quoted."""
    if not isinstance(value, dict) or value.get("type") != kind:
        raise RecordError(f"{where}.type", f"expected {kind}")
    if set(value) != names | {"type"}:
        raise RecordError(where, f"expected exactly the members {', '.join(sorted(names | {'type'}))}")
    return value


def _read_header(value: dict[str, JsonValue]) -> tuple[KeyKind, bytes]:
    integer_codec(VERSION, VERSION).read(value["version"], "version")
    kind = KeyKind(text_codec(32, *(kind.value for kind in KeyKind)).read(value["kind"], "kind"))
    public: bytes = hex_codec(32).read(value["public"], "public")
    return kind, public


def _file_value(kind: KeyKind, public: bytes, seed: dict[str, JsonValue]) -> JsonValue:
    return {"type": _KEY_FILE, "version": VERSION, "kind": kind.value, "public": public.hex(), "seed": seed}


def _parameters(protection: _EncryptedSeed) -> dict[str, JsonValue]:
    cost = protection.cost
    parameters: dict[str, JsonValue] = {"type": _ENCRYPTED, "n": cost.n, "r": cost.r, "p": cost.p}
    return {**parameters, "salt": protection.salt.hex(), "nonce": protection.nonce.hex()}


def _header(kind: KeyKind, public: bytes, protection: _EncryptedSeed) -> bytes:
    return canonical.encode(_file_value(kind, public, _parameters(protection)))


def _stretch(path: Path, passphrase: Secret, protection: _EncryptedSeed) -> Secret:
    cost = protection.cost
    try:
        return Secret(Scrypt(protection.salt, 32, cost.n, cost.r, cost.p).derive(passphrase.expose()))
    except MemoryError:
        needed = f"scrypt needs {128 * cost.n * cost.r >> 20} MiB of memory"
        raise IdentityFileError(path, FileRefusal.SYSTEM_ERROR, needed) from None


def _decrypt(
    path: Path, file: _KeyFile, protection: _EncryptedSeed, ask_passphrase: Callable[[], Secret] | None
) -> Secret:
    if ask_passphrase is None:
        raise IdentityFileError(path, FileRefusal.PASSPHRASE_NEEDED)
    key = _stretch(path, ask_passphrase(), protection)
    header = _header(file.kind, file.public, protection)
    try:
        return Secret(AESGCM(key.expose()).decrypt(protection.nonce, protection.ciphertext, header))
    except InvalidTag:
        raise IdentityFileError(path, FileRefusal.DOES_NOT_OPEN) from None


def _wrong_kind(path: Path, found: KeyKind, expected: KeyKind) -> IdentityFileError:
    return IdentityFileError(path, FileRefusal.WRONG_KIND, f"found {found.value}, expected {expected.value}")
