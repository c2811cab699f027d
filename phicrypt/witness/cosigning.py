"""Witnesses: somebody else's service that cosigns a log's checkpoints, and only growth (C2SP tlog-witness).

::

    Checkpoints(path, key, witnesses=[Witness("https://witness.example/", "witness.example/w1+…")])

A witness remembers the largest checkpoint that it cosigned of each log and asks for a proof that the next one
continues it. It learns the log's name, its size and hashes, and nothing of a record. What it answers is
believed as far as its signature verifies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from phicrypt.errors import AuditError, ConfigurationError, FormatError, PhiCryptError
from phicrypt.formats.checkpoints import Checkpoint, check_signature, read_known_size, write_add_checkpoint
from phicrypt.formats.notes import (
    ED25519_COSIGNATURE,
    MAX_NOTE_LENGTH_BYTES,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    VerifierKey,
    parse_signature_lines,
)

if TYPE_CHECKING:
    import urllib3

_MAX_QUESTIONS: Final = 3
"""The size that a witness knows is a guess at first; its answer may be overtaken once."""
_LOOPBACK: Final = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")
_REFUSALS: Final = {
    400: "it could not read the request",
    403: "it does not know this log's key; its operator adds the verifier key and the origin",
    404: "it does not know this log; its operator adds the origin and the verifier key",
    422: "the log does not continue what it cosigned before: lines were changed, removed, moved or inserted",
}


class Witness:
    """A witness by its address and its verifier key.

    Args:
        url: the witness's submission prefix: https, or http on loopback.
        verifier_key: of cosignatures, Ed25519 (type 0x04) or ML-DSA-44 (0x06); from the witness's operator.
        timeout_seconds: for connecting, and for each read.
        ca_bundle: path of the certificates to trust; None takes the system's.

    Raises ConfigurationError for another URL or kind of key.
    """

    def __init__(
        self,
        url: str,
        verifier_key: str | VerifierKey,
        *,
        timeout_seconds: float = 10.0,
        ca_bundle: str | None = None,
    ) -> None:
        address = urlsplit(url)
        is_loopback = address.scheme == "http" and _LOOPBACK.fullmatch(address.hostname or "") is not None
        if not address.hostname or not (address.scheme == "https" or is_loopback):
            raise ConfigurationError("a witness is asked at an https URL, or http on loopback")
        self.url = url.rstrip("/")
        self.key = VerifierKey.parse(verifier_key) if isinstance(verifier_key, str) else verifier_key
        if self.key.signature_type not in (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE):
            raise ConfigurationError(
                f"the key of {self.key.name} is of type {self.key.signature_type:#04x}; "
                "a witness's is of type 0x04 or 0x06"
            )
        self._timeout_seconds = timeout_seconds
        self._ca_bundle = ca_bundle

    def __repr__(self) -> str:
        return f"<Witness {self.key.name} at {self.url}>"

    def has_cosigned(self, note: Note) -> bool:
        """Whether a signature of this witness, which verifies, stands in a note."""
        return any(self._fits(note, line) for line in note.signatures if self.key.made(line))

    def cosign(
        self, note: Note, *, known_size: int, proof_from: Callable[[int], Sequence[bytes]]
    ) -> tuple[NoteSignature, ...]:
        """The witness's signatures over a checkpoint.

        Args:
            note: signed by the log.
            known_size: what the witness is thought to know; 0 if that is unknown.
            proof_from: the consistency proof from a size to the checkpoint's.

        Raises AuditError where the witness refuses, cannot be reached, or answers something else.
        """
        size = Checkpoint.parse(note.text).size
        for _ in range(_MAX_QUESTIONS):
            body = write_add_checkpoint(known_size, proof_from(known_size), note.to_bytes())
            status, answer = self._post(body)
            if status == 200:
                return self._signatures(note, answer)
            if status != 409:
                what = _REFUSALS.get(status, f"it answered with status {status}")
                raise self._refusal(f"does not cosign {size:,} lines: {what}")
            known_size = self._known_size(answer)
            if known_size > size:
                raise self._refusal(
                    f"has cosigned {known_size:,} lines of this log, which has {size:,}: it was cut, or another "
                    "log has the same origin"
                )
        raise self._refusal("goes on naming other sizes than it was asked with")

    def _signatures(self, note: Note, answer: bytes) -> tuple[NoteSignature, ...]:
        """The lines of the witness's own key; others are passed over, as C2SP demands."""
        try:
            lines = tuple(line for line in parse_signature_lines(answer) if self.key.made(line))
            fits = bool(lines) and all(self._fits(note, line) for line in lines)
        except PhiCryptError:
            fits = False
        if not fits:
            raise self._refusal(f"answered without a signature of {self.key.name} that verifies")
        return lines

    def _fits(self, note: Note, line: NoteSignature) -> bool:
        try:
            # A cosignature without a time would not say when the tree was the largest.
            return check_signature(self.key, note.text, line) > 0
        except PhiCryptError:
            return False

    def _known_size(self, answer: bytes) -> int:
        try:
            return read_known_size(answer)
        except FormatError:
            size = -1
        if size < 0:
            raise self._refusal("named no size in its answer")
        return size

    def _post(self, body: bytes) -> tuple[int, bytes]:
        import urllib3

        pool: urllib3.PoolManager = urllib3.PoolManager(ca_certs=self._ca_bundle, retries=False)
        try:
            response = pool.request(
                "POST",
                f"{self.url}/add-checkpoint",
                body=body,
                headers={"Content-Type": "text/plain; charset=utf-8", "User-Agent": "phicrypt"},
                timeout=self._timeout_seconds,
                preload_content=False,
                redirect=False,
            )
            try:
                # One byte more than a note may have: what is longer is refused, not cut.
                return response.status, response.read(MAX_NOTE_LENGTH_BYTES + 1)
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = type(error).__name__
        finally:
            pool.clear()
        raise self._refusal(f"cannot be reached ({reason}); the checkpoint stands without its cosignature")

    def _refusal(self, what: str) -> AuditError:
        return AuditError(f"the witness {self.key.name} {what}", sink="Witness", where=self.url)
