"""Every error that phicrypt raises of its own accord.

::

    PhiCryptError
    ├── ConfigurationError         the set-up is wrong; raised before any AWS call
    ├── UnsupportedOperationError  there is no encrypted form of that call
    ├── FormatError                not a valid message: .field, .offset
    ├── NotEncryptedError          the object or item is plaintext
    ├── AuthenticationError        changed bytes, wrong data key or wrong context; .reason for audit
    │   ├── ManifestMismatchError  signed, but not what lies there (phicrypt.formats.manifests)
    │   ├── NoteSignatureError     not the checkpoint of that log (phicrypt.formats.checkpoints)
    │   └── ProofMismatchError     a record, proof and checkpoint that do not belong together (….merkle)
    ├── ContextMismatchError       the message lacks an expected context pair: .names
    ├── PhiInContextError          a value looks like PHI: .names
    ├── KeyAccessError             KMS or the key store refused: .key_arn, .operation, .code, …
    ├── LimitExceededError         a stated bound was passed: .limit, .actual
    └── AuditError                 the audit event could not be written, so the operation was stopped

No message, attribute or ``repr`` of these carries plaintext, key bytes, context values, attribute
values, object keys or partition keys: names and numbers only, because errors end in logs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final


class PhiCryptError(Exception):
    """Base of every error that phicrypt raises."""


class ConfigurationError(PhiCryptError):
    """The set-up or the arguments are wrong. Raised before anything is sent or sealed."""


class UnsupportedOperationError(PhiCryptError):
    """The call has no encrypted form, so it was refused before the network."""


class FormatError(PhiCryptError):
    """The bytes are not a valid message of the expected format.

    Attributes:
        field: the name of the format's field that is wrong.
        offset: where that field begins, in bytes from the start of the message; ``None`` if unknown.
    """

    def __init__(self, message: str, *, field: str, offset: int | None = None) -> None:
        place = f"{field} at byte {offset}" if offset is not None else field
        super().__init__(f"{place}: {message}")
        self.field = field
        self.offset = offset


class NotEncryptedError(PhiCryptError):
    """The object or item is plaintext: it was not written by an encrypting client."""


class AuthenticationError(PhiCryptError):
    """A tag, signature or key commitment did not verify. Nothing was released.

    The text is the same for every cause, so that an attacker who sees it learns nothing.

    Attributes:
        reason: a short stable word for the audit trail (``"frame tag"``, ``"commitment"``, …).
            Do not show it to whoever supplied the bytes.
    """

    TEXT = (
        "authentication failed: the bytes were changed, or the data key or the context "
        "is not the one they were sealed with; nothing was released"
    )

    def __init__(self, reason: str) -> None:
        super().__init__(self.TEXT)
        self.reason = reason


class ContextMismatchError(PhiCryptError):
    """The message's encryption context lacks an expected pair, has another value for it, or stores it wrongly.

    Attributes:
        names: the names (never the values) of the pairs that did not match, sorted.
    """

    DIFFERENT = (
        "the message's encryption context does not hold the expected value for {names}; "
        "pass the context that the message was encrypted with"
    )
    ABSENT = (
        "the message stores no pair named {names}. One that was bound without being stored is read with "
        "required_context naming it and its value in the context; otherwise this message was encrypted with "
        "another context"
    )

    def __init__(self, names: Iterable[str], text: str = DIFFERENT) -> None:
        self.names = tuple(sorted(names))
        super().__init__(text.replace("{names}", ", ".join(repr(name) for name in self.names)))


class PhiInContextError(PhiCryptError):
    """A value looks like protected health information. Contexts stand in clear in CloudTrail.

    Attributes:
        names: the names (never the values) of the offending pairs, sorted.
    """

    def __init__(self, names: Iterable[str], *, where: str = "encryption context") -> None:
        self.names = tuple(sorted(names))
        self.where = where
        super().__init__(
            f"the {where} value of {', '.join(repr(name) for name in self.names)} looks like protected "
            "health information; it would stand in clear in CloudTrail and in the stored object. "
            "Use an opaque identifier instead"
        )


KEY_STORE_CODES: Final = frozenset(
    {
        "CustomKeyStoreInvalidStateException",
        "KMSInvalidStateException",
        "XksProxyInvalidResponseException",
        "XksProxyUriUnreachableException",
    }
)
"""KMS's codes for whatever befell a custom key store; what it was stands in AWS's text."""


class KeyAccessError(PhiCryptError):
    """KMS or the branch key store refused, or could not be reached.

    Attributes:
        key_arn: the KMS key (or key store table) that was asked, if known.
        operation: the AWS operation, such as ``"Decrypt"``.
        code: AWS's error code, or the class of the connection error.
        request_id: AWS's request id, if an answer came.
        is_retryable: whether the same call may succeed later (throttling, 5xx, network).
        is_outage: no answer came, or a 5xx, so that another Region may serve (rule 13); or the external key store
            of the key is out, which no other Region replaces.
        request_ids: AWS's request id of each answered attempt, retries included, in order.
        correlation_id: what the call carried in its user agent, where there was a call.
        unanswered_attempts: how many attempts got no answer; AWS may have handled them all the same.
        earlier_calls: calls that succeeded before this refusal undid them, as the audit trail names them.
        causes: the single refusals, where several keys or Regions were tried; else empty.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        code: str,
        key_arn: str | None = None,
        request_id: str | None = None,
        is_retryable: bool = False,
        is_outage: bool = False,
        request_ids: tuple[str, ...] = (),
        correlation_id: str | None = None,
        unanswered_attempts: int = 0,
        causes: tuple[KeyAccessError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.key_arn = key_arn
        self.operation = operation
        self.code = code
        self.request_id = request_id
        self.is_retryable = is_retryable
        self.is_outage = is_outage
        self.request_ids = request_ids
        self.correlation_id = correlation_id
        self.unanswered_attempts = unanswered_attempts
        self.earlier_calls: tuple[object, ...] = ()  # of KeyOrigin, which stands above the errors
        self.causes = causes

    @property
    def another_region_may_serve(self) -> bool:
        """The service itself is out, which a breaker counts and failover is for; not a key store behind it."""
        return self.is_outage and self.code not in KEY_STORE_CODES


class LimitExceededError(PhiCryptError):
    """A stated bound was passed; refused before anything was allocated for it.

    Attributes:
        limit: the bound.
        actual: what was found (or ``None`` where finding out would pass the bound).
        setting: what raises the bound, such as ``"ReadLimits.max_spool_bytes"``; empty for a bound that is fixed.
    """

    def __init__(self, message: str, *, limit: int, actual: int | None, setting: str = "") -> None:
        found = "more" if actual is None else actual
        raised_by = f"; {setting} sets it" if setting else ""
        super().__init__(f"{message} (limit {limit}, found {found}{raised_by})")
        self.limit = limit
        self.actual = actual
        self.setting = setting


class AuditError(PhiCryptError):
    """An audit event could not be written, so the operation was stopped.

    Attributes:
        sink: the kind of sink that did not take it, such as ``"JsonlSink"``; empty where no sink was asked.
        where: the file or place that it writes to, where the sink says so.
    """

    def __init__(self, message: str, *, sink: str = "", where: str = "") -> None:
        super().__init__(message)
        self.sink = sink
        self.where = where
