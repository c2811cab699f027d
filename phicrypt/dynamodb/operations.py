"""Every DynamoDB operation and every input member, classed (rule 17).

An operation is *handled* (its items are encrypted, decrypted or its names checked), *harmless* (it
neither stores nor returns an attribute value) or *refused*. Each input member of an operation that is
not refused is classed the same way, down through every nested structure of the item operations. What
is in none of the lists is refused as well, so an operation or member that AWS adds tomorrow cannot
carry plaintext past the encryption; a test walks botocore's model and fails on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from phicrypt.errors import UnsupportedOperationError


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one structure: looked at, passed through, or refused when present."""

    handled: frozenset[str]
    harmless: frozenset[str]
    refused: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.handled | self.harmless | self.refused


def _members(handled: str = "", harmless: str = "", refused: str = "") -> Members:
    return Members(frozenset(handled.split()), frozenset(harmless.split()), frozenset(refused.split()))


_CAPACITY = "ReturnConsumedCapacity ReturnItemCollectionMetrics"
_CONDITION = "ConditionExpression ExpressionAttributeNames ExpressionAttributeValues"
_PROJECTION = "ProjectionExpression ExpressionAttributeNames"
_ON_FAILURE = "ReturnValuesOnConditionCheckFailure"
_READ_MANY = (
    "TableName IndexName Select ExclusiveStartKey ProjectionExpression FilterExpression "
    "ExpressionAttributeNames ExpressionAttributeValues"
)

ITEM_OPERATIONS: Final = {
    "BatchGetItem": _members("RequestItems", _CAPACITY.split()[0]),
    "BatchWriteItem": _members("RequestItems", _CAPACITY),
    "DeleteItem": _members(
        f"TableName Key ReturnValues {_CONDITION} {_ON_FAILURE}", _CAPACITY, "Expected ConditionalOperator"
    ),
    "GetItem": _members(
        f"TableName Key {_PROJECTION}", "ConsistentRead ReturnConsumedCapacity", "AttributesToGet"
    ),
    "PutItem": _members(
        f"TableName Item ReturnValues {_CONDITION} {_ON_FAILURE}", _CAPACITY, "Expected ConditionalOperator"
    ),
    "Query": _members(
        f"{_READ_MANY} KeyConditionExpression",
        "Limit ConsistentRead ScanIndexForward ReturnConsumedCapacity",
        "AttributesToGet KeyConditions QueryFilter ConditionalOperator",
    ),
    "Scan": _members(
        _READ_MANY,
        "Limit ConsistentRead TotalSegments Segment ReturnConsumedCapacity",
        "AttributesToGet ScanFilter ConditionalOperator",
    ),
    "TransactGetItems": _members("TransactItems", "ReturnConsumedCapacity"),
    "TransactWriteItems": _members("TransactItems ClientRequestToken", _CAPACITY),
    "UpdateItem": _members(
        f"TableName Key UpdateExpression ReturnValues {_CONDITION} {_ON_FAILURE}",
        _CAPACITY,
        "AttributeUpdates Expected ConditionalOperator",
    ),
}
"""The operations that carry items, with their top-level members."""

NESTED: Final = {
    "KeysAndAttributes": _members(f"Keys {_PROJECTION}", "ConsistentRead", "AttributesToGet"),
    "WriteRequest": _members("PutRequest DeleteRequest"),
    "PutRequest": _members("Item"),
    "DeleteRequest": _members("Key"),
    "TransactGetItem": _members("Get"),
    "Get": _members(f"TableName Key {_PROJECTION}"),
    "TransactWriteItem": _members("ConditionCheck Put Delete Update"),
    "ConditionCheck": _members(f"TableName Key {_CONDITION} {_ON_FAILURE}"),
    "Put": _members(f"TableName Item {_CONDITION} {_ON_FAILURE}"),
    "Delete": _members(f"TableName Key {_CONDITION} {_ON_FAILURE}"),
    "Update": _members(f"TableName Key UpdateExpression {_CONDITION} {_ON_FAILURE}"),
}
"""The structures inside the members of the item operations, by botocore's shape name."""

_TABLE_SETTINGS = (
    "BillingMode ProvisionedThroughput StreamSpecification SSESpecification TableClass DeletionProtectionEnabled "
    "WarmThroughput OnDemandThroughput GlobalTableSettingsReplicationMode"
)
_RESTORE = (
    "BillingModeOverride GlobalSecondaryIndexOverride LocalSecondaryIndexOverride ProvisionedThroughputOverride "
    "OnDemandThroughputOverride SSESpecificationOverride TargetTableName"
)

TABLE_OPERATIONS: Final = {
    "CancelBulkOperation": _members(harmless="BulkOperationArn"),
    "CreateBackup": _members(harmless="TableName BackupName"),
    "CreateGlobalTable": _members(harmless="GlobalTableName ReplicationGroup"),
    "CreateTable": _members(
        "TableName KeySchema LocalSecondaryIndexes GlobalSecondaryIndexes",
        f"AttributeDefinitions Tags ResourcePolicy GlobalTableSourceArn {_TABLE_SETTINGS}",
        "VectorIndexes",
    ),
    "DeleteBackup": _members(harmless="BackupArn"),
    "DeleteResourcePolicy": _members(harmless="ResourceArn ExpectedRevisionId"),
    "DeleteTable": _members(harmless="TableName"),
    "DescribeBackup": _members(harmless="BackupArn"),
    "DescribeBulkOperation": _members(harmless="BulkOperationArn"),
    "DescribeContinuousBackups": _members(harmless="TableName"),
    "DescribeContributorInsights": _members(harmless="TableName IndexName"),
    "DescribeEndpoints": _members(),
    "DescribeExport": _members(harmless="ExportArn"),
    "DescribeGlobalTable": _members(harmless="GlobalTableName"),
    "DescribeGlobalTableSettings": _members(harmless="GlobalTableName"),
    "DescribeImport": _members(harmless="ImportArn"),
    "DescribeKinesisStreamingDestination": _members(harmless="TableName"),
    "DescribeLimits": _members(),
    "DescribeTable": _members(harmless="TableName"),
    "DescribeTableReplicaAutoScaling": _members(harmless="TableName"),
    "DescribeTimeToLive": _members(harmless="TableName"),
    "DisableKinesisStreamingDestination": _members(
        harmless="TableName StreamArn EnableKinesisStreamingConfiguration"
    ),
    "EnableKinesisStreamingDestination": _members(
        harmless="TableName StreamArn EnableKinesisStreamingConfiguration"
    ),
    "ExportTableToPointInTime": _members(
        harmless="TableArn ExportTime ClientToken S3Bucket S3BucketOwner S3Prefix S3SseAlgorithm S3SseKmsKeyId "
        "ExportFormat ExportType IncrementalExportSpecification",
        refused="FilterSpecification",
    ),
    "GetResourcePolicy": _members(harmless="ResourceArn"),
    "ListBackups": _members(
        harmless="TableName Limit TimeRangeLowerBound TimeRangeUpperBound ExclusiveStartBackupArn BackupType"
    ),
    "ListBulkOperations": _members(harmless="MaxResults NextToken"),
    "ListContributorInsights": _members(harmless="TableName NextToken MaxResults"),
    "ListExports": _members(harmless="TableArn MaxResults NextToken"),
    "ListGlobalTables": _members(harmless="ExclusiveStartGlobalTableName Limit RegionName"),
    "ListImports": _members(harmless="TableArn PageSize NextToken"),
    "ListTables": _members(harmless="ExclusiveStartTableName Limit"),
    "ListTagsOfResource": _members(harmless="ResourceArn NextToken"),
    "PutResourcePolicy": _members(
        harmless="ResourceArn Policy ExpectedRevisionId ConfirmRemoveSelfResourceAccess"
    ),
    "RestoreTableFromBackup": _members(harmless=f"BackupArn {_RESTORE}", refused="VectorIndexOverride"),
    "RestoreTableToPointInTime": _members(
        harmless=f"SourceTableArn SourceTableName UseLatestRestorableTime RestoreDateTime {_RESTORE}",
        refused="VectorIndexOverride",
    ),
    "TagResource": _members(harmless="ResourceArn Tags"),
    "UntagResource": _members(harmless="ResourceArn TagKeys"),
    "UpdateContinuousBackups": _members(harmless="TableName PointInTimeRecoverySpecification"),
    "UpdateContributorInsights": _members(
        harmless="TableName IndexName ContributorInsightsAction ContributorInsightsMode"
    ),
    "UpdateGlobalTable": _members(harmless="GlobalTableName ReplicaUpdates"),
    "UpdateGlobalTableSettings": _members(
        harmless="GlobalTableName GlobalTableBillingMode GlobalTableProvisionedWriteCapacityUnits "
        "GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate "
        "GlobalTableGlobalSecondaryIndexSettingsUpdate ReplicaSettingsUpdate"
    ),
    "UpdateKinesisStreamingDestination": _members(
        harmless="TableName StreamArn UpdateKinesisStreamingConfiguration"
    ),
    "UpdateTable": _members(
        "TableName GlobalSecondaryIndexUpdates",
        "AttributeDefinitions ReplicaUpdates MultiRegionConsistency GlobalTableWitnessUpdates "
        f"DisassociationProtectionEnabled {_TABLE_SETTINGS}",
        "VectorIndexUpdates",
    ),
    "UpdateTableReplicaAutoScaling": _members(
        harmless="GlobalSecondaryIndexUpdates TableName ProvisionedWriteCapacityAutoScalingUpdate ReplicaUpdates"
    ),
    "UpdateTimeToLive": _members("TableName TimeToLiveSpecification"),
}
"""The operations on tables, backups, streams and settings: no attribute value passes through them."""

_PARTIQL = (
    "PartiQL statements are not parsed, so nothing would be encrypted, decrypted or checked; "
    "use the item operations"
)
_LOAD = "it loads items from S3 as they are, which would store plaintext; write with put_item or batch_write_item"
REFUSED_OPERATIONS: Final = {
    "BatchExecuteStatement": _PARTIQL,
    "ExecuteStatement": _PARTIQL,
    "ExecuteTransaction": _PARTIQL,
    "ImportTable": _LOAD,
    "SearchVectors": "it ranks by stored vectors and returns parts of items, which cannot be verified; use query",
    "StartBulkPutItems": _LOAD,
}
"""Operations without an encrypted form, with the reason and the remedy."""

WRITE_OPERATIONS: Final = frozenset(
    {"BatchWriteItem", "DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"}
)
"""The item operations that change items."""

_REMEDIES: Final = {
    "AttributesToGet": "ProjectionExpression",
    "AttributeUpdates": "UpdateExpression",
    "ConditionalOperator": "ConditionExpression or FilterExpression",
    "Expected": "ConditionExpression",
    "KeyConditions": "KeyConditionExpression",
    "QueryFilter": "FilterExpression",
    "ScanFilter": "FilterExpression",
}


def check_operation(operation: str) -> None:
    """Raise UnsupportedOperationError for an operation that is refused or in no class."""
    if operation in ITEM_OPERATIONS or operation in TABLE_OPERATIONS:
        return
    reason = REFUSED_OPERATIONS.get(
        operation, "this version of phicrypt does not know it and cannot tell whether it carries attribute values"
    )
    raise UnsupportedOperationError(f"{operation} is refused: {reason}")


def check_members(operation: str, given: Iterable[str], *, shape: str | None = None) -> None:
    """Raise UnsupportedOperationError for a member that is refused or in no class.

    ``shape`` names a nested structure of :data:`NESTED`; without it the operation's own members are
    meant. The operation must have passed :func:`check_operation`.
    """
    if shape is not None:
        members, where = NESTED[shape], f"{operation}, {shape}"
    else:
        members, where = ITEM_OPERATIONS.get(operation) or TABLE_OPERATIONS[operation], operation
    for name in given:
        if name in members.refused:
            remedy = f"; use {_REMEDIES[name]}" if name in _REMEDIES else ""
            raise UnsupportedOperationError(
                f"{where}: the parameter {name} is refused for encrypted tables{remedy}"
            )
        if name not in members.handled and name not in members.harmless:
            raise UnsupportedOperationError(
                f"{where}: this version of phicrypt does not know the parameter {name!r} and cannot tell whether "
                "it carries attribute values"
            )
