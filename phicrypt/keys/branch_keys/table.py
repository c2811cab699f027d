"""Every call to the DynamoDB table of a branch key store: reads, transactions, schema, errors.

Reads are strongly consistent, because a rotation or a shred must be seen at once, and go to the next
Region in order only when a Region does not answer (rule 13). Writes go to the first Region only, as
transactions: all rows of a branch key or none, never over another's, and never where a tombstone says
that the branch key was shredded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.aws_clients import check_client
from phicrypt.core.breaker import Breakers
from phicrypt.core.deadlines import DEADLINE_SECONDS, checked_deadline
from phicrypt.core.steps import Steps, TableRequest
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys.kms import (
    FAILOVER_ATTEMPTS,
    FAILOVER_CONNECT_TIMEOUT_SECONDS,
    FAILOVER_READ_TIMEOUT_SECONDS,
)
from phicrypt.keys.branch_keys.records import (
    ACTIVE_TYPE,
    LISTED_NAMES,
    PARTITION_KEY,
    SORT_KEY,
    TOMBSTONE_TYPE,
    BranchKeyRecord,
    BranchKeyRow,
    Item,
    another_row,
    check_row,
    listed_row,
    to_item,
)
from phicrypt.keys.branch_keys.table_errors import (
    ConditionFailed,
    no_answer,
    refusal_of,
    refusal_of_waiter,
    shredded,
    unexpected_table_answer,
)
from phicrypt.keys.kms.calls import (
    CONNECT_TIMEOUT_SECONDS,
    MAX_ATTEMPTS,
    READ_TIMEOUT_SECONDS,
    method_of,
)
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.keys.kms.tagging import tagged

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MAX_TRANSACTION_ITEMS: Final = 100

_NOT_THERE: Final = "attribute_not_exists(#partition_key)"
_NAMES: Final = {"#partition_key": PARTITION_KEY}
_KEY_SCHEMA: Final = [
    {"AttributeName": PARTITION_KEY, "KeyType": "HASH"},
    {"AttributeName": SORT_KEY, "KeyType": "RANGE"},
]
_ATTRIBUTES: Final = [
    {"AttributeName": PARTITION_KEY, "AttributeType": "S"},
    {"AttributeName": SORT_KEY, "AttributeType": "S"},
]


class BranchKeyTable:
    """The table of one store, in one or more Regions.

    Args:
        table_name: the same in each Region (a global table).
        regions: for each Region in order, its name and a boto3 DynamoDB client, either may be None:
            without a client one is made, with short timeouts.
        kms_clients: whose session, application and local stack serve where a client is made.
        deadline_seconds: how long a use waits for its keys (:mod:`phicrypt.core.deadlines`).
    """

    def __init__(
        self,
        table_name: str,
        regions: Sequence[tuple[str | None, DynamoDBClient | None]],
        kms_clients: KmsClients | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        for _, client in regions:
            if client is not None:
                check_client(client, "dynamodb_client=", service="dynamodb")
        self.name = table_name
        self._regions = tuple(regions)
        self.deadline_seconds = checked_deadline(deadline_seconds)
        self.breakers = Breakers()
        self._kms_clients = kms_clients or KmsClients()
        self._owner_pid = os.getpid()
        self._clients: dict[tuple[int, int], DynamoDBClient] = {}

    def read(self, branch_key_id: str, row_type: str) -> Steps[Item | None]:
        """The row, or None. Raises KeyAccessError where a tombstone says that the branch key was shredded."""
        for index in range(len(self._regions)):
            try:
                row = yield self._get(index, branch_key_id, row_type)
                # Read second: a shred between the two reads is seen, a row from before it is not returned.
                tombstone = yield self._get(index, branch_key_id, TOMBSTONE_TYPE)
                if (stone := tombstone.get("Item")) is not None:
                    # Another row's answer says nothing about a shred, and its Region is not left for it.
                    check_row(stone, branch_key_id, TOMBSTONE_TYPE)
                    raise shredded()
            except KeyAccessError as error:
                if not error.is_outage or index + 1 == len(self._regions):
                    raise
            else:
                item: Item | None = row.get("Item")
                return item
        raise AssertionError("there is at least one Region")

    def tombstone(self, branch_key_id: str) -> Item | None:
        """The tombstone of a shredded branch key, or None."""
        item: Item | None = self.ask(self._get(0, branch_key_id, TOMBSTONE_TYPE)).get("Item")
        if item is not None:
            check_row(item, branch_key_id, TOMBSTONE_TYPE)
        return item

    def list_keys(self) -> list[BranchKeyRow]:
        """The ACTIVE row or the tombstone of every branch key, by id: a scan, not authenticated."""
        listed = map(listed_row, self._rows("scan"))
        rows = [row for row in listed if row.row_type in (ACTIVE_TYPE, TOMBSTONE_TYPE)]
        return sorted(rows, key=lambda row: (row.branch_key_id, row.row_type))

    def list_rows(self, branch_key_id: str) -> list[BranchKeyRow]:
        """Every row of one branch key, the newest first; not authenticated."""
        rows = self._rows(
            "query",
            KeyConditionExpression="#partition_key = :id",
            ExpressionAttributeValues={":id": {"S": branch_key_id}},
            names={"#partition_key": PARTITION_KEY},
        )
        listed = [listed_row(row) for row in rows]
        if any(row.branch_key_id != branch_key_id for row in listed):
            raise another_row()  # what a shred deletes is taken from here
        return sorted(listed, key=lambda row: (row.create_time, row.row_type), reverse=True)

    def pages(
        self, method: str, member: str, token: str, start_token: str, **parameters: Any
    ) -> Iterator[dict[str, Any]]:
        """The entries of a paginated answer: ``member`` of each page, until there is no ``token``."""
        while True:
            page = self.call(method, **parameters)
            entries = page.get(member)
            if not isinstance(entries, list):
                raise unexpected_table_answer(method, self.name, f"the answer lacks {member}")
            yield from entries
            if not page.get(token):
                return
            parameters[start_token] = page[token]

    def write(self, items: Sequence[Mapping[str, Any]]) -> None:
        """One TransactWriteItems: all of it or nothing.

        Each item is ``{"Put" | "Delete" | "Update" | "ConditionCheck": parameters}`` without the table name.
        Raises ConditionFailed, KeyAccessError.
        """
        self.ask(self._transaction(items))

    def write_new(self, rows: Sequence[BranchKeyRecord]) -> Steps[None]:
        """The first rows of a branch key. Raises KeyAccessError, also where there are some already."""
        puts = [{"Put": {"Item": to_item(row), **_condition(_NOT_THERE)}} for row in rows]
        try:
            yield self._transaction([*puts, _no_tombstone(rows[0])])
        except ConditionFailed as refusal:
            raise self._lost(
                refusal,
                "BranchKeyExists",
                "a branch key of that id exists already; rotate it, or choose another id",
            ) from None

    def write_next_version(
        self, old: BranchKeyRecord, version_row: BranchKeyRecord, active_row: BranchKeyRecord
    ) -> Steps[None]:
        """A new version and the ACTIVE row that replaces ``old``.

        Raises KeyAccessError, also if ``old`` changed.
        """
        unchanged = {
            "ConditionExpression": "attribute_exists(#partition_key) AND #enc = :old",
            "ExpressionAttributeNames": {**_NAMES, "#enc": "enc"},
            "ExpressionAttributeValues": {":old": {"B": old.wrapped_key}},
        }
        try:
            yield self._transaction(
                [
                    {"Put": {"Item": to_item(version_row), **_condition(_NOT_THERE)}},
                    {"Put": {"Item": to_item(active_row), **unchanged}},
                    _no_tombstone(old),
                ]
            )
        except ConditionFailed as refusal:
            raise self._lost(
                refusal,
                "BranchKeyChanged",
                "the active branch key changed while it was being rotated: another rotation won, and a new "
                "version is active already",
            ) from None

    def ensure_created(self, *, deletion_protection: bool) -> str:
        """Create the table, or check the one that exists; its ARN. Waits until it is active.

        Raises ConfigurationError for an existing table with another key schema, KeyAccessError.
        """
        try:
            description = self.describe()
        except KeyAccessError as error:
            if error.code != "ResourceNotFoundException":
                raise
            self.call(
                "create_table",
                TableName=self.name,
                KeySchema=_KEY_SCHEMA,
                AttributeDefinitions=_ATTRIBUTES,
                BillingMode="PAY_PER_REQUEST",
                DeletionProtectionEnabled=deletion_protection,
            )
            self._wait()
            description = self.describe()
        arn: str = description["TableArn"]
        return arn

    def _wait(self) -> None:
        """Until the table is there; KeyAccessError where that cannot be learned."""
        from botocore.exceptions import WaiterError

        waiter = self._client(0).get_waiter("table_exists")
        try:
            waiter.wait(TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        except WaiterError as error:
            refusal = refusal_of_waiter(error, self.name)
        else:
            return
        raise refusal

    def describe(self) -> dict[str, Any]:
        """DescribeTable's answer; ConfigurationError unless the table has the key schema of a key store."""
        description: dict[str, Any] = self.call("describe_table", TableName=self.name).get("Table") or {}
        missing = {"AttributeDefinitions", "KeySchema", "TableArn"} - description.keys()
        if missing:
            what = f"the answer lacks {', '.join(sorted(missing))}"
            raise unexpected_table_answer("describe_table", self.name, what)
        types = {one.get("AttributeName"): one.get("AttributeType") for one in description["AttributeDefinitions"]}
        found = types.get(PARTITION_KEY), types.get(SORT_KEY)
        if description["KeySchema"] != _KEY_SCHEMA or found != ("S", "S"):
            raise ConfigurationError(
                f"the table {self.name!r} is no branch key store: its key schema must be branch-key-id (S) as "
                "partition key and type (S) as sort key"
            )
        return description

    def call(self, method: str, *, region_index: int = 0, **parameters: Any) -> dict[str, Any]:
        """One DynamoDB call; ConditionFailed for a refused condition, else KeyAccessError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client(region_index), method)(**parameters)
            return answer
        except ClientError as error:
            refusal = refusal_of(error, method, self.name)
        except BotoCoreError as error:
            refusal = no_answer(error, method, self.name)
        # Not in the handlers: botocore's errors quote parameters, branch key ids among them (rule 32).
        raise refusal

    def ask(self, request: TableRequest) -> dict[str, Any]:
        """Make the call of a request; see :meth:`call`."""
        index = next(index for index, (region, _) in enumerate(self._regions) if region == request.region)
        return self.call(method_of(request.operation), region_index=index, **request.parameters)

    def _get(self, region_index: int, branch_key_id: str, row_type: str) -> TableRequest:
        parameters = {
            "TableName": self.name,
            "Key": {PARTITION_KEY: {"S": branch_key_id}, SORT_KEY: {"S": row_type}},
            "ConsistentRead": True,
        }
        return TableRequest(self._regions[region_index][0], "GetItem", parameters, self)

    def _transaction(self, items: Sequence[Mapping[str, Any]]) -> TableRequest:
        named = [
            {kind: {"TableName": self.name, **parameters} for kind, parameters in item.items()} for item in items
        ]
        return TableRequest(self._regions[0][0], "TransactWriteItems", {"TransactItems": named}, self)

    def _lost(self, refusal: ConditionFailed, code: str, text: str) -> KeyAccessError:
        """The error for a transaction that a condition refused; the tombstone's is the last one."""
        if refusal.failed[-1]:
            return shredded()
        return KeyAccessError(text, operation="TransactWriteItems", code=code, key_arn=self.name)

    def _rows(
        self, method: str, *, names: Mapping[str, str] = MappingProxyType({}), **parameters: Any
    ) -> Iterator[Item]:
        listed = {f"#n{index}": name for index, name in enumerate(LISTED_NAMES)}
        return self.pages(
            method,
            "Items",
            "LastEvaluatedKey",
            "ExclusiveStartKey",
            TableName=self.name,
            ConsistentRead=True,
            ProjectionExpression=", ".join(listed),
            ExpressionAttributeNames={**listed, **names},
            **parameters,
        )

    def _client(self, region_index: int) -> DynamoDBClient:
        # By process: a forked child must not write into its parent's connections.
        process_key = (os.getpid(), region_index)
        client = self._clients.get(process_key)
        if client is None:
            region, given = self._regions[region_index]
            if given is None:
                given = _dynamodb_client(region, self._kms_clients, in_haste=len(self._regions) > 1)
            forked = os.getpid() != self._owner_pid
            client = tagged(given, self._kms_clients.application, own_connections=forked)
            self._clients[process_key] = client
        return client


def _condition(expression: str) -> dict[str, Any]:
    return {"ConditionExpression": expression, "ExpressionAttributeNames": _NAMES}


def _no_tombstone(row: BranchKeyRecord) -> dict[str, Any]:
    tombstone = {PARTITION_KEY: {"S": row.context[PARTITION_KEY]}, SORT_KEY: {"S": TOMBSTONE_TYPE}}
    return {"ConditionCheck": {"Key": tombstone, **_condition(_NOT_THERE)}}


def _dynamodb_client(region: str | None, like: KmsClients, *, in_haste: bool) -> DynamoDBClient:
    """A client with short timeouts; shorter ones where another Region is waiting to be asked."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=FAILOVER_CONNECT_TIMEOUT_SECONDS if in_haste else CONNECT_TIMEOUT_SECONDS,
        read_timeout=FAILOVER_READ_TIMEOUT_SECONDS if in_haste else READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": FAILOVER_ATTEMPTS if in_haste else MAX_ATTEMPTS},
    )
    try:
        session = like.boto3_session or boto3.Session()
        return session.client("dynamodb", region_name=region, endpoint_url=like.local_endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"no DynamoDB client for Region {region!r}: {error}") from None
