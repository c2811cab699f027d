"""The servers, the proxy before them, and one worker's clients: its own, so that each fault has its call."""

from __future__ import annotations

import base64
import contextlib
import functools
import inspect
import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from botocore.config import Config
from botocore.retries import standard

from phicrypt import BranchKeyStore, CachePolicy, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.audit import AuditTrail, Delivery, JsonlSink
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb.config import PlaintextPolicy
from phicrypt.testing import StrictKms, local_aws
from phicrypt.testing.local_stack import LocalAws, session_without_profile

from .proxy import FaultyProxy
from .uses import UsesOfCalls

CANARY: Final = b"canary-9f2c7b41"
BUCKET: Final = "imaging"
PATIENTS: Final = TableConfig(
    table_name="patients",
    partition_key="clinic",
    sort_key="patient_id",
    actions={
        "clinic": Action.SIGN_ONLY,
        "patient_id": Action.SIGN_ONLY,
        "note": Action.ENCRYPT_AND_SIGN,
        "count": Action.ENCRYPT_AND_SIGN,
        "seen": Action.DO_NOTHING,
    },
    unsigned_attributes=("seen",),
)
TO_MIGRATE: Final = TableConfig(
    table_name="old-patients",
    partition_key="clinic",
    sort_key="patient_id",
    actions={"clinic": Action.SIGN_ONLY, "patient_id": Action.SIGN_ONLY, "note": Action.ENCRYPT_AND_SIGN},
    plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
    plaintext_reads_until=datetime(2100, 1, 1, tzinfo=UTC).date(),
)
BRANCH_KEY_TABLE: Final = "branch-keys"
CAN_VERIFY_DATA_KEYS: Final = "verify_data_keys" in inspect.signature(KmsKeyring).parameters
"""Without that setting, a message under a data key of a forged answer opens for nobody."""
READ_TIMEOUT_SECONDS: Final = 1.0
PART_SIZE_BYTES: Final = 5 * 1024**2
_client_lock = threading.Lock()
_WRITE_THROUGH: Final = Delivery(max_buffered_events=0)


def canaries() -> list[bytes]:
    """The canary as it may stand in a request: raw, in hex, and in base64 at each of three places."""
    inner = [base64.b64encode(CANARY[shift:][: (len(CANARY) - shift) // 3 * 3]) for shift in range(3)]
    return [CANARY, CANARY.hex().encode(), *inner]


@dataclass
class Stage:
    """What a laboratory runs on.

    Attributes:
        folder: where downloads go; temporary files as well.
        log: the audit log that every worker writes to.
        rotations: "begun" and "ended" for each rotation of a branch key.
    """

    aws: LocalAws
    kms: StrictKms
    proxy: FaultyProxy
    folder: Path
    key_arn: str
    signing_key_arn: str
    mac_key_arn: str
    uses: UsesOfCalls
    log: Path
    rotations: list[str] = field(default_factory=list)

    def client(self, service: str, tag: str = "", *, attempts: int = 2, **settings: Any) -> Any:
        """A boto3 client through the proxy; without a tag, past it."""
        direct = self.kms.endpoint_url if service == "kms" else self.aws.endpoint_url
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=1,
            read_timeout=READ_TIMEOUT_SECONDS if tag else 60,
            max_pool_connections=16,
            proxies={},
            user_agent_extra=f"lab/{tag}" if tag else None,
            s3={"addressing_style": "path"},
        )
        endpoint = self.proxy.endpoint_url if tag else direct
        with _client_lock:
            return _session().client(service, endpoint_url=endpoint, config=config, **settings)

    def store(self, tag: str = "", *, trail: AuditTrail | None = None, attempts: int = 2) -> BranchKeyStore:
        return BranchKeyStore(
            BRANCH_KEY_TABLE,
            "clinic-keys",
            self.key_arn,
            dynamodb_client=self.client("dynamodb", tag, attempts=attempts),
            kms_client=self.client("kms", tag, attempts=attempts),
            **({"trail": trail} if trail else {}),
        )


@functools.cache
def _session() -> Any:
    return session_without_profile("us-east-1")


@contextmanager
def quick_retries() -> Iterator[None]:
    """botocore waits less between attempts: how long it waits proves nothing here."""
    waits = standard.ExponentialBackoff.delay_amount
    standard.ExponentialBackoff.delay_amount = lambda self, context: random.uniform(0, 0.02)
    try:
        yield
    finally:
        standard.ExponentialBackoff.delay_amount = waits


@contextmanager
def stage(folder: Path, seed: int = 0) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        aws = stack.enter_context(local_aws())
        kms = stack.enter_context(StrictKms())
        upstreams = {"kms": kms.endpoint_url, "s3": aws.endpoint_url, "dynamodb": aws.endpoint_url}
        proxy = stack.enter_context(FaultyProxy(upstreams, canaries=canaries(), seed=seed))
        stack.enter_context(quick_retries())
        made = Stage(
            aws,
            kms,
            proxy,
            folder,
            kms.create_key(),
            kms.create_signing_key("ECC_NIST_P256"),
            kms.create_mac_key(),
            UsesOfCalls(),
            folder / "audit.jsonl",
        )
        made.client("s3").create_bucket(Bucket=BUCKET)
        for table in (PATIENTS, TO_MIGRATE):
            _create_table(made.client("dynamodb"), table)
        made.store().create_table()
        yield made


def _create_table(client: Any, table: TableConfig) -> None:
    names = [name for name in (table.partition_key, table.sort_key) if name]
    kinds = itertools.chain(("HASH", "RANGE"))
    client.create_table(
        TableName=table.table_name,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, kinds, strict=False)],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        BillingMode="PAY_PER_REQUEST",
    )


class Desk:
    """One worker's clients, keyrings and verbs; with ``tag=""`` past the proxy, to look at what is true.

    Attributes:
        under_kms, under_branch_key: clients of phicrypt.
        branch_key_id: this worker's own.
    """

    def __init__(self, stage: Stage, tag: str, branch_key_id: str) -> None:
        self.stage = stage
        self.tag = tag
        self.branch_key_id = branch_key_id
        policies = {"encrypt_policy": _WRITE_THROUGH}
        sinks = [stage.uses, JsonlSink(stage.log)] if tag else [stage.uses]
        self.trail = AuditTrail(sinks, **policies)
        self.store = stage.store(tag, trail=self.trail)
        cache = CachePolicy(max_messages=6, max_entries=20)
        self.kms_client = stage.client("kms", tag)
        verifying = {"verify_data_keys": True} if CAN_VERIFY_DATA_KEYS else {}
        kms_keyring = KmsKeyring(stage.key_arn, client=self.kms_client, **verifying)
        self.under_kms = PhiCrypt(kms_keyring, cache=cache, audit=self.trail)
        branch = HierarchicalKeyring(self.store, branch_key_id=branch_key_id, ttl_seconds=600)
        self.under_branch_key = PhiCrypt(branch, cache=cache, audit=self.trail)
        self.raw_s3 = stage.client("s3", tag)
        self.s3 = self.under_branch_key.s3(self.raw_s3, part_size_bytes=PART_SIZE_BYTES)
        self.dynamodb = stage.client("dynamodb", tag)
        self.under_branch_key.dynamodb.attach(self.dynamodb, [PATIENTS], check_tables="never")

    def forget_keys(self) -> None:
        self.under_kms.cache.clear()
        self.under_branch_key.cache.clear()

    def close(self) -> None:
        for client in (self.under_kms, self.under_branch_key):
            client.close()
