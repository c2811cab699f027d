"""``phicrypt s3``: encrypted objects from the command line."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phicrypt.cli.commands import Commands, Without
from phicrypt.cli.console import CHECK_EXIT_CODE, complain, fail, print_json, print_table, progress
from phicrypt.cli.key_pairs import KeyPairs
from phicrypt.cli.options import (
    AuditOptions,
    AwsAccess,
    ContextOption,
    ForceOption,
    JsonOption,
    KeyOption,
    OptionalKeyOption,
    RequiredContextOption,
    parse_pairs,
    required_names_among,
)
from phicrypt.core.byte_ranges import parse_range
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from phicrypt.core.materials import Keyring
    from phicrypt.s3.client import S3Client

app = Commands(no_args_is_help=True, help="Put, get and list encrypted S3 objects.")

_PIPE = "-"
_READ_FORMATS_HELP = "Formats to believe besides 'esdk': s3ec-v3, s3ec-v2, s3ec-instruction-files; repeatable."
ReadFormatOption = Annotated[
    list[str] | None, typer.Option("--read-format", metavar="NAME", help=_READ_FORMATS_HELP)
]
LogicalBucketOption = Annotated[
    list[str] | None,
    typer.Option(
        "--logical-bucket",
        metavar="PHYSICAL=LOGICAL",
        help="The bucket name that objects of a replica or restore are bound to; repeatable.",
    ),
]


@contextmanager
def _client(
    aws: AwsAccess,
    keyring: Keyring,
    audit: AuditOptions,
    *,
    context: list[str] | None = None,
    required_context: list[str] | None = None,
    read_formats: list[str] | None = None,
    logical_buckets: list[str] | None = None,
    **settings: Any,
) -> Iterator[S3Client]:
    """The encrypted client that a command's options describe."""
    pairs = parse_pairs(context, "--context")
    required = required_names_among(required_context, pairs, "--context")
    with audit.client(keyring, required_context=required) as phi:
        yield phi.s3(
            aws.client("s3"),
            context=pairs,
            read_formats=("esdk", *(read_formats or ())),
            logical_buckets=parse_pairs(logical_buckets, "--logical-bucket"),
            **settings,
        )


@app.command()
def put(
    sources: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files or glob patterns; - is stdin.")],
    target: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket/key, or s3://bucket/prefix/.")],
    key: OptionalKeyOption = None,
    context: ContextOption = None,
    required_context: RequiredContextOption = None,
    signed: Annotated[bool, typer.Option("--signed", help="Sign the objects; they have no ranges then.")] = False,
    s3ec: Annotated[
        bool, typer.Option("--s3ec", help="Write the S3 Encryption Client's format (version 3).")
    ] = False,
    force: ForceOption = False,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_private_key")],
    aws: AwsAccess,
    audit: AuditOptions,
) -> None:
    """Encrypt files into objects. Existing objects are replaced with --force only."""
    moves = _moves(sources, target)
    settings: dict[str, Any] = {"signed": signed, "format": "s3ec" if s3ec else "esdk"}
    settings["required_context"] = required_context
    with _client(aws, pairs.keyring(aws, key, writes=True), audit, context=context, **settings) as s3:
        for source, bucket, object_key in moves:
            extra = {} if force else {"IfNoneMatch": "*"}
            if source == _PIPE:
                s3.upload_fileobj(sys.stdin.buffer, bucket, object_key, extra)
                continue
            path = Path(source)
            with path.open("rb") as file, progress(path.name, path.stat().st_size, in_bytes=True) as advance:
                s3.upload_fileobj(file, bucket, object_key, extra, advance)


def _moves(sources: list[str], target: str) -> list[tuple[str, str, str]]:
    """(source, bucket, object key) for each file that the sources name."""
    bucket, object_key = _split(target)
    files = [name for source in sources for name in _expanded(source)]
    into_prefix = not object_key or object_key.endswith("/")
    if not into_prefix:
        if len(files) != 1:
            raise ConfigurationError(f"{len(files)} files go under a prefix: end the S3 name with '/'")
        return [(files[0], bucket, object_key)]
    if _PIPE in files:
        raise ConfigurationError("stdin needs a whole object key, not a prefix")
    names = [Path(file).name for file in files]
    if len(set(names)) != len(names):
        raise ConfigurationError("two files have the same name and would become one object")
    return [(file, bucket, object_key + name) for file, name in zip(files, names, strict=True)]


def _expanded(source: str) -> list[str]:
    if source == _PIPE or Path(source).exists():
        return [source]
    found = sorted(name for name in glob.glob(source, recursive=True) if Path(name).is_file())
    if not found:
        raise FileNotFoundError(2, "no such file, and no file matches the pattern", source)
    return found


def _split(name: str) -> tuple[str, str]:
    """Bucket and object key (or prefix, maybe empty) of an S3 name."""
    scheme, _, rest = name.partition("://")
    bucket, _, object_key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigurationError("an S3 name has the form s3://bucket/key")
    return bucket, object_key


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket/key")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="File or existing folder to write to.")],
    key: OptionalKeyOption = None,
    context: ContextOption = None,
    required_context: RequiredContextOption = None,
    read_format: ReadFormatOption = None,
    logical_bucket: LogicalBucketOption = None,
    version_id: Annotated[str | None, typer.Option("--version-id", help="Version of the object.")] = None,
    force: ForceOption = False,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_public_key")],
    aws: AwsAccess,
    audit: AuditOptions,
) -> None:
    """Decrypt an object into a file, which appears only when all of it was verified."""
    bucket, object_key = _split(name)
    if str(target) == _PIPE:
        raise ConfigurationError("get writes a file, once all of it was verified; 's3 cat' writes to stdout")
    path = target / object_key.rpartition("/")[2] if target.is_dir() else target
    if path.exists() and not force:
        raise FileExistsError(17, "the target exists; --force replaces it", str(path))
    extra = {} if version_id is None else {"VersionId": version_id}
    formats = {
        "context": context,
        "required_context": required_context,
        "read_formats": read_format,
        "logical_buckets": logical_bucket,
    }
    with (
        _client(aws, pairs.keyring(aws, key), audit, **formats) as s3,
        progress(path.name, None, in_bytes=True) as advance,
    ):
        s3.download_file(bucket, object_key, path, extra, advance)


@app.command()
def cat(
    name: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket/key")],
    key: OptionalKeyOption = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="a-b|a-|-n", help="Bytes of the plaintext to fetch only.")
    ] = None,
    context: ContextOption = None,
    required_context: RequiredContextOption = None,
    read_format: ReadFormatOption = None,
    logical_bucket: LogicalBucketOption = None,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_public_key")],
    aws: AwsAccess,
    audit: AuditOptions,
) -> None:
    """Decrypt an object, or a range of it, to stdout. Discard what came if it ends with an error."""
    bucket, object_key = _split(name)
    if range_ is not None and parse_range(f"bytes={range_}") is None:
        # S3 answers what is no range with the whole object, which nobody asked for here.
        raise ConfigurationError("--range is a-b, a- or -n")
    formats = {
        "context": context,
        "required_context": required_context,
        "read_formats": read_format,
        "logical_buckets": logical_bucket,
    }
    with _client(aws, pairs.keyring(aws, key), audit, **formats) as s3:
        if range_ is None:
            s3.download_fileobj(bucket, object_key, sys.stdout.buffer)
        else:
            body = s3.get_object(Bucket=bucket, Key=object_key, Range=f"bytes={range_}")["Body"]
            for piece in body.iter_chunks(1024**2):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@app.command("ls")
def list_objects(
    name: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket or s3://bucket/prefix")],
    key: KeyOption,
    read_format: ReadFormatOption = None,
    *,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """List objects with plaintext lengths where they can be told. No key is used, nothing is verified."""
    bucket, prefix = _split(name)
    entries: list[Any] = []
    with _client(aws, aws.kms_keyring(key), AuditOptions(), read_formats=read_format) as s3:
        more: dict[str, Any] = {}
        while True:
            page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, PlaintextSizes=True, **more)
            entries += page.get("Contents", [])
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
    rows = [
        (entry["Key"], entry.get("PlaintextSize"), entry["Size"], entry["LastModified"].isoformat())
        for entry in entries
    ]
    if as_json:
        names = ("object_key", "plaintext_length_bytes", "stored_length_bytes", "last_modified")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table("", ("object key", "plaintext (claimed)", "stored", "last modified"), rows)


@app.command()
def rewrap(
    name: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket/key, or s3://bucket/prefix/")],
    key: KeyOption,
    to: Annotated[str, typer.Option("--to", metavar="ARN", help="KMS key that the objects are put under.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would cost, and stop.")] = False,
    context: ContextOption = None,
    required_context: RequiredContextOption = None,
    read_format: ReadFormatOption = None,
    *,
    aws: AwsAccess,
    audit: AuditOptions,
    as_json: JsonOption = False,
) -> None:
    """Put objects under another KMS key, after printing what it costs.

    Messages are encrypted again; objects of the S3 Encryption Client get new metadata only. Yearly
    rotation of one KMS key needs neither: KMS keeps opening what it wrapped before.
    """
    bucket, object_key = _split(name)
    target = aws.kms_keyring(to)
    formats = {"context": context, "required_context": required_context, "read_formats": read_format}
    with _client(aws, aws.kms_keyring(key), audit, **formats) as s3:
        plans = [(one, s3.plan_rewrap(bucket, one)) for one in _object_keys(s3, bucket, object_key)]
        if as_json:
            print_json([{"object_key": one, **plan._asdict()} for one, plan in plans])
        else:
            columns = ("object key", "method", "stored", "bytes through client", "S3 requests", "KMS calls")
            print_table("What it costs", columns, [(one, *plan) for one, plan in plans])
        if dry_run:
            return
        total = sum(plan.stored_length_bytes for _, plan in plans)
        with progress("rewrap", total, in_bytes=True) as advance:
            for one, plan in plans:
                s3.rewrap(bucket, one, to=target, callback=_if_moved(plan.bytes_through_client, advance))


def _object_keys(s3: S3Client, bucket: str, object_key: str) -> list[str]:
    if object_key and not object_key.endswith("/"):
        return [object_key]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=object_key)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def _if_moved(bytes_through_client: int, advance: Callable[[int], Any]) -> Callable[[int], Any] | None:
    return advance if bytes_through_client else None


@app.command("abort-incomplete")
def abort_incomplete_uploads(
    name: Annotated[str, typer.Argument(metavar="S3-NAME", help="s3://bucket or s3://bucket/prefix")],
    older_than_hours: Annotated[
        float, typer.Option("--older-than-hours", min=0, help="Leave younger uploads: they may be running.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and stop.")] = False,
    *,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """Abort multipart uploads that a killed process left behind. Exit code 1 with --dry-run if there are any."""
    from phicrypt.s3.writing.incomplete_uploads import aborted_uploads, incomplete_uploads

    bucket, prefix = _split(name)
    raw = aws.client("s3")
    found = incomplete_uploads(raw, bucket, prefix, older_than_seconds=older_than_hours * 3600)
    rows = [(upload.object_key, upload.upload_id, upload.initiated.isoformat()) for upload in found]
    if as_json:
        names = ("object_key", "upload_id", "initiated")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    elif rows:
        print_table("", ("object key", "upload id", "initiated"), rows)
    if dry_run:
        if found:
            fail(f"{len(found)} incomplete uploads", CHECK_EXIT_CODE)
        return
    complain(f"{len(aborted_uploads(raw, found))} incomplete uploads aborted")


@app.command("clean-partial")
def clean_partial(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where downloads were written.")],
    older_than_hours: Annotated[
        float, typer.Option("--older-than-hours", min=0, help="Leave younger files: they may be being written.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove plaintext that a killed process left, where files without a name cannot be had.

    Exit code 1 with --dry-run if there is any.
    """
    from phicrypt.core.output_file import abandoned_files

    found = abandoned_files(folder, older_than_seconds=older_than_hours * 3600)
    if as_json:
        print_json([str(path) for path in found])
    elif found:
        print_table("", ("file",), [(str(path),) for path in found])
    if dry_run:
        if found:
            fail(f"{len(found)} abandoned files", CHECK_EXIT_CODE)
        return
    for path in found:
        path.unlink(missing_ok=True)
    complain(f"{len(found)} abandoned files removed")
