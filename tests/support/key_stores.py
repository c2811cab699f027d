"""Branch key stores for tests: DynamoDB is moto's, KMS is the strict one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from phicrypt import BranchKeyStore
from phicrypt.core.context import serialize_context
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials, Keyring
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384,
    DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384,
    AlgorithmSuite,
)
from phicrypt.errors import KeyAccessError
from phicrypt.testing import StrictKms, local_aws, mark_as_double
from phicrypt.testing.local_stack import LocalAws

CONTEXT = {"tenant": "clinic-7", "resource": "DiagnosticReport"}
SUITES = (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384,
    DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384,
)
_numbers = itertools.count()


class KeyStores:
    """Makes stores over one local DynamoDB and one strict KMS."""

    def __init__(self, aws: LocalAws, kms: StrictKms) -> None:
        self.aws = aws
        self.kms = kms
        self.dynamodb = aws.client("dynamodb")

    def new_store(self, kms_key_arn: Any = None, **settings: Any) -> BranchKeyStore:
        """A store with a new table, under a new KMS key unless one is given."""
        table_name = settings.pop("table_name", None) or f"key-store-{next(_numbers)}"
        store = self.another(table_name, kms_key_arn or self.kms.create_key(), **settings)
        store.create_table()
        return store

    def another(self, table_name: str, kms_key_arn: Any, **settings: Any) -> BranchKeyStore:
        """A store object over a table that may exist already."""
        settings.setdefault("logical_name", "clinic-keys")
        settings.setdefault("dynamodb_client", self.dynamodb)
        settings.setdefault("kms_client", self.kms.client())
        return BranchKeyStore(table_name, settings.pop("logical_name"), kms_key_arn, **settings)

    def rows(self, store: BranchKeyStore, branch_key_id: str) -> dict[str, dict[str, Any]]:
        """The rows of a branch key as they stand in the table, by type."""
        answer = self.dynamodb.query(
            TableName=store.table_name,
            KeyConditionExpression="#p = :id",
            ExpressionAttributeNames={"#p": "branch-key-id"},
            ExpressionAttributeValues={":id": {"S": branch_key_id}},
            ConsistentRead=True,
        )
        return {item["type"]["S"]: item for item in answer["Items"]}

    def put(self, store: BranchKeyStore, item: Mapping[str, Any]) -> None:
        """Write a row as an attacker with write access would."""
        self.dynamodb.put_item(TableName=store.table_name, Item=dict(item))

    def delete(self, store: BranchKeyStore, item: Mapping[str, Any]) -> None:
        self.dynamodb.delete_item(
            TableName=store.table_name, Key={name: item[name] for name in ("branch-key-id", "type")}
        )

    def dynamodb_operations(self) -> list[str]:
        return [request["operation"] for request in self.aws.requests if request["service"] == "dynamodb"]


@contextmanager
def key_stores() -> Iterator[KeyStores]:
    with local_aws() as aws, StrictKms() as kms:
        yield KeyStores(aws, kms)


@mark_as_double
class Intercepted:
    """A DynamoDB client with hooks by method name: ``(real method, parameters) -> answer``."""

    def __init__(self, client: Any, **hooks: Callable[..., Any]) -> None:
        self._client = client
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        hook = self._hooks.get(name)
        return real if hook is None else lambda **parameters: hook(real, parameters)


def to_encrypt(
    context: Mapping[str, str] = CONTEXT, suite: AlgorithmSuite = AES_256_GCM_HKDF_SHA512_COMMIT_KEY
) -> EncryptionMaterials:
    return EncryptionMaterials(suite, dict(context), serialize_context(context))


def to_decrypt(
    context: Mapping[str, str] = CONTEXT,
    suite: AlgorithmSuite = AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    expected_names: frozenset[str] | None = None,
) -> DecryptionMaterials:
    return DecryptionMaterials(suite, dict(context), serialize_context(context), expected_names=expected_names)


def opened(keyring: Keyring, sealed: EncryptionMaterials, **changes: Any) -> bool:
    """Whether the keyring opens what was wrapped, to the same keys."""
    materials = keyring.on_decrypt(
        to_decrypt(changes.get("context", sealed.context), sealed.suite), sealed.encrypted_data_keys
    )
    assert materials.data_key is not None and sealed.data_key is not None
    same = materials.data_key.key_bytes == sealed.data_key.key_bytes
    if sealed.suite.has_symmetric_signature:
        assert materials.symmetric_signing_key is not None
        wrapped_for = sealed.symmetric_signing_keys[materials.recipient_index or 0]
        same = same and materials.symmetric_signing_key.key_bytes == wrapped_for.key_bytes
    return same


def refusal_of(call: Callable[[], object]) -> KeyAccessError:
    """The KeyAccessError that the call raises."""
    try:
        call()
    except KeyAccessError as error:
        return error
    raise AssertionError("it was not refused")


def with_ciphertext(data_key: EncryptedDataKey, ciphertext: bytes) -> EncryptedDataKey:
    return EncryptedDataKey(data_key.provider_id, data_key.provider_info, ciphertext)
