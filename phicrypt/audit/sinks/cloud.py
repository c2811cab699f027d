"""Sinks in AWS: segments in an S3 bucket with Object Lock, and CloudWatch Logs.

Both write the same records as the JSONL file, one chain per process, so that what is read back can be
verified. A call that failed may still have stored its records; the chain is then given up and a new
one begun, whose first record names where the old one stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import Chain, ChainHead
from phicrypt.core.aws_clients import check_client
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_s3.client import S3Client

SIX_YEARS_DAYS: Final = 2_192
"""HIPAA's retention of documentation (45 CFR 164.316), with leap days."""
_MAX_BATCH_BYTES: Final = 1_048_576
_MAX_BATCH_EVENTS: Final = 10_000
_OVERHEAD_BYTES: Final = 26
_MAX_EVENT_BYTES: Final = 262_144


class _ChainedSink:
    """A chain per process, and what to do when a write fails."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chain: Chain | None = None
        self._given_up: ChainHead | None = None
        self._pid = os.getpid()

    @property
    def head(self) -> ChainHead | None:
        """The newest record of this process's chain."""
        return self._chain.head if self._chain is not None else None

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Store the events in one call. Raises SinkError."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._chain = os.getpid(), threading.Lock(), None
        with self._lock:
            try:
                chain = self._chain
                if chain is None:
                    chain = Chain()
                    start = chain.start_event(follows=self._given_up.sha256 if self._given_up else None)
                    self._begin(chain)
                    events = [start, *events]
                lines, hashes = chain.lines(events)
                first = (chain.head.sequence + 1) if chain.head else 0
                self._store(chain.chain_id, first, events, lines)
            except Exception as error:
                self._given_up = self.head or self._given_up
                self._chain = None
                raise SinkError(f"{type(self).__name__}: {_code(error)}", written=0) from error
            chain.advance(hashes)
            self._chain = chain

    def close(self) -> None:
        """Nothing is held back."""

    def _begin(self, chain: Chain) -> None:
        """Prepare for a new chain."""

    def _store(self, chain_id: str, first: int, events: Sequence[AuditEvent], lines: list[bytes]) -> None:
        raise NotImplementedError


class S3SegmentSink(_ChainedSink):
    """Each batch of events as one object of lines, locked against deletion and overwriting.

    Object keys are ``<prefix>/<yyyy>/<mm>/<dd>/<chain>/<first sequence>.jsonl``. An object per event
    is slow and costs money: give it a buffered policy with a large batch, beside a local file that
    stops the operation::

        rarely = Delivery(100_000, max_delay_seconds=60, batch_events=5_000)
        audit=[JsonlSink("audit.jsonl"), WithPolicy(S3SegmentSink("audit-bucket"), rarely, rarely)]

    Args:
        bucket: a bucket with Object Lock enabled; in compliance mode nobody, root included, can
            delete an object before its time.
        prefix: before each object key.
        client: a boto3 S3 client; None makes one.
        retention_days: from today; six years by default.
        mode: ``"COMPLIANCE"``, or ``"GOVERNANCE"``, which privileged users can lift.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "phicrypt-audit",
        *,
        client: S3Client | None = None,
        retention_days: int = SIX_YEARS_DAYS,
        mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE",
    ) -> None:
        if mode not in ("COMPLIANCE", "GOVERNANCE") or retention_days < 1:
            raise ConfigurationError("mode is COMPLIANCE or GOVERNANCE, retention_days at least 1")
        if client is not None:
            check_client(client, service="s3")
        super().__init__()
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._client = client
        self._retention_days = retention_days
        self._mode = mode

    def __repr__(self) -> str:
        return f"<S3SegmentSink to {self._bucket!r}, {self._mode} for {self._retention_days} days>"

    def _store(self, chain_id: str, first: int, events: Sequence[AuditEvent], lines: list[bytes]) -> None:
        if self._client is None:
            import boto3

            self._client = boto3.client("s3")
        now = datetime.now(UTC)
        self._client.put_object(
            Bucket=self._bucket,
            Key=f"{self._prefix}/{now:%Y/%m/%d}/{chain_id}/{first:012d}.jsonl",
            Body=b"".join(lines),
            ContentType="application/x-ndjson",
            ChecksumAlgorithm="SHA256",
            IfNoneMatch="*",
            ObjectLockMode=self._mode,
            ObjectLockRetainUntilDate=now + timedelta(days=self._retention_days),
        )


class CloudWatchLogsSink(_ChainedSink):
    """Events as log events of a CloudWatch log group, one log stream per chain.

    Args:
        log_group: an existing log group; set its retention, and encrypt it with a KMS key, yourself.
        stream_prefix: before the chain's id in the name of the log stream.
        client: a boto3 CloudWatch Logs client; None makes one.
    """

    def __init__(
        self, log_group: str, *, stream_prefix: str = "phicrypt-audit", client: CloudWatchLogsClient | None = None
    ) -> None:
        if client is not None:
            check_client(client, service="logs")
        super().__init__()
        self._log_group = log_group
        self._stream_prefix = stream_prefix
        self._client = client

    def __repr__(self) -> str:
        return f"<CloudWatchLogsSink to {self._log_group!r}>"

    def _logs(self) -> CloudWatchLogsClient:
        if self._client is None:
            import boto3

            self._client = boto3.client("logs")
        return self._client

    def _begin(self, chain: Chain) -> None:
        self._logs().create_log_stream(logGroupName=self._log_group, logStreamName=self._stream(chain.chain_id))

    def _store(self, chain_id: str, first: int, events: Sequence[AuditEvent], lines: list[bytes]) -> None:
        if max(map(len, lines)) > _MAX_EVENT_BYTES - _OVERHEAD_BYTES:
            raise ConfigurationError("an event is longer than CloudWatch Logs takes")
        # Log events of a batch are in order of time there; the order of the chain is in the lines.
        now = time.time_ns() // 10**6
        start = 0
        while start < len(lines):
            end, size = start, 0
            while end < len(lines) and end - start < _MAX_BATCH_EVENTS:
                size += len(lines[end]) + _OVERHEAD_BYTES
                if size > _MAX_BATCH_BYTES:
                    break
                end += 1
            answer = self._logs().put_log_events(
                logGroupName=self._log_group,
                logStreamName=self._stream(chain_id),
                logEvents=[{"timestamp": now, "message": line.decode().rstrip("\n")} for line in lines[start:end]],
            )
            if answer.get("rejectedLogEventsInfo"):
                raise SinkError("CloudWatch Logs rejected events", written=0)
            start = end

    def _stream(self, chain_id: str) -> str:
        return f"{self._stream_prefix}-{chain_id}"


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code or type(error).__name__)
