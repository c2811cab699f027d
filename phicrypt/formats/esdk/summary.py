"""What a message says about itself, read without any key: a claim, not a proof."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any, Final

from phicrypt.core.ecdh import KMS_ECDH_PROVIDER_ID, RAW_ECDH_PROVIDER_ID, recipient_of
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.streams import ReadableStream
from phicrypt.errors import FormatError
from phicrypt.formats.esdk.frames import Buffer, layout_of_body
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.sealing import footer_length_of
from phicrypt.formats.reader import ByteReader, StreamReader

_SHORTEST_RSA_CIPHERTEXT_BYTES: Final = 128
_ALGORITHMS: Final = {"RSA": "RSA", "ECDH": "elliptic curves"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who can open a message, as one of its encrypted data keys says.

    Attributes:
        provider_id: ``"aws-kms"``, ``"aws-kms-hierarchy"``, ``"aws-kms-rsa"``, ``"aws-kms-ecdh"``, ``"raw-ecdh"``,
            or a raw keyring's namespace.
        key_id: KMS key ARN, branch key id, the wrapping key's name, or of ECDH the curve and the SHA-256 of the
            recipient's public key.
        public_key_algorithm: ``"RSA"`` or ``"ECDH"`` where the data key is sealed to a public key, so that it
            opens for whoever breaks that algorithm one day; None for symmetric keys.
    """

    provider_id: str
    key_id: str
    public_key_algorithm: str | None = None


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """An unverified summary of a message's header. Context values are not part of it.

    Attributes:
        format_version: 1 or 2.
        suite_id, suite: identifier (``"0x0478"``) and name of the algorithm suite.
        is_committing, is_signed: what the suite promises.
        message_id: in hexadecimal.
        context_names: sorted names of the pairs that the header stores.
        recipients: one per encrypted data key, in order.
        is_framed, frame_length_bytes: the shape of the body; 0 for a non-framed one.
        header_length_bytes: length of the whole header.
        message_length_bytes: length of the whole message; None where the source cannot tell.
        plaintext_length_bytes: computed from the lengths; None where unknown without reading on.
        required_context_names: names that the reader declares as required context (rule 35). **No message
            stores or names them**: whether this one is bound to them, only opening it tells. One that stands
            among ``context_names`` as well is refused.
    """

    format_version: int
    suite_id: str
    suite: str
    is_committing: bool
    is_signed: bool
    message_id: str
    context_names: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    is_framed: bool
    frame_length_bytes: int
    header_length_bytes: int
    message_length_bytes: int | None
    plaintext_length_bytes: int | None
    required_context_names: tuple[str, ...] = ()

    @property
    def key_arns(self) -> tuple[str, ...]:
        """The KMS key ARNs among the recipients, in order."""
        return tuple(r.key_id for r in self.recipients if r.key_id.startswith("arn:"))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of the recipients (rule 16)."""
        return tuple(
            f"encrypted data key {number} ({one.provider_id} {one.key_id}) opens for whoever breaks "
            f"{_ALGORITHMS[one.public_key_algorithm]} one day, from a copy of this message that is made today"
            for number, one in enumerate(self.recipients, 1)
            if one.public_key_algorithm is not None
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**asdict(self), "key_arns": list(self.key_arns), "remarks": list(self.remarks)}


def summarize(message: Buffer | ReadableStream, limits: ReadLimits) -> MessageSummary:
    """Read a header from bytes or a binary source; raises FormatError and LimitExceededError."""
    if isinstance(message, bytes | bytearray | memoryview):
        return summary_of(parse_header(ByteReader(message), limits), len(message))
    start = _tell(message)
    header = parse_header(StreamReader(message), limits)
    if start is None:
        return summary_of(header, None)
    length = message.seek(0, io.SEEK_END) - start  # type: ignore[attr-defined]
    message.seek(start)  # type: ignore[attr-defined]
    return summary_of(header, length)


def summary_of(header: MessageHeader, message_length_bytes: int | None) -> MessageSummary:
    """The summary of a parsed header; raises FormatError where the length fits no body."""
    return MessageSummary(
        format_version=header.suite.message_format_version,
        suite_id=f"0x{header.suite.suite_id:04x}",
        suite=header.suite.name,
        is_committing=header.suite.is_committing,
        is_signed=header.suite.is_signed,
        message_id=header.message_id.hex(),
        context_names=tuple(sorted(header.context)),
        recipients=tuple(_recipient(key) for key in header.encrypted_data_keys),
        is_framed=header.is_framed,
        frame_length_bytes=header.frame_length_bytes,
        header_length_bytes=header.length_bytes,
        message_length_bytes=message_length_bytes,
        plaintext_length_bytes=_plaintext_length(header, message_length_bytes),
    )


def _plaintext_length(header: MessageHeader, message_length_bytes: int | None) -> int | None:
    # A signature's length varies, so the length of a signed body is not known from outside.
    if message_length_bytes is None or header.suite.is_signed:
        return None
    return claimed_plaintext_length(header, message_length_bytes)


def claimed_plaintext_length(header: MessageHeader, message_length_bytes: int) -> int:
    """The plaintext length of a message whose signature, if any, is as long as phicrypt's own.

    FormatError where the lengths make none.
    """
    body_length = message_length_bytes - header.length_bytes - footer_length_of(header.suite)
    if not header.is_framed:
        overhead = 12 + 8 + 16
        if body_length < overhead:
            raise FormatError("the message is truncated", field="message body", offset=header.length_bytes)
        return body_length - overhead
    return layout_of_body(body_length, header.frame_length_bytes, header.length_bytes).plaintext_length_bytes


def _recipient(encrypted_data_key: EncryptedDataKey) -> Recipient:
    provider_id, info, ciphertext = encrypted_data_key
    if provider_id in (RAW_ECDH_PROVIDER_ID, KMS_ECDH_PROVIDER_ID):
        return Recipient(provider_id, recipient_of(encrypted_data_key) or info.hex(), "ECDH")
    is_rsa = provider_id == "aws-kms-rsa"
    if not provider_id.startswith("aws-kms"):
        # A raw AES keyring's info ends with tag length, IV length and a 12-byte IV; a raw RSA one's is a name, and
        # its ciphertext as long as the modulus.
        is_aes = len(info) > 20 and info[-20:-12] == b"\x00\x00\x00\x80\x00\x00\x00\x0c"
        is_rsa = not is_aes and len(ciphertext) >= _SHORTEST_RSA_CIPHERTEXT_BYTES
        info = info[:-20] if is_aes else info
    text = info.decode(errors="replace")
    return Recipient(provider_id, text if text.isprintable() else info.hex(), "RSA" if is_rsa else None)


def _tell(source: Any) -> int | None:
    seekable = getattr(source, "seekable", None)
    return int(source.tell()) if seekable is not None and seekable() else None
