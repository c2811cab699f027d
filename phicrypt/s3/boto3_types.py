"""What type checkers see of boto3's verbs: boto3-stubs' types, with the parameters that phicrypt adds.

Nothing here exists at run time. The stubs come with ``pip install phicrypt[typing]``; without them the verbs
are untyped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NotRequired, TypedDict, Unpack

    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import (
        CopyObjectOutputTypeDef,
        CopyObjectRequestTypeDef,
        CreateMultipartUploadOutputTypeDef,
        CreateMultipartUploadRequestTypeDef,
        GetObjectOutputTypeDef,
        GetObjectRequestTypeDef,
        HeadObjectOutputTypeDef,
        HeadObjectRequestTypeDef,
        ListObjectsV2OutputTypeDef,
        ListObjectsV2RequestTypeDef,
        PutObjectOutputTypeDef,
        PutObjectRequestTypeDef,
    )

    from phicrypt.core.context import AnyContext, AuditContext

    class Details(TypedDict):
        """``response["PhiCrypt"]``: whether the plaintext length of a response was verified (rule 10)."""

        Format: str
        StoredLength: int
        LengthVerified: bool

    Pairs = Mapping[str, str] | AuditContext | None

    # Each has one base and its own fields: without the stubs that base is Any, and so is what a verb takes.
    class PutObjectRequest(PutObjectRequestTypeDef):
        EncryptionContext: NotRequired[Pairs]
        RequiredContext: NotRequired[Iterable[str]]

    class CreateMultipartUploadRequest(CreateMultipartUploadRequestTypeDef):
        EncryptionContext: NotRequired[Pairs]
        RequiredContext: NotRequired[Iterable[str]]

    class CopyObjectRequest(CopyObjectRequestTypeDef):
        EncryptionContext: NotRequired[Pairs]
        RequiredContext: NotRequired[Iterable[str]]
        RequireSigned: NotRequired[bool]
        AllowUncommitted: NotRequired[bool]

    class GetObjectRequest(GetObjectRequestTypeDef):
        EncryptionContext: NotRequired[Pairs | AnyContext]
        RequiredContext: NotRequired[Iterable[str]]
        RequireSigned: NotRequired[bool]
        AllowUncommitted: NotRequired[bool]

    class ListObjectsV2Request(ListObjectsV2RequestTypeDef):
        PlaintextSizes: NotRequired[bool]

    class GetObjectOutput(GetObjectOutputTypeDef):
        PhiCrypt: Details

    class HeadObjectOutput(HeadObjectOutputTypeDef):
        PhiCrypt: Details

    class TypedVerbs(S3Client):
        """boto3's client, of which the verbs that take more say so."""

        def __init__(self) -> None: ...

        def put_object(self, **kwargs: Unpack[PutObjectRequest]) -> PutObjectOutputTypeDef: ...

        def get_object(self, **kwargs: Unpack[GetObjectRequest]) -> GetObjectOutput: ...

        def head_object(self, **kwargs: Unpack[HeadObjectRequestTypeDef]) -> HeadObjectOutput: ...

        def copy_object(self, **kwargs: Unpack[CopyObjectRequest]) -> CopyObjectOutputTypeDef: ...

        def list_objects_v2(self, **kwargs: Unpack[ListObjectsV2Request]) -> ListObjectsV2OutputTypeDef: ...

        def create_multipart_upload(
            self, **kwargs: Unpack[CreateMultipartUploadRequest]
        ) -> CreateMultipartUploadOutputTypeDef: ...
