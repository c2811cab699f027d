"""Checkpoints of a log, proofs against them, and what a log and a witness say to each other, as C2SP has them.

::

    opened = open_checkpoint(content, log_keys=[key], witness_keys=[witness])
    opened.checkpoint.size, opened.checkpoint.root          # of an RFC 6962 tree
    opened.cosigned                                         # ((witness's name, POSIX seconds), …)

- https://c2sp.org/tlog-checkpoint: origin, size and root of a tree in a signed note;
- https://c2sp.org/tlog-cosignature: what a witness, or an ML-DSA key of a log, signs;
- https://c2sp.org/tlog-proof: an inclusion proof with its checkpoint, in one file;
- https://c2sp.org/tlog-witness: the request and the answers of ``add-checkpoint``.

Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from phicrypt.errors import AuthenticationError, FormatError
from phicrypt.formats.merkle import HASH_LENGTH_BYTES, MAX_PROOF_HASHES, verify_inclusion
from phicrypt.formats.notes import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    VerifierKey,
    decode_base64,
    encode_base64,
    parse_note,
)

MAX_TREE_SIZE: Final = 2**63 - 1
PROOF_SUFFIX: Final = ".tlog-proof"
_PROOF_START: Final = "c2sp.org/tlog-proof@v1"
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LENGTHS: Final = {ED25519_COSIGNATURE: 64, ML_DSA_44_COSIGNATURE: 2_420}
_TIMESTAMP_LENGTH_BYTES: Final = 8


class NoteSignatureError(AuthenticationError):
    """A checkpoint is not signed by the key that was expected, or that key's signature does not fit."""

    TEXT = (
        "the checkpoint is not signed by the expected key: another key signed it, or its text or signature "
        "was changed"
    )


class Checkpoint(NamedTuple):
    """The head of a tree: the log's origin, how many leaves it has, and their root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text, three lines."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The head from a note's text; extension lines are passed over. Raises FormatError."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise FormatError("three lines that are not empty were expected", field="checkpoint")
        root = decode_base64(lines[2], "checkpoint root")
        if len(root) != HASH_LENGTH_BYTES:
            raise FormatError("a hash of 32 bytes was expected", field="checkpoint root")
        return cls(lines[0], _number(lines[1], "checkpoint size"), root)


class OpenedCheckpoint(NamedTuple):
    """A checkpoint whose signatures verified.

    Attributes:
        checkpoint: what was signed.
        note: as it was read.
        cosigned: each witness that was asked for and signed, with the POSIX seconds that it signed along.
    """

    checkpoint: Checkpoint
    note: Note
    cosigned: tuple[tuple[str, int], ...] = ()


def signed_message(key: VerifierKey, text: str, timestamp_seconds: int) -> bytes:
    """The bytes that a key of this type signs of a checkpoint's text.

    Ed25519 as a log's key signs the text itself, without a time.
    """
    if key.signature_type == ED25519:
        return text.encode()
    if key.signature_type == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {timestamp_seconds}\n{text}".encode()
    checkpoint = Checkpoint.parse(text)
    name, origin = key.name.encode(), checkpoint.origin.encode()
    if len(origin) > 255:
        raise FormatError("at most 255 bytes were expected", field="checkpoint origin")
    return b"".join(
        (
            b"subtree/v1\n\x00",
            *(bytes([len(name)]), name),
            timestamp_seconds.to_bytes(8, "big"),
            *(bytes([len(origin)]), origin),
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def made_signature(key: VerifierKey, signature: bytes, timestamp_seconds: int) -> NoteSignature:
    """The line for a bare signature over :func:`signed_message`."""
    stamped = b"" if key.signature_type == ED25519 else timestamp_seconds.to_bytes(_TIMESTAMP_LENGTH_BYTES, "big")
    return NoteSignature(key.name, key.key_id, stamped + signature)


def check_signature(key: VerifierKey, text: str, line: NoteSignature) -> int:
    """The POSIX seconds that were signed along, or 0. Raises NoteSignatureError for another's signature."""
    timestamp, signature = 0, line.signature
    if key.signature_type in _SIGNATURE_LENGTHS:
        timestamp = int.from_bytes(signature[:_TIMESTAMP_LENGTH_BYTES], "big")
        signature = signature[_TIMESTAMP_LENGTH_BYTES:]
        if len(signature) != _SIGNATURE_LENGTHS[key.signature_type] or timestamp > MAX_TREE_SIZE:
            raise NoteSignatureError("note signature")
    try:
        key.check(signed_message(key, text, timestamp), signature)
    except AuthenticationError:
        fits = False
    else:
        fits = True
    if not fits:
        raise NoteSignatureError("note signature")
    return timestamp


def open_checkpoint(
    content: bytes, *, log_keys: Sequence[VerifierKey], witness_keys: Sequence[VerifierKey] = ()
) -> OpenedCheckpoint:
    """A checkpoint that one of the log's keys signed, and the witnesses among its signatures.

    Signatures of unknown keys are passed over, as C2SP demands; a known key's that does not fit refuses
    the whole checkpoint.

    Args:
        content: the signed note.
        log_keys: keys of the log; the note's origin is the name of the one that signed.
        witness_keys: keys of witnesses. Who signed is in ``cosigned``; how many are enough is the
            caller's to say.

    Raises FormatError, LimitExceededError, NoteSignatureError.
    """
    note = parse_note(content)
    checkpoint = Checkpoint.parse(note.text)
    is_signed = False
    cosigned: dict[str, int] = {}
    for line in note.signatures:
        for key in (key for key in log_keys if key.made(line)):
            check_signature(key, note.text, line)
            is_signed = is_signed or key.name == checkpoint.origin
        for key in (key for key in witness_keys if key.made(line)):
            cosigned[key.name] = check_signature(key, note.text, line)
    if not is_signed:
        raise NoteSignatureError("note key")
    return OpenedCheckpoint(checkpoint, note, tuple(cosigned.items()))


class InclusionProof(NamedTuple):
    """Where a leaf stands, the hashes from it up to the root, and the checkpoint as it was signed.

    ``extra`` is what the proof carries along; nobody signed it.
    """

    leaf_index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def to_bytes(self) -> bytes:
        """C2SP's tlog-proof file."""
        extra = (f"extra {encode_base64(self.extra)}",) if self.extra else ()
        lines = (_PROOF_START, *extra, f"index {self.leaf_index}", *map(encode_base64, self.hashes))
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint

    @classmethod
    def parse(cls, content: bytes) -> InclusionProof:
        """A tlog-proof file. Raises FormatError."""
        head, blank, checkpoint = content.partition(b"\n\n")
        lines = head.decode("utf-8", "replace").split("\n")
        if not blank or lines.pop(0) != _PROOF_START:
            raise FormatError(f"a proof that begins with {_PROOF_START} was expected", field="proof")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "proof extra")
        if not lines or not lines[0].startswith("index "):
            raise FormatError("the line 'index' was expected", field="proof")
        index = _number(lines[0].removeprefix("index "), "proof index")
        return cls(index, _hashes(lines[1:], "proof"), checkpoint, extra)

    def check(self, leaf: bytes, checkpoint: Checkpoint) -> None:
        """Raise ProofMismatchError unless the leaf stands at the index under the checkpoint's root.

        ``checkpoint`` is the one of this proof, after its signatures verified.
        """
        verify_inclusion(
            leaf, index=self.leaf_index, size=checkpoint.size, proof=self.hashes, root=checkpoint.root
        )


def write_add_checkpoint(old_size: int, proof: Iterable[bytes], checkpoint: bytes) -> bytes:
    """The body of ``add-checkpoint``: the size that the witness knows, the consistency proof, the signed note."""
    lines = (f"old {old_size}", *map(encode_base64, proof))
    return "\n".join(lines).encode() + b"\n\n" + checkpoint


def read_known_size(content: bytes) -> int:
    """The size in a witness's answer to a wrong one (409, ``text/x.tlog.size``). Raises FormatError."""
    return _number(content.decode("utf-8", "replace").removesuffix("\n"), "witness's size")


def _number(text: str, field: str) -> int:
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_TREE_SIZE:
        raise FormatError("a decimal number without leading zeros was expected", field=field)
    return int(text)


def _hashes(lines: Sequence[str], field: str) -> tuple[bytes, ...]:
    if len(lines) > MAX_PROOF_HASHES:
        raise FormatError(f"at most {MAX_PROOF_HASHES} hashes were expected", field=field)
    hashes = tuple(decode_base64(line, field) for line in lines)
    if any(len(one) != HASH_LENGTH_BYTES for one in hashes):
        raise FormatError("hashes of 32 bytes were expected", field=field)
    return hashes
