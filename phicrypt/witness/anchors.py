"""Anchors: the head of a chain in the encryption context of a KMS call, so that CloudTrail witnesses it.

CloudTrail records the encryption context of KMS calls. An anchor is one GenerateDataKeyWithoutPlaintext
(it returns no plaintext key, and what it returns is thrown away) with the context::

    phicrypt-audit-chain      the chain's id
    phicrypt-audit-sequence   the number of its newest record
    phicrypt-audit-head       that record's SHA-256
    phicrypt-audit-tree-size  with checkpoints: how many lines the whole log has, and the root over them in
    phicrypt-audit-tree-root  hexadecimal (:mod:`phicrypt.witness.checkpoints`)

Whoever rewrites or cuts the log before an anchor contradicts CloudTrail (rule 21). Use a KMS key that
serves only this: callers need ``kms:GenerateDataKeyWithoutPlaintext`` on it, and nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from phicrypt._lazy import lazy_names
from phicrypt.audit.events import AuditEvent, Kind, describe_error, refused_origin
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.audit.sinks.jsonl import JsonlSink
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.errors import PhiCryptError
from phicrypt.formats.checkpoints import Checkpoint
from phicrypt.keys.kms.calls import call_kms, kms_client, safe_kms_client, tagged
from phicrypt.witness.checkpoints import Checkpoints
from phicrypt.witness.periodic import PeriodicSink, check_same_log

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

ANCHOR_OPERATION: Final = "GenerateDataKeyWithoutPlaintext"
CHAIN_NAME: Final = "phicrypt-audit-chain"
SEQUENCE_NAME: Final = "phicrypt-audit-sequence"
HEAD_NAME: Final = "phicrypt-audit-head"
TREE_SIZE_NAME: Final = "phicrypt-audit-tree-size"
TREE_ROOT_NAME: Final = "phicrypt-audit-tree-root"


class AnchoredSink(PeriodicSink):
    """A JSONL sink whose chain is anchored every so many records, every so many seconds, and at the end.

    Anchors are made by a thread of its own; a KMS that does not answer never delays or stops an
    operation, but ``last_error`` and the log tell, and verification shows what is unanchored.

    Args:
        sink: the sink with the chain.
        key_arn: the KMS key that serves for anchors only.
        client: a boto3 KMS client; None makes one for the key's Region.
        every_records: anchor when so many records came since the last one.
        every_seconds: and when the oldest unanchored record is this old.
        checkpoints: also sign a checkpoint of the same log each time, and show its root beside the head.
    """

    def __init__(
        self,
        sink: JsonlSink,
        key_arn: str,
        *,
        client: KMSClient | None = None,
        every_records: int = 10_000,
        every_seconds: float = 300,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        super().__init__(sink, every_records=every_records, every_seconds=every_seconds)
        check_same_log(sink, checkpoints)
        self._key_arn = key_arn
        self._client = safe_kms_client(client) if client is not None else None
        self._checkpoints = checkpoints
        self._anchored: ChainHead | None = None

    def __repr__(self) -> str:
        return f"<AnchoredSink around {self._sink!r}, under {self._key_arn}>"

    def close(self) -> None:
        """Anchor what is not yet anchored, then close the sink."""
        self._finish()

    def _witness(self) -> None:
        self.anchor()

    def anchor(self) -> ChainHead | None:
        """Anchor the head of the chain now; the head, or None if there is nothing new. Raises KeyAccessError."""
        with self._witnessing:
            head = self._sink.head
            if head is None or head == self._anchored:
                return None
            count = self._unanchored
            root, refusal = self._root()
            try:
                origin = self._show(head, root)
            except BaseException as error:
                self._record(head, root, refused_origin(error), error)
                raise
            self._record(head, root, origin, None)
            self._anchored = self._sink.head
            self._unanchored = max(0, self._unanchored - count)
            self.last_error = None
            if refusal is not None:
                self._complain(refusal)
            return head

    def _root(self) -> tuple[Checkpoint | None, PhiCryptError | None]:
        """The checkpoint of now, or why there is none: an anchor of the chain is made all the same."""
        if self._checkpoints is None:
            return None, None
        try:
            opened = self._checkpoints.checkpoint(trail=self._trail(), tolerate_witnesses=True)
            return opened.checkpoint, self._checkpoints.witness_error
        except PhiCryptError as error:
            return None, error

    def _show(self, head: ChainHead, root: Checkpoint | None) -> KeyOrigin:
        """Let CloudTrail see the head, and the root of the log's tree; the call that did."""
        tree = {} if root is None else {TREE_SIZE_NAME: str(root.size), TREE_ROOT_NAME: root.root.hex()}
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
                **tree,
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

    def _record(
        self, head: ChainHead, root: Checkpoint | None, origin: KeyOrigin | None, error: BaseException | None
    ) -> None:
        """The anchor's own record in the chain; of an attempt that failed as well."""
        outcome, error_name, reason = describe_error(error)
        tree = {} if root is None else {"tree_size": root.size, "tree_root": root.root.hex()}
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
            detail={"sequence": head.sequence, "sha256": head.sha256, **tree},
        )
        self._sink.write([event])

    def _kms(self) -> Any:
        if self._client is None:
            arn = parse_kms_arn(self._key_arn)
            self._client = kms_client(arn.region if arn is not None else None)
        return tagged(self._client)


__getattr__, _ = lazy_names(__name__, {}, {"anchors_in": "phicrypt.evidence.anchors"})
