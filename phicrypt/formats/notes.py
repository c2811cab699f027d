"""Signed notes of C2SP (https://c2sp.org/signed-note): text, and lines of signatures by named keys.

::

    note = parse_note(content)
    note.text                                            # what the signatures are about, its line feed included
    VerifierKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")

Of the signature types that C2SP assigns, those are read that a log or a witness is asked for here: Ed25519
over the text (0x01), and the timestamped cosignatures of https://c2sp.org/tlog-cosignature under Ed25519
(0x04) and ML-DSA-44 (0x06). What a cosignature signs is made in :mod:`phicrypt.formats.checkpoints`.

Pure: bytes in, values out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from phicrypt.core.primitives import SignaturePublicKey
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError

MAX_NOTE_LENGTH_BYTES: Final = 262_144
MAX_SIGNATURES: Final = 64
_SIGNATURE_START: Final = "— "
_KEY_ID_LENGTH_BYTES: Final = 4

ED25519: Final = 0x01
ED25519_COSIGNATURE: Final = 0x04
ML_DSA_44_COSIGNATURE: Final = 0x06

_KMS_NAMES: Final = {
    ED25519: "ED25519_SHA_512",
    ED25519_COSIGNATURE: "ED25519_SHA_512",
    ML_DSA_44_COSIGNATURE: "ML_DSA_SHAKE_256",
}
# SubjectPublicKeyInfo up to the key itself (RFC 8410; RFC 9881), by the length of the key.
_DER_STARTS: Final = {
    32: bytes.fromhex("302a300506032b6570032100"),
    1_312: bytes.fromhex("30820532300b06096086480165030403110382052100"),
}
_PUBLIC_KEY_LENGTHS: Final = {ED25519: 32, ED25519_COSIGNATURE: 32, ML_DSA_44_COSIGNATURE: 1_312}


class NoteSignature(NamedTuple):
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line as it stands in a note, with its line feed."""
        return f"{_SIGNATURE_START}{self.name} {encode_base64(self.key_id + self.signature)}\n"


class Note(NamedTuple):
    """A note as it was read; nothing is verified yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note as it is stored."""
        return f"{self.text}\n{''.join(one.line() for one in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of a log or a witness, by name and signature type; its text is C2SP's *vkey*.

    Attributes:
        name: without spaces or ``+``; a log's is its origin.
        signature_type: :data:`ED25519`, :data:`ED25519_COSIGNATURE` or :data:`ML_DSA_44_COSIGNATURE`.
        public_key: the bare key, 32 or 1,312 bytes.

    Raises ConfigurationError for another name, type or length.
    """

    name: str
    signature_type: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_LENGTHS.get(self.signature_type):
            raise ConfigurationError(
                f"the verifier key of {self.name} is of type {self.signature_type:#04x} with "
                f"{len(self.public_key)} bytes; read are Ed25519 (0x01, 0x04) with 32 bytes and ML-DSA-44 (0x06) "
                "with 1,312"
            )

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.signature_type]) + self.public_key)}"

    def __repr__(self) -> str:
        return f"<VerifierKey {self.name}+{self.key_id.hex()}>"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A vkey, ``NAME+HEX+BASE64``. Raises ConfigurationError, also where the key id does not fit the key."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            material = decode_base64(encoded, "verifier key")
        except FormatError:
            material = b""
        if not material:
            raise ConfigurationError(
                "a verifier key is NAME+ID+KEY, as 'phicrypt audit checkpoint-key' prints it; "
                f"what was given, of {len(text)} characters, is not"
            )
        key = cls(name, material[0], material[1:])
        if key.key_id.hex() != key_id:
            raise ConfigurationError(
                f"the verifier key of {name} says id {key_id[:8]!r}, its key makes {key.key_id.hex()}: "
                "the name or the key was changed"
            )
        return key

    @classmethod
    def from_der(cls, name: str, signature_type: int, public_key_der: bytes) -> VerifierKey:
        """The key from a SubjectPublicKeyInfo, as KMS returns it. Raises ConfigurationError for another kind."""
        start = _DER_STARTS[_PUBLIC_KEY_LENGTHS[signature_type]]
        if not public_key_der.startswith(start):
            raise ConfigurationError(f"the public key of {name} is not of the kind that the note names")
        return cls(name, signature_type, public_key_der[len(start) :])

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256 over name, type and key."""
        hashed = f"{self.name}\n".encode() + bytes([self.signature_type]) + self.public_key
        return hashlib.sha256(hashed).digest()[:_KEY_ID_LENGTH_BYTES]

    def made(self, signature: NoteSignature) -> bool:
        """Whether a line claims to be by this key: both name and id are equal."""
        return signature.name == self.name and signature.key_id == self.key_id

    def check(self, message: bytes, signature: bytes) -> None:
        """Raise AuthenticationError unless the bare signature fits the bytes it was made over.

        Raises ConfigurationError where the installed `cryptography` does not verify signatures of this type.
        """
        public_key = None
        with suppress(FormatError):
            public_key = SignaturePublicKey(_DER_STARTS[len(self.public_key)] + self.public_key)
        if public_key is None:
            raise ConfigurationError(f"the installed 'cryptography' does not take the key of {self.name}")
        public_key.verify(_KMS_NAMES[self.signature_type], message, signature)


def check_key_name(name: str) -> None:
    """Raise ConfigurationError for what no key and no log can be called."""
    if not name or len(name.encode("utf-8", "replace")) > 255 or not name.isprintable():
        raise ConfigurationError("a name in a note has 1 to 255 bytes of printable text")
    if "+" in name or any(character.isspace() for character in name):
        raise ConfigurationError(f"a name in a note holds neither spaces nor '+', and {name!r} does")


def parse_note(content: bytes) -> Note:
    """A note. Raises FormatError, and LimitExceededError beyond :data:`MAX_NOTE_LENGTH_BYTES`."""
    text, blank, lines = _checked_text(content).rpartition("\n\n")
    if not blank or not text:
        raise FormatError("a text, an empty line and signatures were expected", field="note")
    return Note(f"{text}\n", _parse_lines(lines))


def parse_signature_lines(content: bytes) -> tuple[NoteSignature, ...]:
    """Signature lines alone, as a witness answers. Raises FormatError, LimitExceededError."""
    return _parse_lines(_checked_text(content))


def with_signatures(note: Note, added: Iterable[NoteSignature]) -> Note:
    """The note with further signatures; a line of the same name and key id gives way to the new one."""
    added = tuple(added)
    replaced = {(one.name, one.key_id) for one in added}
    kept = tuple(one for one in note.signatures if (one.name, one.key_id) not in replaced)
    return Note(note.text, kept + added)


def _checked_text(content: bytes) -> str:
    if len(content) > MAX_NOTE_LENGTH_BYTES:
        raise LimitExceededError("the note is too long in bytes", limit=MAX_NOTE_LENGTH_BYTES, actual=len(content))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start
        text = ""
    else:
        offset = next((at for at, one in enumerate(text) if one < " " and one != "\n"), -1)
    if offset >= 0:
        raise FormatError("UTF-8 without control characters was expected", field="note", offset=offset)
    return text


def _parse_lines(lines: str) -> tuple[NoteSignature, ...]:
    if not lines.endswith("\n"):
        raise FormatError("signature lines that end in line feeds were expected", field="note")
    found: Sequence[str] = lines[:-1].split("\n")
    if len(found) > MAX_SIGNATURES:
        raise LimitExceededError("too many signatures", limit=MAX_SIGNATURES, actual=len(found))
    return tuple(_parse_line(line) for line in found)


def _parse_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    if not line.startswith(_SIGNATURE_START) or not space:
        raise FormatError("a line of an em dash, a name and a signature was expected", field="signature line")
    refusal = None
    try:
        check_key_name(name)
    except ConfigurationError as error:
        refusal = FormatError(str(error), field="signature line")
    if refusal is not None:
        raise refusal
    decoded = decode_base64(encoded, "signature line")
    if len(decoded) <= _KEY_ID_LENGTH_BYTES:
        raise FormatError("a key id and a signature were expected", field="signature line")
    return NoteSignature(name, decoded[:_KEY_ID_LENGTH_BYTES], decoded[_KEY_ID_LENGTH_BYTES:])


def encode_base64(content: bytes) -> str:
    """RFC 4648's standard alphabet with padding, which C2SP's formats use throughout."""
    return base64.b64encode(content).decode()


def decode_base64(text: str, field: str) -> bytes:
    """The inverse; only the one spelling that :func:`encode_base64` has. Raises FormatError."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = None
    if content is None or encode_base64(content) != text:
        raise FormatError("base64 was expected", field=field)
    return content
