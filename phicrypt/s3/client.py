"""``S3Client``: boto3's S3 verbs, encrypted before upload and authenticated before release.

Made by ``PhiCrypt.s3()``. It has boto3's method names, parameters, responses and errors; a method
exists only for an operation that :mod:`phicrypt.s3.operations` has classed. Three parameters are
added to boto3's: ``EncryptionContext`` wherever an object is written or read, ``RequireSigned`` and
``AllowUncommitted`` where one is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.context import ANY_CONTEXT, AuditContext
from phicrypt.core.materials import Keyring
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.s3 import transfer
from phicrypt.s3.file_objects import S3Reader, S3Writer, parse_s3_name
from phicrypt.s3.forwarding import ForwardedOperations
from phicrypt.s3.gateway import GET_OBJECT, Gateway, Reading
from phicrypt.s3.local_files import download_to_file, write_all_pieces
from phicrypt.s3.operations import check_parameters
from phicrypt.s3.options import DEFAULT_MEMORY_BYTES, DEFAULT_PART_SIZE_BYTES, S3Options
from phicrypt.s3.raw_client import raw_client
from phicrypt.s3.reading import get as getting
from phicrypt.s3.reading import listing
from phicrypt.s3.reading.source import ObjectSource
from phicrypt.s3.transfer import TransferSettings
from phicrypt.s3.writing import copy as copying
from phicrypt.s3.writing import put as putting
from phicrypt.s3.writing.multipart import MultipartUploads

if TYPE_CHECKING:
    from phicrypt.client import PhiCrypt

_READ_OWN: Final = ("EncryptionContext", "RequireSigned", "AllowUncommitted")


class S3Client(ForwardedOperations):
    """An S3 client whose objects are encrypted.

    Args:
        phi: keys, guard and audit trail.
        s3: a boto3 S3 client, which is not changed, or a boto3 session; None is boto3's default one.
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
        require_private_bucket: refuse writes to buckets that are public or take plain HTTP.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        phi: PhiCrypt,
        s3: Any,
        *,
        bind_location: bool = True,
        logical_buckets: Mapping[str, str] | None = None,
        context: Mapping[str, str] | AuditContext | None = None,
        read_formats: Iterable[str] = ("esdk",),
        format: str = "esdk",  # noqa: A002  (the name of the setting)
        signed: bool = False,
        frame_length_bytes: int | None = None,
        part_size_bytes: int = DEFAULT_PART_SIZE_BYTES,
        max_memory_bytes: int = DEFAULT_MEMORY_BYTES,
        require_private_bucket: bool = False,
    ) -> None:
        options = S3Options.checked(
            bind_location=bind_location,
            logical_buckets=logical_buckets,
            context=context,
            read_formats=read_formats,
            format=format,
            signed=signed,
            frame_length_bytes=phi.frame_length_bytes if frame_length_bytes is None else frame_length_bytes,
            part_size_bytes=part_size_bytes,
            max_memory_bytes=max_memory_bytes,
            limits=phi.limits,
        )
        raw = raw_client(s3)
        write_guard = None
        if require_private_bucket:
            from phicrypt.posture.write_guard import BucketWriteGuard

            write_guard = BucketWriteGuard(raw)
        self._gateway = Gateway(phi, raw, options, write_guard)
        self._uploads = MultipartUploads(self._gateway)

    def __repr__(self) -> str:
        return f"<S3Client writing {self._gateway.options.format}>"

    # --- objects ---------------------------------------------------------------------------------

    def put_object(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``put_object``. ``Body`` is sealed once, into memory or a file of ciphertext, then sent."""
        own = self._checked("put_object", parameters)
        return putting.put_object(self._gateway, parameters, own)

    def get_object(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``get_object``, with ``Range`` in plaintext terms.

        ``Body`` gives verified plaintext frame by frame; an error in the middle of it means that what
        came before was verified, and that nothing after it may be believed.
        """
        reading = self._reading(parameters, GET_OBJECT)
        return getting.get_object(self._gateway, parameters, reading)

    def head_object(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``head_object``; ``ContentLength`` is the plaintext's, a claim that nobody verified."""
        self._checked("head_object", parameters)
        return getting.head_object(self._gateway, parameters)

    def list_objects_v2(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``list_objects_v2``. ``Size`` is the stored length.

        ``PlaintextSizes=True`` asks for each object's metadata (one HeadObject each, in parallel) and
        adds ``PlaintextSize`` where it can be known, and ``PlaintextSizeVerified: False``.
        """
        wants_sizes = bool(parameters.pop("PlaintextSizes", False))
        self._checked("list_objects_v2", parameters)
        page: dict[str, Any] = self._gateway.s3.list_objects_v2(**parameters)
        return listing.with_plaintext_sizes(self._gateway, parameters, page) if wants_sizes else page

    def copy_object(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``copy_object``: reads, verifies and seals again for the new name, of any size."""
        settings = TransferSettings.from_config(self._gateway, None)
        return self._copy(parameters, self, settings, None, "s3.copy_object")

    def put_object_tagging(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``put_object_tagging``; tags stand in clear, so they pass the PHI guard."""
        self._checked("put_object_tagging", parameters)
        self._gateway.check_tag_set(parameters.get("Tagging", {}).get("TagSet", ()))
        answer: dict[str, Any] = self._gateway.s3.put_object_tagging(**parameters)
        return answer

    def restore_object(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``restore_object``, without its select form, which would store query results."""
        self._checked("restore_object", parameters)
        request = parameters.get("RestoreRequest", {})
        if unknown := set(request) - {"Days", "GlacierJobParameters", "Tier", "Description"}:
            raise UnsupportedOperationError(
                f"restore_object: {sorted(unknown)} are refused: S3 Select reads plaintext"
            )
        answer: dict[str, Any] = self._gateway.s3.restore_object(**parameters)
        return answer

    # --- multipart -------------------------------------------------------------------------------

    def create_multipart_upload(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``create_multipart_upload``; the upload belongs to this client in this process."""
        own = self._checked("create_multipart_upload", parameters)
        return self._uploads.create(parameters, own)

    def upload_part(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``upload_part``: exactly ``part_size_bytes`` of plaintext, the last part may be shorter."""
        self._checked("upload_part", parameters)
        return self._uploads.upload_part(parameters)

    def complete_multipart_upload(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``complete_multipart_upload``; adds what ends the message."""
        self._checked("complete_multipart_upload", parameters)
        return self._uploads.complete(parameters)

    def abort_multipart_upload(self, **parameters: Any) -> dict[str, Any]:
        """boto3's ``abort_multipart_upload``."""
        self._checked("abort_multipart_upload", parameters)
        return self._uploads.abort(parameters)

    # --- transfers -------------------------------------------------------------------------------

    def upload_file(
        self,
        Filename: str | os.PathLike[str],
        Bucket: str,
        Key: str,
        ExtraArgs: Mapping[str, Any] | None = None,
        Callback: Callable[[int], Any] | None = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``upload_file``; errors of S3 come as boto3's ``S3UploadFailedError``."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import ClientError

        with open(Filename, "rb") as file:
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
        ExtraArgs: Mapping[str, Any] | None = None,
        Callback: Callable[[int], Any] | None = None,
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
        ExtraArgs: Mapping[str, Any] | None = None,
        Callback: Callable[[int], Any] | None = None,
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
        ExtraArgs: Mapping[str, Any] | None = None,
        Callback: Callable[[int], Any] | None = None,
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
        ExtraArgs: Mapping[str, Any] | None = None,
        Callback: Callable[[int], Any] | None = None,
        SourceClient: S3Client | None = None,
        Config: Any = None,
    ) -> None:
        """boto3's ``copy``; ``SourceClient`` is another client of this kind, with the source's keyring."""
        if SourceClient is not None and not isinstance(SourceClient, S3Client):
            raise ConfigurationError("SourceClient is a phicrypt S3 client: it has to open the source")
        parameters = {**(ExtraArgs or {}), "CopySource": CopySource, "Bucket": Bucket, "Key": Key}
        settings = TransferSettings.from_config(self._gateway, Config)
        self._copy(parameters, SourceClient or self, settings, Callback, "s3.copy")

    def open(
        self,
        name: str,
        mode: str = "rb",
        *,
        version_id: str | None = None,
        context: Any = None,
        extra_args: Mapping[str, Any] | None = None,
    ) -> io.BufferedReader | S3Writer:
        """A Python file object over ``s3://bucket/key``, mode ``"rb"`` (seekable) or ``"wb"``.

        ``extra_args`` are parameters of GetObject or PutObject. Writing ends with ``close()``; an
        exception inside ``with`` aborts the upload.
        """
        bucket, object_key = parse_s3_name(name)
        parameters = {**(extra_args or {}), "Bucket": bucket, "Key": object_key}
        if context is not None:
            parameters["EncryptionContext"] = context
        if mode == "rb":
            if version_id is not None:
                parameters["VersionId"] = version_id
            if "Range" in parameters:
                raise ConfigurationError("a file object reads the ranges it needs; seek instead of Range")
            reading = self._reading(parameters, "s3.open")
            return io.BufferedReader(S3Reader(self._gateway, parameters, reading), 64 * 1024)
        if mode != "wb" or version_id is not None:
            raise ConfigurationError('mode is "rb" or "wb", and only reading takes a version_id')
        parameters = _new_object(parameters, bucket, object_key)
        own = self._checked("put_object", parameters)
        return S3Writer(self._gateway, parameters, own, TransferSettings.from_config(self._gateway, None))

    # --- change of key -----------------------------------------------------------------------------

    def plan_rewrap(self, bucket: str, object_key: str) -> copying.CopyPlan:
        """What :meth:`rewrap` would cost; one HeadObject, nothing else."""
        return copying.plan_rewrap(self._gateway, self._source(bucket, object_key))

    def rewrap(
        self,
        bucket: str,
        object_key: str,
        *,
        to: Keyring,
        context: Any = None,
        callback: Callable[[int], Any] | None = None,
    ) -> copying.CopyPlan:
        """Put an object under another wrapping key, in its place.

        An S3 Encryption Client object gets new metadata and keeps its body; an ESDK object is
        encrypted again (rule 3). Old versions of the object keep the old key. See
        ``docs/s3.md`` for when KMS's own rotation makes this needless.
        """
        gateway = self._gateway
        if context is ANY_CONTEXT:
            raise ConfigurationError("rewrap writes the object again, so it needs the pairs themselves")
        return copying.rewrap(
            gateway,
            gateway.with_fresh_keys(to),
            self._source(bucket, object_key),
            context,
            gateway.reading(context),
            TransferSettings.from_config(gateway, None),
            callback,
        )

    # --- inside ------------------------------------------------------------------------------------

    def _checked(self, operation_name: str, parameters: dict[str, Any]) -> Any:
        """The caller's encryption context, taken out of the parameters; the rest is checked (rule 17)."""
        own = parameters.pop("EncryptionContext", None)
        check_parameters(self._gateway.s3, operation_name, parameters)
        return own

    def _reading(self, parameters: dict[str, Any], operation: str) -> Reading:
        own = {name: parameters.pop(name) for name in _READ_OWN if name in parameters}
        check_parameters(self._gateway.s3, "get_object", parameters)
        return self._gateway.reading(
            own.get("EncryptionContext"),
            require_signed=bool(own.get("RequireSigned", False)),
            allow_uncommitted=bool(own.get("AllowUncommitted", False)),
            operation=operation,
        )

    def _upload(
        self,
        source: Any,
        bucket: str,
        object_key: str,
        extra: Mapping[str, Any] | None,
        progress: Callable[[int], Any] | None,
        config: Any,
        operation: str,
    ) -> None:
        parameters = _new_object(extra, bucket, object_key)
        own = self._checked("put_object", parameters)
        settings = TransferSettings.from_config(self._gateway, config)
        transfer.upload(self._gateway, source, parameters, own, settings, progress, operation=operation)

    def _download(
        self, bucket: str, object_key: str, extra: Mapping[str, Any] | None, config: Any, operation: str
    ) -> Any:
        parameters = {**(extra or {}), "Bucket": bucket, "Key": object_key}
        if "Range" in parameters:
            raise UnsupportedOperationError("a download takes the whole object; use get_object with Range")
        reading = self._reading(parameters, operation)
        settings = TransferSettings.from_config(self._gateway, config)
        return transfer.download(self._gateway, parameters, reading, settings)

    def _copy(
        self,
        parameters: dict[str, Any],
        reader: S3Client,
        settings: TransferSettings,
        progress: Callable[[int], Any] | None,
        operation: str,
    ) -> dict[str, Any]:
        parameters = dict(parameters)
        own = {name: parameters.pop(name) for name in _READ_OWN if name in parameters}
        check_parameters(self._gateway.s3, "copy_object", parameters)
        context = own.get("EncryptionContext")
        if context is ANY_CONTEXT:
            raise ConfigurationError("a copy is written again, so it needs the pairs themselves")
        reading = reader._gateway.reading(
            context,
            require_signed=bool(own.get("RequireSigned", False)),
            allow_uncommitted=bool(own.get("AllowUncommitted", False)),
        )
        target = self._gateway.with_fresh_keys(self._gateway.phi.provider.keyring)
        return copying.copy_object(
            target, reader._gateway, parameters, context, reading, settings, progress, operation=operation
        )

    def _source(self, bucket: str, object_key: str) -> ObjectSource:
        return ObjectSource(self._gateway.s3, {"Bucket": bucket, "Key": object_key})


def _new_object(extra: Mapping[str, Any] | None, bucket: str, object_key: str) -> dict[str, Any]:
    """Parameters of an object whose body comes from elsewhere."""
    parameters = {**(extra or {}), "Bucket": bucket, "Key": object_key}
    if unfit := sorted({"Body", "ContentLength"} & set(parameters)):
        raise ConfigurationError(f"{unfit} are told by the source, not by parameters")
    return parameters
