"""``S3Client``: boto3's S3 verbs, encrypted before upload and authenticated before release.

Made by ``PhiCrypt.s3()``. It has boto3's method names, parameters, responses and errors; a method
exists only for an operation that :mod:`phicrypt.s3.operations` has classed. Four parameters are
added to boto3's: ``EncryptionContext`` and ``RequiredContext`` wherever an object is written or read,
``RequireSigned`` and ``AllowUncommitted`` where one is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

from phicrypt.core.aws_clients import check_client
from phicrypt.core.context import AnyContext, AuditContext
from phicrypt.core.judged_clients import judged_client
from phicrypt.core.materials import Keyring
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.s3.file_objects import S3File, S3Reader, S3Writer, parse_s3_name
from phicrypt.s3.forwarding import ForwardedOperations, put_object_tagging, restore_object
from phicrypt.s3.local_files import checked_file_name, download_to_file, write_all_pieces
from phicrypt.s3.operations import (
    OWN_PARAMETERS,
    OWN_READ_PARAMETERS,
    check_parameters,
    check_text,
    handled,
    own_parameters,
)
from phicrypt.s3.options import S3Options, S3Settings
from phicrypt.s3.reading import get as reading
from phicrypt.s3.reading.frames import FramedMessage, Opened
from phicrypt.s3.reading.opening import demands_of, open_by_probe
from phicrypt.s3.reading.s3ec_objects import VerifiedObject
from phicrypt.s3.session import S3Session, WriteGuard
from phicrypt.s3.transfer import DEFAULT_CONCURRENCY, TransferSettings, download, upload
from phicrypt.s3.writing import copy as copying
from phicrypt.s3.writing.incomplete_uploads import (
    DEFAULT_AGE_SECONDS,
    IncompleteUpload,
    aborted_uploads,
    incomplete_uploads,
)
from phicrypt.s3.writing.multipart import MultipartUploads
from phicrypt.s3.writing.put import put_object
from phicrypt.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from boto3 import Session as Boto3Session
    from mypy_boto3_s3.client import S3Client as AwsS3Client

    from phicrypt.s3.boto3_types import TypedVerbs as Boto3Verbs
    from phicrypt.s3.session import Boto3S3
else:
    Boto3Verbs = ForwardedOperations

Context = Mapping[str, str] | AuditContext
Progress = Callable[..., Any] | None
Extra = Mapping[str, Any] | None


class S3Client(Boto3Verbs):
    """An S3 client whose objects are encrypted.

    Args:
        phi_session: keys, guard and audit trail.
        client: a boto3 S3 client, which is not changed, or a boto3 session; None is boto3's default one.
        write_guard: refuses writes to buckets (``require_private_bucket=True`` of ``phi.s3``).
        bind_location: bind each object to its bucket and key, and require that on read (rule 9).
        logical_buckets: physical bucket (or access point) to the logical name that is bound; for
            replicas, restores and access points.
        context: pairs bound to every object and required on every read; ``EncryptionContext=`` of a
            call adds to them.
        read_formats: which formats are believed: ``"esdk"``, ``"s3ec-v3"``, ``"s3ec-v2"`` (does not
            commit to its key) and ``"s3ec-instruction-files"`` (rule 7).
        format: what is written: ``"esdk"``, or ``"s3ec"`` for the S3 Encryption Client's version 3
            (a ``KmsKeyring``, no location binding, at most 64 GiB).
        signed: sign what is written; such objects have no ranges.
        frame_length_bytes: plaintext bytes of a frame; by default the client's.
        part_size_bytes: plaintext bytes of a part in multipart uploads and of a range in downloads;
            5 MiB at least, a multiple of the frame length.
        max_memory_bytes: beyond it, ``put_object`` seals into an unlinked file of ciphertext.
        required_context: names of pairs that objects are bound to and do not store; by default those of the
            :class:`~phicrypt.PhiCrypt`, ``RequiredContext=`` of a call overrides both (rule 35).

    Raises ConfigurationError.
    """

    _s3_session: S3Session

    def __init__(
        self,
        phi_session: Session,
        client: AwsS3Client | Boto3Session | None = None,
        write_guard: WriteGuard | None = None,
        **settings: Unpack[S3Settings],
    ) -> None:
        required = phi_session.contexts.required_context
        options = S3Options.checked(phi_session.limits, phi_session.frame_length_bytes, required, **settings)
        self._s3_session = S3Session(phi_session, cast("Boto3S3", raw_client(client)), options, write_guard)
        self._uploads = MultipartUploads(self._s3_session)

    def __repr__(self) -> str:
        return f"<S3Client writing {self._s3_session.options.format}>"

    if not TYPE_CHECKING:  # their types are boto3's: see phicrypt.s3.boto3_types
        put_object = handled("put_object", put_object)
        get_object = handled("get_object", reading.get_object, OWN_READ_PARAMETERS)
        head_object = handled("head_object", reading.head_object)
        list_objects_v2 = handled("list_objects_v2", reading.list_objects_v2, (*OWN_PARAMETERS, "PlaintextSizes"))
        copy_object = handled("copy_object", copying.copy_object, OWN_READ_PARAMETERS)
        put_object_tagging = handled("put_object_tagging", put_object_tagging)
        restore_object = handled("restore_object", restore_object)
        create_multipart_upload = handled("create_multipart_upload", MultipartUploads.create, of="_uploads")
        upload_part = handled("upload_part", MultipartUploads.upload_part, of="_uploads")
        complete_multipart_upload = handled("complete_multipart_upload", MultipartUploads.complete, of="_uploads")
        abort_multipart_upload = handled("abort_multipart_upload", MultipartUploads.abort, of="_uploads")

    # --- transfers -------------------------------------------------------------------------------

    def upload_file(
        self,
        Filename: str | os.PathLike[str],
        Bucket: str,
        Key: str,
        ExtraArgs: Extra = None,
        Callback: Progress = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``upload_file``; errors of S3 come as boto3's ``S3UploadFailedError``."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import ClientError

        with open(checked_file_name(Filename), "rb") as file:
            try:
                self._upload(file, Bucket, Key, ExtraArgs, Callback, Config, "s3.upload_file")
            except ClientError as error:
                # The text names the error's code, neither file nor object key: both may be PHI.
                code = error.response.get("Error", {}).get("Code", "Unknown")
                raise S3UploadFailedError(f"the upload failed: {code} ({error.operation_name})") from error

    def upload_fileobj(
        self,
        Fileobj: Any,
        Bucket: str,
        Key: str,
        ExtraArgs: Extra = None,
        Callback: Progress = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``upload_fileobj``: sealed in order, uploaded in parallel parts. ``read(n)`` is all it needs."""
        if not hasattr(Fileobj, "read"):
            raise ValueError("Fileobj must implement read")  # as boto3 says it
        self._upload(Fileobj, Bucket, Key, ExtraArgs, Callback, Config, "s3.upload_fileobj")

    def download_file(
        self,
        Bucket: str,
        Key: str,
        Filename: str | os.PathLike[str],
        ExtraArgs: Extra = None,
        Callback: Progress = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``download_file``. The file appears under its name when all of it was verified."""
        pieces = self._download(Bucket, Key, ExtraArgs, Config, "s3.download_file")
        download_to_file(pieces, Filename, Callback)

    def download_fileobj(
        self,
        Bucket: str,
        Key: str,
        Fileobj: Any,
        ExtraArgs: Extra = None,
        Callback: Progress = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``download_fileobj``: verified plaintext in order. After an error, discard what came."""
        if not hasattr(Fileobj, "write"):
            raise ValueError("Fileobj must implement write")
        pieces = self._download(Bucket, Key, ExtraArgs, Config, "s3.download_fileobj")
        write_all_pieces(pieces, Fileobj, Callback)

    def copy(
        self,
        CopySource: Any,
        Bucket: str,
        Key: str,
        ExtraArgs: Extra = None,
        Callback: Progress = None,
        SourceClient: Any = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``copy``; ``SourceClient`` is another client of this kind, with the source's keyring."""
        if SourceClient is not None and not isinstance(SourceClient, S3Client):
            raise ConfigurationError("SourceClient is a phicrypt S3 client: it has to open the source")
        parameters = {**(ExtraArgs or {}), "CopySource": CopySource, "Bucket": Bucket, "Key": Key}
        own = self._own("copy_object", parameters, OWN_READ_PARAMETERS)
        writer, reader = self._s3_session, (SourceClient or self)._s3_session
        settings = TransferSettings.of(writer.options, Config, Callback)
        copying.copy(writer, reader, parameters, own, settings, operation="s3.copy")

    @overload
    def open(
        self,
        name: str,
        mode: Literal["rb"] = "rb",
        *,
        version_id: str | None = None,
        context: Context | AnyContext | None = None,
        required_context: Iterable[str] | None = None,
        extra_args: Extra = None,
    ) -> S3File: ...

    @overload
    def open(
        self,
        name: str,
        mode: Literal["wb"],
        *,
        context: Context | None = None,
        required_context: Iterable[str] | None = None,
        extra_args: Extra = None,
    ) -> S3Writer: ...

    def open(
        self,
        name: str,
        mode: str = "rb",
        *,
        version_id: str | None = None,
        context: Context | AnyContext | None = None,
        required_context: Iterable[str] | None = None,
        extra_args: Extra = None,
    ) -> S3File | S3Writer:
        """A Python file object over ``s3://bucket/key``, mode ``"rb"`` (seekable) or ``"wb"``.

        ``extra_args`` are parameters of GetObject or PutObject. A file that is read has ``read_at`` as well,
        see :meth:`~phicrypt.s3.file_objects.S3File.read_at`. Writing ends with ``close()``; an exception inside
        ``with`` aborts the upload.
        """
        bucket, object_key = parse_s3_name(name)
        parameters = {**(extra_args or {}), "Bucket": bucket, "Key": object_key}
        if context is not None:
            parameters["EncryptionContext"] = context
        if required_context is not None:
            parameters["RequiredContext"] = required_context
        if mode == "rb":
            if version_id is not None:
                parameters["VersionId"] = version_id
            if "Range" in parameters:
                raise ConfigurationError("a file object reads the ranges it needs; seek instead of Range")
            own = self._own("get_object", parameters, OWN_READ_PARAMETERS)
            demands = demands_of(self._s3_session, own, "s3.open")
            found = open_by_probe(self._s3_session, parameters, demands)
            if isinstance(found, Opened):
                return S3File(S3Reader(FramedMessage(found)), 64 * 1024)
            return S3File(S3Reader(VerifiedObject(self._s3_session, *found, demands)), 64 * 1024)
        if mode != "wb" or version_id is not None:
            raise ConfigurationError('mode is "rb" or "wb", and only reading takes a version_id')
        own = self._own_of_new_object(parameters)
        return S3Writer(self._s3_session, parameters, own, TransferSettings.of(self._s3_session.options))

    # --- what others left ----------------------------------------------------------------------------

    def abort_incomplete(
        self,
        bucket: str,
        prefix: str = "",
        *,
        older_than_seconds: float = DEFAULT_AGE_SECONDS,
        dry_run: bool = False,
    ) -> list[IncompleteUpload]:
        """``s3.abort_incomplete("scans", "2026/")``: abort multipart uploads that a killed process left behind.

        Whoever's they are, under the prefix, begun at least so many seconds ago (a day): younger ones may
        still be running. Returns those that were aborted; with ``dry_run`` those that would be, and aborts
        none. No key is used. Raises ConfigurationError for a negative age, boto3's ClientError.
        """
        client = self._s3_session.client
        found = incomplete_uploads(client, bucket, prefix, older_than_seconds=older_than_seconds)
        return found if dry_run else aborted_uploads(client, found)

    # --- change of key -----------------------------------------------------------------------------

    def plan_rewrap(self, bucket: str, object_key: str) -> copying.CopyPlan:
        """What :meth:`rewrap` would cost; one HeadObject, nothing else."""
        check_text(bucket, "bucket")
        check_text(object_key, "object_key")
        return copying.plan_rewrap(self._s3_session, bucket, object_key)

    def rewrap(
        self,
        bucket: str,
        object_key: str,
        *,
        to: Keyring,
        context: Context | None = None,
        required_context: Iterable[str] | None = None,
        callback: Progress = None,
    ) -> copying.CopyPlan:
        """Put an object under another wrapping key, in its place.

        An S3 Encryption Client object gets new metadata and keeps its body; an ESDK object is
        encrypted again (rule 3). Old versions of the object keep the old key. See
        ``docs/s3.md`` for when KMS's own rotation makes this needless.
        """
        check_text(bucket, "bucket")
        check_text(object_key, "object_key")
        settings = TransferSettings.of(self._s3_session.options, progress=callback)
        own = own_parameters({"EncryptionContext": context, "RequiredContext": required_context}, OWN_PARAMETERS)
        return copying.rewrap(self._s3_session, to, bucket, object_key, own, settings)

    # --- inside ------------------------------------------------------------------------------------

    def _own(
        self, operation_name: str, parameters: dict[str, Any], names: tuple[str, ...] = OWN_PARAMETERS
    ) -> dict[str, Any]:
        """phicrypt's own parameters, taken out; the rest is checked (rule 17)."""
        own = own_parameters(parameters, names)
        check_parameters(self._s3_session.client, operation_name, parameters)
        return own

    def _own_of_new_object(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """As :meth:`_own`, of an object whose body comes from elsewhere."""
        if unfit := sorted({"Body", "ContentLength"} & set(parameters)):
            raise ConfigurationError(f"{unfit} are told by the source, not by parameters")
        return self._own("put_object", parameters)

    def _upload(
        self,
        source: Any,
        bucket: str,
        object_key: str,
        extra: Extra,
        progress: Progress,
        config: Any,
        operation: str,
    ) -> None:
        parameters = {**(extra or {}), "Bucket": bucket, "Key": object_key}
        own = self._own_of_new_object(parameters)
        settings = TransferSettings.of(self._s3_session.options, config, progress)
        upload(self._s3_session, source, parameters, own, settings, operation=operation)

    def _download(
        self, bucket: str, object_key: str, extra: Extra, config: Any, operation: str
    ) -> Iterator[bytes | memoryview]:
        parameters = {**(extra or {}), "Bucket": bucket, "Key": object_key}
        if "Range" in parameters:
            raise UnsupportedOperationError("a download takes the whole object; use get_object with Range")
        own = self._own("get_object", parameters, OWN_READ_PARAMETERS)
        demands = demands_of(self._s3_session, own, operation)
        settings = TransferSettings.of(self._s3_session.options, config)
        return download(self._s3_session, parameters, demands, settings)


def raw_client(client_or_session: AwsS3Client | Boto3Session | None) -> AwsS3Client:
    """A boto3 client, or a new one from a session, with connections enough for transfers; its answers are judged.

    Raises ConfigurationError for a client of another service, an asynchronous one, a proxy and a fake
    that is not marked (rules 33 and 41).
    """
    import boto3
    from botocore.config import Config

    if client_or_session is None:
        client_or_session = boto3.Session()
    if isinstance(client_or_session, boto3.Session):
        made = client_or_session.client("s3", config=Config(max_pool_connections=2 * DEFAULT_CONCURRENCY))
        return judged_client(made)
    check_client(client_or_session, service="s3")
    return judged_client(client_or_session)
