"""``phicrypt drill``: rehearse recovery on files or S3 objects."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from phicrypt.cli.commands import Commands, Without
from phicrypt.cli.console import (
    CHECK_EXIT_CODE,
    EXIT_CODES_EPILOG,
    complain,
    print_json,
    print_table,
    progress,
)
from phicrypt.cli.key_pairs import KeyPairs
from phicrypt.cli.options import (
    AnyContextOption,
    AuditOptions,
    AwsAccess,
    ExpectOption,
    JsonOption,
    RequiredContextOption,
    parse_pairs,
    required_names_among,
)
from phicrypt.cli.transfers import MESSAGE_SUFFIX
from phicrypt.client import PhiCrypt
from phicrypt.core.context import ANY_CONTEXT, AnyContext
from phicrypt.core.materials import Keyring
from phicrypt.errors import ConfigurationError
from phicrypt.recovery.drill import DrillReport, Sample, digest_of, parse_digests, rehearse

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PATHS = ("rsa", "kms", "keystore")
_CHUNK_LENGTH_BYTES = 1024 * 1024
_S3_SCHEME = "s3://"

app = Commands()

TakePiece = Callable[[bytes], object]
Expected = dict[str, str] | AnyContext


class Place(NamedTuple):
    """A message or object.

    Attributes:
        name: what the report and the file of digests call it.
        read: ``read(client, expected context, take_piece)`` opens it.
    """

    name: str
    read: Callable[[PhiCrypt, Expected, TakePiece], None]


@app.command(epilog=EXIT_CODES_EPILOG)
def drill(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help=f"A folder of {MESSAGE_SUFFIX} files, a message, or s3://BUCKET/PREFIX."
        ),
    ],
    recovery_key: Annotated[
        str | None,
        typer.Option(
            "--recovery-key", metavar="ARN", help="The KMS key of the recovery path, if it is not a key pair's."
        ),
    ] = None,
    via: Annotated[str, typer.Option("--via", help=f"What opens: {', '.join(PATHS)}.")] = "rsa",
    padding: Annotated[str, typer.Option(help="With --via rsa.")] = "RSAES_OAEP_SHA_256",
    table: Annotated[str | None, typer.Option("--table", metavar="NAME", help="With --via keystore.")] = None,
    logical_name: Annotated[
        str | None, typer.Option("--logical-name", metavar="NAME", help="With --via keystore; default: the table.")
    ] = None,
    branch_key_id: Annotated[
        str | None, typer.Option("--branch-key-id", metavar="ID", help="With --via keystore.")
    ] = None,
    expect: ExpectOption = None,
    required_context: RequiredContextOption = None,
    any_context: AnyContextOption = False,
    sample: Annotated[int, typer.Option(min=0, help="How many to open, chosen at random; 0 for all.")] = 20,
    digests: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Expected digests of plaintexts, as sha256sum prints them.")
    ] = None,
    daily_key: Annotated[
        str | None, typer.Option("--daily-key", metavar="ARN", help="Open with this KMS key too, and compare.")
    ] = None,
    logical_bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="The bucket's name when the objects were written.")
    ] = None,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_public_key")],
    audit: AuditOptions,
    as_json: JsonOption = False,
    aws: AwsAccess,
) -> None:
    """Open a sample by the recovery path alone, compare digests, and say how long it took.

    The path is a KMS key with --recovery-key, or a private key in your hands: --rsa-private-key with
    --rsa-name, or --ecdh-private-key.

    Nothing is written and no plaintext is kept. Ends with 1 unless every sample opened, and to the
    expected bytes where they are known; an empty sample proves nothing and ends with 1 as well.
    """
    expected = parse_pairs(expect, "--expect")
    if bool(expected) == any_context:
        raise ConfigurationError("drill takes either --expect NAME=VALUE (repeatable) or --any-context")
    required = required_names_among(required_context, expected, "--expect")
    if digests is not None and daily_key is not None:
        raise ConfigurationError("compare with --digests or with --daily-key, not with both")
    by_pair = list(pairs.keyrings(aws))
    if len(by_pair) + (recovery_key is not None) != 1:
        raise ConfigurationError(
            "name one recovery path: --recovery-key ARN, --rsa-private-key FILE, --ecdh-private-key FILE or "
            "--ecdh-key ARN"
        )
    keyring = (
        by_pair[0]
        if recovery_key is None
        else _recovery_keyring(aws, via, recovery_key, padding, (table, logical_name, branch_key_id))
    )
    known = None if digests is None else _known_digests(digests)
    places = _places(aws, source, logical_bucket)
    with audit.trail() as trail:
        # Without a cache: every sample shows that the recovery key opens it.
        recovery = PhiCrypt(keyring, cache=None, audit=trail or (), required_context=required)
        daily = None
        if daily_key is not None:
            daily_keyring = aws.kms_keyring(daily_key)
            daily = PhiCrypt(daily_keyring, cache=None, audit=trail or (), required_context=required)
        report = _rehearse(recovery, places, sample, ANY_CONTEXT if any_context else expected, known, daily)
    _print_report(report, as_json)
    if not report.passed:
        raise typer.Exit(CHECK_EXIT_CODE)


def _rehearse(
    recovery: PhiCrypt,
    places: Sequence[Place],
    count: int,
    expected: Expected,
    known: dict[str, str] | None,
    daily: PhiCrypt | None,
) -> DrillReport:
    chosen = places if count == 0 else secrets.SystemRandom().sample(places, min(count, len(places)))

    def samples() -> Iterator[Sample]:
        for place in chosen:
            expected_digest: Callable[[], str | None] = partial((known or {}).get, place.name)
            if daily is not None:
                expected_digest = partial(digest_of, Sample(place.name, partial(place.read, daily, expected)))
            yield Sample(place.name, partial(place.read, recovery, expected), expected_digest)

    with progress("Opening", len(chosen)) as advance:
        return rehearse(
            repr(recovery.provider.keyring),
            samples(),
            available=len(places),
            must_match=known is not None or daily is not None,
            after_each=lambda: advance(1),
        )


def _recovery_keyring(
    aws: AwsAccess, via: str, key_arn: str, padding: str, store: tuple[str | None, str | None, str | None]
) -> Keyring:
    from phicrypt.core.kms_arn import configured_key_arn
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.keys.branch_keys.store import BranchKeyStore
    from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring

    key = configured_key_arn(key_arn)
    client = aws.client("kms", region=key.region)
    table, logical_name, branch_key_id = store
    if via == "kms":
        return aws.kms_keyring(key_arn)
    if via == "rsa":
        return KmsRsaKeyring(key_arn, algorithm=padding, client=client)  # type: ignore[arg-type]  # checked there
    if via != "keystore":
        raise ConfigurationError(f"--via is one of {', '.join(PATHS)}")
    if table is None or branch_key_id is None:
        raise ConfigurationError("--via keystore needs --table and --branch-key-id")
    recovery_store = BranchKeyStore(
        table,
        logical_name or table,
        key_arn,
        multi_region=True,
        dynamodb_client=aws.client("dynamodb", region=key.region),
        kms_client=client,
    )
    return HierarchicalKeyring(recovery_store, branch_key_id)


def _places(aws: AwsAccess, source: str, logical_bucket: str | None) -> list[Place]:
    if source.startswith(_S3_SCHEME):
        bucket, _, prefix = source.removeprefix(_S3_SCHEME).partition("/")
        s3 = aws.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        logical_buckets = {bucket: logical_bucket} if logical_bucket is not None else {}
        return [Place(name, partial(_read_object, s3, bucket, name, logical_buckets)) for name in names]
    root = Path(source)
    if not root.is_dir():
        return [Place(root.name, partial(_read_file, root))]
    found = sorted(path for path in root.rglob(f"*{MESSAGE_SUFFIX}") if path.is_file() and not path.is_symlink())
    return [Place(path.relative_to(root).as_posix(), partial(_read_file, path)) for path in found]


class _Sink:
    """Hands what is written on to a function."""

    def __init__(self, take_piece: TakePiece) -> None:
        self._take_piece = take_piece

    def write(self, piece: bytes) -> int:
        self._take_piece(piece)
        return len(piece)


def _read_file(path: Path, phi: PhiCrypt, expected: Expected, take_piece: TakePiece) -> None:
    with path.open("rb") as message:
        phi.decrypt_stream(message, _Sink(take_piece), context=expected)


def _read_object(
    s3: S3Client,
    bucket: str,
    name: str,
    logical_buckets: dict[str, str],
    phi: PhiCrypt,
    expected: Expected,
    take_piece: TakePiece,
) -> None:
    # The object's location is part of its context and required, so that any other context need not be.
    context = {} if isinstance(expected, AnyContext) else expected
    body = phi.s3(s3, logical_buckets=logical_buckets, context=context).get_object(Bucket=bucket, Key=name)["Body"]
    while piece := body.read(_CHUNK_LENGTH_BYTES):
        take_piece(piece)


def _known_digests(file: Path) -> dict[str, str]:
    try:
        return parse_digests(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except ValueError as error:
        reason = str(error)
    raise ConfigurationError(f"{file}: {reason}")


def _print_report(report: DrillReport, as_json: bool) -> None:
    facts = report.as_dict()
    if as_json:
        print_json(facts)
        return
    rows = [
        (one.name, one.outcome, one.byte_count, f"{one.seconds * 1000:.1f}", one.error) for one in report.results
    ]
    print_table(f"Recovery by {report.recovery_path}", ("sample", "outcome", "bytes", "ms", "error"), rows)
    seconds = facts["seconds"]
    print(
        f"{'passed' if report.passed else 'FAILED'}: {len(report.results)} of {report.available} opened by the "
        f"recovery path alone; {facts['matched']} matched, {facts['opened']} had nothing to compare with, "
        f"{facts['different']} differed, {facts['failed']} failed; {seconds['total']:.2f} s in all, "
        f"{seconds['longest']:.2f} s the longest"
    )
    if not report.results:
        complain("there was nothing to open, which proves nothing")
