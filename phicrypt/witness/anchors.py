"""Anchors: the head of a chain in the encryption context of a KMS call, so that CloudTrail witnesses it.

CloudTrail records the encryption context of KMS calls. An anchor is one GenerateDataKeyWithoutPlaintext
(it returns no plaintext key, and what it returns is thrown away) with the context::

    phicrypt-audit-chain      the chain's id
    phicrypt-audit-sequence   the number of its newest record
    phicrypt-audit-head       that record's SHA-256

Whoever rewrites or cuts the log before an anchor contradicts CloudTrail (rule 21). Use a KMS key that
serves only this: callers need ``kms:GenerateDataKeyWithoutPlaintext`` on it, and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from phicrypt._lazy import lazy_names
from phicrypt.audit.events import AuditEvent, Kind, describe_error, refused_origin
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.audit.sinks.jsonl import JsonlSink
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.calls import call_kms, kms_client, safe_kms_client, tagged

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

_log = logging.getLogger("phicrypt.audit")
ANCHOR_OPERATION: Final = "GenerateDataKeyWithoutPlaintext"
CHAIN_NAME: Final = "phicrypt-audit-chain"
SEQUENCE_NAME: Final = "phicrypt-audit-sequence"
HEAD_NAME: Final = "phicrypt-audit-head"


class AnchoredSink:
    """A JSONL sink whose chain is anchored every so many records, every so many seconds, and at the end.

    Anchors are made by a thread of its own; a KMS that does not answer never delays or stops an
    operation, but ``last_error`` and the log tell, and verification shows what is unanchored.

    Args:
        sink: the sink with the chain.
        key_arn: the KMS key that serves for anchors only.
        client: a boto3 KMS client; None makes one for the key's Region.
        every_records: anchor when so many records came since the last one.
        every_seconds: and when the oldest unanchored record is this old.
    """

    def __init__(
        self,
        sink: JsonlSink,
        key_arn: str,
        *,
        client: KMSClient | None = None,
        every_records: int = 10_000,
        every_seconds: float = 300,
    ) -> None:
        if every_records < 1 or every_seconds < 0.01:
            raise ConfigurationError("every_records is at least 1, every_seconds at least 0.01")
        if client is not None:
            client = safe_kms_client(client)
        self._sink = sink
        self._key_arn = key_arn
        self._client = client
        self._every_records = every_records
        self._every_seconds = every_seconds
        self._unanchored = 0
        self._anchored: ChainHead | None = None
        self._newest: AuditEvent | None = None
        self._pid = 0
        self._wake = threading.Event()
        self._anchoring = threading.Lock()
        self.last_error: KeyAccessError | None = None

    def __repr__(self) -> str:
        return f"<AnchoredSink around {self._sink!r}, under {self._key_arn}>"

    @property
    def head(self) -> ChainHead | None:
        """The newest record of this process's chain."""
        return self._sink.head

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append the events to the chain. Raises SinkError."""
        self._sink.write(events)
        self._unanchored += len(events)
        self._newest = events[-1]
        if self._pid != os.getpid():
            self._start()
        if self._unanchored >= self._every_records and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Anchor what is not yet anchored, then close the sink."""
        try:
            if self._unanchored and self._pid == os.getpid():
                self.anchor()
        except KeyAccessError as error:
            self._complain(error)
        finally:
            self._pid = 0
            self._wake.set()
            self._sink.close()

    def anchor(self) -> ChainHead | None:
        """Anchor the head of the chain now; the head, or None if there is nothing new. Raises KeyAccessError."""
        with self._anchoring:
            head = self._sink.head
            if head is None or head == self._anchored:
                return None
            count = self._unanchored
            try:
                origin = self._show(head)
            except BaseException as error:
                self._record(head, refused_origin(error), error)
                raise
            self._record(head, origin, None)
            self._anchored = self._sink.head
            self._unanchored = max(0, self._unanchored - count)
            self.last_error = None
            return head

    def _show(self, head: ChainHead) -> KeyOrigin:
        """Let CloudTrail see the head; the call that did."""
        answer = call_kms(
            self._kms(),
            ANCHOR_OPERATION,
            key_arn=self._key_arn,
            KeyId=self._key_arn,
            KeySpec="AES_256",
            EncryptionContext={
                CHAIN_NAME: head.chain_id,
                SEQUENCE_NAME: str(head.sequence),
                HEAD_NAME: head.sha256,
            },
        )
        return KeyOrigin(
            "aws-kms",
            self._key_arn,
            request_ids=answer.request_ids,
            correlation_id=answer.correlation_id,
            operation=ANCHOR_OPERATION,
            unanswered_attempts=answer.unanswered_attempts,
        )

    def _record(self, head: ChainHead, origin: KeyOrigin | None, error: BaseException | None) -> None:
        """The anchor's own record in the chain; of an attempt that failed as well."""
        outcome, error_name, reason = describe_error(error)
        event = AuditEvent(
            time.time_ns(),
            Kind.ANCHOR,
            f"{head.chain_id}-{head.sequence}",
            "audit.anchor",
            outcome,
            origin=origin,
            cache_hit=False,
            application=self._newest.application if self._newest is not None else None,
            principal=self._newest.principal if self._newest is not None else None,
            error=error_name,
            reason=reason,
            detail={"sequence": head.sequence, "sha256": head.sha256},
        )
        self._sink.write([event])

    def _kms(self) -> Any:
        if self._client is None:
            arn = parse_kms_arn(self._key_arn)
            self._client = kms_client(arn.region if arn is not None else None)
        return tagged(self._client)

    def _start(self) -> None:
        """Begin the thread of this process; after a fork, the child's own."""
        self._pid = os.getpid()
        self._unanchored = min(self._unanchored, 1)
        self._wake = threading.Event()
        self._anchoring = threading.Lock()
        threading.Thread(
            target=_anchor_periodically,
            args=(weakref.ref(self), self._wake, self._every_seconds, self._pid),
            name="phicrypt-audit-anchors",
            daemon=True,
        ).start()

    def _complain(self, error: KeyAccessError) -> None:
        if self.last_error is None:
            _log.error("the audit chain could not be anchored: %s", error.code)
        self.last_error = error


def _anchor_periodically(
    reference: weakref.ref[AnchoredSink], wake: threading.Event, every_seconds: float, pid: int
) -> None:
    while True:
        wake.wait(timeout=every_seconds)
        sink = reference()
        if sink is None or sink._pid != pid:
            return
        wake.clear()
        try:
            if sink._unanchored:
                sink.anchor()
        except KeyAccessError as error:
            sink._complain(error)
        except Exception:  # noqa: BLE001 - whatever goes wrong here must not end the anchoring
            _log.exception("the audit chain could not be anchored")
        if sink.last_error is not None:
            del sink
            time.sleep(min(every_seconds, 5.0))
        else:
            del sink


__getattr__, _ = lazy_names(__name__, {}, {"anchors_in": "phicrypt.evidence.anchors"})
