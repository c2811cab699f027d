"""What type checkers know of encrypting clients, with boto3-stubs (the extra ``typing``).

At run time only the names of settings are here. Without the stubs boto3's own verbs are untyped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Unpack

    import boto3
    from botocore.config import Config
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table
    from mypy_boto3_dynamodb.type_defs import QueryOutputTypeDef, ScanOutputTypeDef

    from phicrypt.dynamodb.shapes import Item
    from phicrypt.dynamodb.table_checks import CheckTables

    Change = Callable[[Item], Item | None]

    class EncryptingClient(DynamoDBClient):
        """boto3's client; ``hydrate`` reads the whole items that an index names."""

        def query(self, **request: Unpack[HydratingQuery]) -> QueryOutputTypeDef: ...
        def scan(self, **request: Unpack[HydratingScan]) -> ScanOutputTypeDef: ...
        def update_encrypted(self, *, TableName: str, Key: Mapping[str, Any], change: Change) -> Item | None:
            """See :func:`phicrypt.dynamodb.updates.update_encrypted`; low-level shape."""

    class EncryptingTable(Table):
        """A table of boto3's resource."""

        def update_encrypted(self, *, Key: Mapping[str, Any], change: Change) -> Item | None:
            """See :func:`phicrypt.dynamodb.updates.update_encrypted`; Python values."""

    class EncryptingResource(DynamoDBServiceResource):
        """boto3's resource."""

        def Table(self, name: str) -> EncryptingTable: ...


class HydratingScan(TypedDict, total=False):
    """boto3's parameters of Scan, and phicrypt's own; not the stubs' class, which may not be there."""

    hydrate: bool
    TableName: Required[str]
    IndexName: str
    AttributesToGet: Any
    Limit: int
    Select: Any
    ScanFilter: Any
    ConditionalOperator: Any
    ExclusiveStartKey: Any
    ReturnConsumedCapacity: Any
    TotalSegments: int
    Segment: int
    ProjectionExpression: str
    FilterExpression: Any
    ExpressionAttributeNames: Mapping[str, str]
    ExpressionAttributeValues: Any
    ConsistentRead: bool


class HydratingQuery(TypedDict, total=False):
    """boto3's parameters of Query, and phicrypt's own."""

    hydrate: bool
    TableName: Required[str]
    IndexName: str
    Select: Any
    AttributesToGet: Any
    Limit: int
    ConsistentRead: bool
    KeyConditions: Any
    QueryFilter: Any
    ConditionalOperator: Any
    ScanIndexForward: bool
    ExclusiveStartKey: Any
    ReturnConsumedCapacity: Any
    ProjectionExpression: str
    FilterExpression: Any
    KeyConditionExpression: Any
    ExpressionAttributeNames: Mapping[str, str]
    ExpressionAttributeValues: Any


class ClientSettings(TypedDict, total=False):
    """What ``boto3.Session.client`` takes besides the service's name."""

    region_name: str | None
    api_version: str | None
    use_ssl: bool | None
    verify: bool | str | None
    endpoint_url: str | None
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    aws_account_id: str | None
    config: Config | None


class TableSettings(ClientSettings, total=False):
    """What :meth:`phicrypt.dynamodb.client.DynamoDb.client` takes besides the tables."""

    plaintext_tables: Iterable[str]
    check_tables: CheckTables
    session: boto3.Session | None


class SessionSettings(TypedDict, total=False):
    """What ``boto3.Session`` takes besides a botocore session."""

    region_name: str | None
    profile_name: str | None
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    aws_account_id: str | None
