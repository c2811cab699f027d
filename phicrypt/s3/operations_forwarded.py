"""S3 operations that neither store nor return an object's bytes, with every input member they have.

They are forwarded as they come, and only with the members listed here: an operation or member that
a later botocore adds is refused until somebody has judged it. :mod:`phicrypt.s3.operations` holds
the operations that are not forwarded.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final


def _table() -> dict[str, frozenset[str]]:
    table: dict[str, frozenset[str]] = {}

    def add(operations: str, members: str) -> None:
        for operation in operations.split():
            table[operation] = frozenset(members.split())

    bucket = "Bucket ExpectedBucketOwner"
    object_version = f"{bucket} Key VersionId RequestPayer"
    # MD5 and checksum algorithm are of the XML document that configures the bucket or object.
    document = f"{bucket} ContentMD5 ChecksumAlgorithm"
    customer_key = "SSECustomerAlgorithm SSECustomerKey SSECustomerKeyMD5"
    grants = "ACL GrantFullControl GrantRead GrantReadACP GrantWrite GrantWriteACP"
    listing = f"{bucket} Delimiter EncodingType Prefix RequestPayer"

    add(
        "delete_bucket delete_bucket_cors delete_bucket_encryption delete_bucket_lifecycle "
        "delete_bucket_metadata_configuration delete_bucket_metadata_table_configuration "
        "delete_bucket_ownership_controls delete_bucket_policy delete_bucket_replication "
        "delete_bucket_tagging delete_bucket_website delete_public_access_block get_bucket_abac "
        "get_bucket_acl get_bucket_cors get_bucket_encryption get_bucket_lifecycle "
        "get_bucket_lifecycle_configuration get_bucket_location get_bucket_logging "
        "get_bucket_metadata_configuration get_bucket_metadata_table_configuration "
        "get_bucket_notification get_bucket_notification_configuration get_bucket_ownership_controls "
        "get_bucket_policy get_bucket_policy_status get_bucket_replication get_bucket_request_payment "
        "get_bucket_tagging get_bucket_versioning get_bucket_website get_object_lock_configuration "
        "get_public_access_block head_bucket",
        bucket,
    )
    for kind in ("analytics", "intelligent_tiering", "inventory", "metrics"):
        add(f"delete_bucket_{kind}_configuration get_bucket_{kind}_configuration", f"{bucket} Id")
        add(f"list_bucket_{kind}_configurations", f"{bucket} ContinuationToken")
    add("get_bucket_accelerate_configuration", f"{bucket} RequestPayer")
    add("put_bucket_analytics_configuration", f"{bucket} Id AnalyticsConfiguration")
    add("put_bucket_intelligent_tiering_configuration", f"{bucket} Id IntelligentTieringConfiguration")
    add("put_bucket_inventory_configuration", f"{bucket} Id InventoryConfiguration")
    add("put_bucket_metrics_configuration", f"{bucket} Id MetricsConfiguration")
    for operation, members in {
        "put_bucket_abac": "AbacStatus",
        "put_bucket_cors": "CORSConfiguration",
        "put_bucket_encryption": "ServerSideEncryptionConfiguration",
        "put_bucket_lifecycle": "LifecycleConfiguration",
        "put_bucket_logging": "BucketLoggingStatus",
        "put_bucket_notification": "NotificationConfiguration",
        "put_bucket_ownership_controls": "OwnershipControls",
        "put_bucket_policy": "Policy ConfirmRemoveSelfBucketAccess",
        "put_bucket_replication": "ReplicationConfiguration Token",
        "put_bucket_request_payment": "RequestPaymentConfiguration",
        "put_bucket_tagging": "Tagging",
        "put_bucket_versioning": "VersioningConfiguration MFA",
        "put_bucket_website": "WebsiteConfiguration",
        "put_public_access_block": "PublicAccessBlockConfiguration",
        "put_object_lock_configuration": "ObjectLockConfiguration RequestPayer Token",
        "create_bucket_metadata_configuration": "MetadataConfiguration",
        "create_bucket_metadata_table_configuration": "MetadataTableConfiguration",
        "update_bucket_metadata_annotation_table_configuration": "AnnotationTableConfiguration",
        "update_bucket_metadata_inventory_table_configuration": "InventoryTableConfiguration",
        "update_bucket_metadata_journal_table_configuration": "JournalTableConfiguration",
        "put_bucket_acl": f"AccessControlPolicy {grants}",
        "put_object_acl": f"AccessControlPolicy Key VersionId RequestPayer {grants}",
        "put_object_legal_hold": "Key VersionId RequestPayer LegalHold",
        "put_object_retention": "Key VersionId RequestPayer Retention BypassGovernanceRetention",
        # Changes the server's own encryption around the stored ciphertext.
        "update_object_encryption": "Key VersionId RequestPayer ObjectEncryption",
    }.items():
        add(operation, f"{document} {members}")
    add("put_bucket_accelerate_configuration", f"{bucket} AccelerateConfiguration ChecksumAlgorithm")
    add(
        "put_bucket_lifecycle_configuration",
        f"{bucket} ChecksumAlgorithm LifecycleConfiguration TransitionDefaultMinimumObjectSize",
    )
    add("put_bucket_notification_configuration", f"{bucket} NotificationConfiguration SkipDestinationValidation")
    add(
        "create_bucket",
        f"Bucket CreateBucketConfiguration ObjectLockEnabledForBucket ObjectOwnership BucketNamespace {grants}",
    )
    add(
        "create_session",
        "Bucket SessionMode ServerSideEncryption SSEKMSKeyId SSEKMSEncryptionContext BucketKeyEnabled",
    )
    add("list_buckets", "BucketRegion ContinuationToken MaxBuckets Prefix")
    add("list_directory_buckets", "ContinuationToken MaxDirectoryBuckets")

    add("get_object_acl get_object_legal_hold get_object_retention get_object_tagging", object_version)
    add("delete_object_tagging", f"{bucket} Key VersionId")
    # The stored length, checksums and parts: of the ciphertext.
    add(
        "get_object_attributes",
        f"{object_version} MaxParts PartNumberMarker ObjectAttributes {customer_key}",
    )
    add(
        "delete_object",
        f"{object_version} MFA BypassGovernanceRetention IfMatch IfMatchLastModifiedTime IfMatchSize",
    )
    add("delete_objects", f"{bucket} Delete MFA RequestPayer BypassGovernanceRetention ChecksumAlgorithm")
    add(
        "list_object_annotations",
        f"{object_version} AnnotationPrefix ContinuationToken MaxAnnotationResults",
    )
    add("delete_object_annotation", f"{object_version} AnnotationName ObjectIfMatch")
    add("list_multipart_uploads", f"{listing} KeyMarker MaxUploads UploadIdMarker")
    add("list_object_versions", f"{listing} KeyMarker MaxKeys VersionIdMarker OptionalObjectAttributes")
    add("list_objects", f"{listing} Marker MaxKeys OptionalObjectAttributes")
    add("list_parts", f"{bucket} Key UploadId MaxParts PartNumberMarker RequestPayer {customer_key}")
    return table


HARMLESS_OPERATIONS: Final = MappingProxyType(_table())
"""Operation (boto3's method name) to its input members, all of them forwarded unchanged."""
