"""Detached signatures: a DSSE envelope around an in-toto statement.

No format of phicrypt's own. The envelope is DSSE 1.0 (secure-systems-lab/dsse, ``protocol.md`` and
``envelope.md``), the payload an in-toto Statement v1 (``spec/v1/statement.md``)::

    {"payloadType": "application/vnd.in-toto+json",
     "payload": base64(statement),
     "signatures": [{"keyid": key ARN, "sig": base64(signature)}]}

    signed bytes = PAE = "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload
                         LEN: byte length in ASCII decimal digits, SP: one space

    statement = {"_type": "https://in-toto.io/Statement/v1",
                 "subject": [{"name": resource, "digest": {"sha256": hex}, "annotations": {"length": bytes}}],
                 "predicateType": DETACHED, MANIFEST or MAC,
                 "predicate": {"purpose": …, "key": key ARN, "algorithm": KMS's name, "signedAt": UTC}}

The signed bytes hold the resource's name, the purpose, the key and the digest, so a signature moved to
another resource, purpose or key fails. They are at most 4,096 bytes, whatever the resource's length,
so KMS signs them as a raw message with every kind of key.

Pure: bytes in, values out; whoever calls hands in the verification.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from phicrypt.core.strict_json import parse_json
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATES: Final = "https://github.com/phicrypt/phicrypt/tree/main/docs/signatures.md"
DETACHED: Final = f"{_PREDICATES}#detached-v1"
MANIFEST: Final = f"{_PREDICATES}#manifest-v1"
MAC: Final = f"{_PREDICATES}#mac-v1"

DIGESTS: Final = ("sha256", "sha384", "sha512")
MAX_SIGNED_LENGTH_BYTES: Final = 4_096
"""KMS signs raw messages up to this length."""
MAX_ENVELOPE_LENGTH_BYTES: Final = 64 * 1024
MAX_SIGNATURES: Final = 16
_READ_LENGTH_BYTES: Final = 1024 * 1024


class Readable(Protocol):
    """A binary source of which only ``read`` is needed."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A resource as signed: name, length and digest.

    Attributes:
        name: what the resource is called where its readers look for it.
        digest_name: one of :data:`DIGESTS`.
        digest: its bytes.
        length_bytes: the length of the resource.
    """

    name: str
    digest_name: str
    digest: bytes
    length_bytes: int

    def __repr__(self) -> str:
        return f"<Fingerprint {self.digest_name} of {self.length_bytes} bytes>"


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signature says. ``signed_at`` is the signer's own clock, RFC 3339 in UTC."""

    predicate_type: str
    subject: Fingerprint
    purpose: str
    key_arn: str
    algorithm: str
    signed_at: str | None

    def __repr__(self) -> str:
        return f"<Statement by {self.key_arn} with {self.algorithm}, {self.subject!r}>"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope as read; nothing in it is verified yet."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def signed_bytes(self) -> bytes:
        return pae(PAYLOAD_TYPE, self.payload)


def fingerprint(name: str, source: bytes | bytearray | memoryview | Readable, digest_name: str) -> Fingerprint:
    """Digest and length of bytes, or of a source read once to its end.

    Raises ConfigurationError for an unknown digest or an empty name.
    """
    if digest_name not in DIGESTS:
        raise ConfigurationError(f"the digest is one of {', '.join(DIGESTS)}, not {digest_name!r}")
    if not isinstance(name, str) or not name:
        raise ConfigurationError("a resource's name is non-empty text")
    running = hashlib.new(digest_name)
    if isinstance(source, bytes | bytearray | memoryview):
        running.update(source)
        return Fingerprint(name, digest_name, running.digest(), memoryview(source).nbytes)
    if not hasattr(source, "read"):
        raise ConfigurationError(f"bytes or a binary source with read were expected, {type(source).__name__} came")
    length = 0
    while piece := source.read(_READ_LENGTH_BYTES):
        running.update(piece)
        length += len(piece)
    return Fingerprint(name, digest_name, running.digest(), length)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, as the module's head lays it out."""
    encoded_type = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(encoded_type), encoded_type, len(payload), payload)


def write_statement(statement: Statement) -> bytes:
    """The payload: canonical JSON (sorted members, no spaces, UTF-8).

    Raises ConfigurationError for an empty purpose or text that UTF-8 cannot hold, LimitExceededError
    if the signed bytes would pass :data:`MAX_SIGNED_LENGTH_BYTES` (name and purpose are too long).
    """
    if not isinstance(statement.purpose, str) or not statement.purpose:
        raise ConfigurationError("a purpose is non-empty text, such as 'lab-result-release'")
    predicate = {
        "purpose": statement.purpose,
        "key": statement.key_arn,
        "algorithm": statement.algorithm,
    }
    if statement.signed_at is not None:
        predicate["signedAt"] = statement.signed_at
    payload = canonical_json(
        {
            "_type": _STATEMENT_TYPE,
            "subject": [descriptor(statement.subject)],
            "predicateType": statement.predicate_type,
            "predicate": predicate,
        }
    )
    length = len(pae(PAYLOAD_TYPE, payload))
    if length > MAX_SIGNED_LENGTH_BYTES:
        raise LimitExceededError(
            "the resource's name and the purpose are too long in bytes to be signed",
            limit=MAX_SIGNED_LENGTH_BYTES,
            actual=length,
        )
    return payload


def write_envelope(payload: bytes, key_arn: str, signature: bytes) -> bytes:
    """A signature file: the envelope as JSON with a line feed."""
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_arn, "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def read_envelope(envelope: bytes) -> Envelope:
    """Raises FormatError or LimitExceededError; members that DSSE does not know are ignored."""
    if len(envelope) > MAX_ENVELOPE_LENGTH_BYTES:
        raise LimitExceededError(
            "the signature file is too long in bytes", limit=MAX_ENVELOPE_LENGTH_BYTES, actual=len(envelope)
        )
    members = json_object(strict_json(envelope, "envelope"), "envelope")
    if members.get("payloadType") != PAYLOAD_TYPE:
        raise FormatError(f"{PAYLOAD_TYPE} was expected", field="payloadType")
    entries = members.get("signatures")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SIGNATURES:
        raise FormatError(f"a list of 1 to {MAX_SIGNATURES} signatures was expected", field="signatures")
    signatures = []
    for entry in entries:
        fields = json_object(entry, "signatures")
        keyid = fields.get("keyid", "")
        signatures.append((keyid if isinstance(keyid, str) else "", _base64(fields.get("sig"), "sig")))
    return Envelope(_base64(members.get("payload"), "payload"), tuple(signatures))


def open_envelope(
    envelope: Envelope, *, is_own_key: Callable[[str], bool], verify: Callable[[bytes, bytes], None]
) -> Statement:
    """The statement, after a signature of the expected key verified over it.

    Args:
        envelope: as read.
        is_own_key: whether a key ARN names the key that must have signed.
        verify: ``(signed bytes, signature)``; raises AuthenticationError.

    Raises AuthenticationError if no signature names the key, none verifies, or the statement was made
    for another key; FormatError for a statement of another shape.
    """
    candidates = [signature for keyid, signature in envelope.signatures if is_own_key(keyid)]
    if not candidates:
        raise AuthenticationError("no signature by the expected key")
    refusal: AuthenticationError | None = None
    for signature in candidates:
        try:
            verify(envelope.signed_bytes, signature)
        except AuthenticationError as error:
            refusal = error
        else:
            break
    else:
        assert refusal is not None
        raise refusal
    statement = _read_statement(envelope.payload)
    if not is_own_key(statement.key_arn):
        raise AuthenticationError("statement of another key")
    return statement


def check_statement(statement: Statement, expected: Statement) -> None:
    """Raise AuthenticationError, naming the field as reason, unless a verified statement says what
    is expected. ``signed_at`` and the key ARN (checked before) are not compared."""
    found, wanted = statement.subject, expected.subject
    for reason, agrees in (
        ("statement type", statement.predicate_type == expected.predicate_type),
        ("resource", found.name == wanted.name),
        ("purpose", statement.purpose == expected.purpose),
        ("algorithm", statement.algorithm == expected.algorithm),
        ("length", found.length_bytes == wanted.length_bytes),
        ("digest", (found.digest_name, found.digest) == (wanted.digest_name, wanted.digest)),
    ):
        if not agrees:
            raise AuthenticationError(f"signed {reason}")


def _read_statement(payload: bytes) -> Statement:
    members = json_object(strict_json(payload, "statement"), "statement")
    if members.get("_type") != _STATEMENT_TYPE:
        raise FormatError(f"{_STATEMENT_TYPE} was expected", field="_type")
    subjects = members.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise FormatError("exactly one subject was expected", field="subject")
    predicate = json_object(members.get("predicate"), "predicate")
    signed_at = predicate.get("signedAt")
    return Statement(
        predicate_type=_text(members.get("predicateType"), "predicateType"),
        subject=read_descriptor(subjects[0], "subject"),
        purpose=_text(predicate.get("purpose"), "purpose"),
        key_arn=_text(predicate.get("key"), "key"),
        algorithm=_text(predicate.get("algorithm"), "algorithm"),
        signed_at=None if signed_at is None else _text(signed_at, "signedAt"),
    )


def descriptor(entry: Fingerprint) -> dict[str, Any]:
    """An in-toto ResourceDescriptor: name, one digest, and the length as an annotation."""
    return {
        "name": entry.name,
        "digest": {entry.digest_name: entry.digest.hex()},
        "annotations": {"length": entry.length_bytes},
    }


def read_descriptor(value: object, field: str) -> Fingerprint:
    """The inverse of :func:`descriptor`. Raises FormatError."""
    members = json_object(value, field)
    name = _text(members.get("name"), f"{field}.name")
    digests = json_object(members.get("digest"), f"{field}.digest")
    length = json_object(members.get("annotations"), f"{field}.annotations").get("length")
    if type(length) is not int or length < 0:
        raise FormatError("a length of zero or more bytes was expected", field=f"{field}.annotations.length")
    if len(digests) != 1 or (digest_name := next(iter(digests))) not in DIGESTS:
        raise FormatError(f"one digest of {', '.join(DIGESTS)} was expected", field=f"{field}.digest")
    hexadecimal, digest = _text(digests[digest_name], f"{field}.digest"), None
    with suppress(ValueError):
        digest = bytes.fromhex(hexadecimal)
    if digest is None:
        raise FormatError("hexadecimal digits were expected", field=f"{field}.digest")
    if len(digest) != hashlib.new(digest_name).digest_size:
        raise FormatError(f"a whole {digest_name} digest was expected", field=f"{field}.digest")
    return Fingerprint(name, digest_name, digest, length)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Sorted members, no spaces, UTF-8. Raises ConfigurationError for text that UTF-8 cannot hold."""
    with suppress(UnicodeEncodeError):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    raise ConfigurationError("names and purposes must be valid Unicode text")


def strict_json(text: bytes, field: str) -> object:
    """JSON without repeated members, of which two readers may take different ones. Raises FormatError."""
    return parse_json(text, field=field)


def json_object(value: object, field: str) -> Mapping[str, Any]:
    """Raises FormatError for anything but an object."""
    if not isinstance(value, dict):
        raise FormatError("an object was expected", field=field)
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise FormatError("non-empty text was expected", field=field)
    return value


def _base64(value: object, field: str) -> bytes:
    """Standard or URL-safe alphabet, as DSSE allows."""
    text = _text(value, field).translate(str.maketrans("-_", "+/"))
    with suppress(ValueError):
        return base64.b64decode(text, validate=True)
    raise FormatError("base64 was expected", field=field)
