"""``phicrypt sign``, ``verify`` and ``mac``: detached signatures, manifests and MACs under KMS keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from phicrypt.cli.commands import Commands
from phicrypt.cli.console import EXIT_CODES_EPILOG, complain, fail, print_json
from phicrypt.cli.options import (
    AuditWithoutPurpose,
    AwsAccess,
    ForceOption,
    JsonOption,
    KeyOption,
)
from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.core.output_file import output_file
from phicrypt.formats.manifests import ManifestMismatchError
from phicrypt.formats.signatures import Statement
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.signatures.mac import Mac
from phicrypt.signatures.signer import Signer, Source, Verifier

SIGNATURE_SUFFIX = ".sig"
MAX_SIGNATURE_FILE_BYTES = 64 * 1024

app = Commands(no_args_is_help=True)
mac_app = Commands(no_args_is_help=True, help="Generate and verify MACs under a KMS key.")
app.add_typer(mac_app, name="mac")

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files, in the order of the manifest.")]
OneFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file.")]
PurposeOption = Annotated[
    str, typer.Option("--purpose", help="What the signature vouches for; bound inside the signed bytes.")
]
ResourceOption = Annotated[
    str | None,
    typer.Option("--resource", help="The name that is signed; default: the file's own name without folders."),
]
AlgorithmOption = Annotated[
    str | None, typer.Option("--algorithm", help="KMS's name; default: the key's own (RSA: RSASSA_PSS_SHA_256).")
]
ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="Many files under one signature, listed here.")
]
SignatureOption = Annotated[
    Path | None,
    typer.Option("--signature", metavar="FILE", help=f"Default: the signed file and {SIGNATURE_SUFFIX}."),
]
MacAlgorithmOption = Annotated[
    str, typer.Option("--algorithm", help="HMAC_SHA_256, HMAC_SHA_384 or HMAC_SHA_512.")
]

PublicKeyTarget = Annotated[
    Path | None, typer.Option("--public-key-out", metavar="FILE", help="Write the public key (DER) as well.")
]
PublicKeySource = Annotated[
    Path | None, typer.Option("--public-key", metavar="FILE", help="Verify offline with this public key (DER).")
]
ByKmsOption = Annotated[bool, typer.Option("--by-kms", help="Let KMS verify; it refuses disabled keys too.")]


@app.command(epilog=EXIT_CODES_EPILOG)
def sign(
    files: Files,
    key: KeyOption,
    purpose: PurposeOption,
    resource: ResourceOption = None,
    manifest: ManifestOption = None,
    algorithm: AlgorithmOption = None,
    digest: Annotated[str, typer.Option(help="sha256, sha384 or sha512.")] = "sha256",
    signature: SignatureOption = None,
    public_key: PublicKeyTarget = None,
    force: ForceOption = False,
    *,
    audit: AuditWithoutPurpose,
    aws: AwsAccess,
) -> None:
    """Sign a file, or many files with --manifest, by an asymmetric KMS key."""
    if manifest is None and len(files) != 1:
        fail("one file, or --manifest FILE for several")
    signed_file = manifest or files[0]
    target = signature or signed_file.with_name(signed_file.name + SIGNATURE_SUFFIX)
    outputs = [path for path in (target, manifest, public_key) if path is not None]
    if not force and (existing := [path for path in outputs if path.exists()]):
        fail(f"{existing[0]} exists; --force replaces it", 9)
    client = _kms_client(aws, key)
    name = resource or signed_file.name
    with audit.trail() as trail:
        signer = Signer(key, client=client, algorithm=algorithm, digest=digest, guard=PhiGuard(), trail=trail)
        if manifest is None:
            with files[0].open("rb") as source:
                signature_file = signer.sign(source, resource=name, purpose=purpose)
        else:
            sources = _opened(files, manifest)
            document, signature_file = signer.sign_manifest(sources, resource=name, purpose=purpose)
            _write(manifest, document, force=force)
    _write(target, signature_file, force=force)
    if public_key is not None:
        _write(public_key, signer.public_key_der(), force=force)


def _kms_client(aws: AwsAccess, key: str) -> Any:
    return replace(aws, region=aws.region or configured_key_arn(key).region).client("kms")


def _write(path: Path, content: bytes, *, force: bool) -> None:
    """The whole file under its name, or none."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with output_file(folder, path.name, force=force, is_private=False, shown=str(path)) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
    finally:
        os.close(folder)


@app.command(epilog=EXIT_CODES_EPILOG)
def verify(
    files: Files,
    key: KeyOption,
    purpose: PurposeOption,
    resource: ResourceOption = None,
    manifest: ManifestOption = None,
    algorithm: AlgorithmOption = None,
    signature: SignatureOption = None,
    public_key: PublicKeySource = None,
    by_kms: ByKmsOption = False,
    *,
    audit: AuditWithoutPurpose,
    as_json: JsonOption = False,
    aws: AwsAccess,
) -> None:
    """Verify a signature: with a public key offline, with KMS's public key, or by KMS.

    Of a manifest, every file that was changed, renamed, removed, added or reordered is named.
    """
    if manifest is None and len(files) != 1:
        fail("one file, or --manifest FILE for several")
    if public_key is not None and by_kms:
        fail("--public-key verifies offline; leave out --by-kms")
    signed_file = manifest or files[0]
    envelope = _read_small(signature or signed_file.with_name(signed_file.name + SIGNATURE_SUFFIX))
    verifier: Verifier
    name = resource or signed_file.name
    with audit.trail() as trail:
        if public_key is not None:
            verifier = Verifier(key, _read_small(public_key), algorithm=algorithm)
        else:
            client = _kms_client(aws, key)
            verifier = Signer(key, client=client, algorithm=algorithm, trail=trail).verifier(by_kms=by_kms)
        statement = _verified(verifier, manifest, envelope, files, name, purpose)
    _print_statement(statement, as_json)


def _verified(
    verifier: Verifier, manifest: Path | None, envelope: bytes, files: list[Path], name: str, purpose: str
) -> Statement:
    if manifest is None:
        with files[0].open("rb") as source:
            return verifier.verify(source, envelope, resource=name, purpose=purpose)
    try:
        return verifier.verify_manifest(
            manifest.read_bytes(), envelope, _opened(files, manifest), resource=name, purpose=purpose
        )
    except ManifestMismatchError as mismatch:
        for difference in mismatch.differences:
            found = f" (found: {difference.found_name})" if difference.found_name else ""
            complain(f"{difference.kind}: {difference.name}{found}")
        raise


def _opened(files: list[Path], manifest: Path) -> Iterator[tuple[str, Source]]:
    """(name relative to the manifest's folder, open file), one file open at a time."""
    for path in files:
        with path.open("rb") as source:
            yield Path(os.path.relpath(path, manifest.parent)).as_posix(), source


def _read_small(path: Path) -> bytes:
    with path.open("rb") as source:
        return source.read(MAX_SIGNATURE_FILE_BYTES + 1)


def _print_statement(statement: Statement, as_json: bool) -> None:
    facts = {
        "resource": statement.subject.name,
        "length_bytes": statement.subject.length_bytes,
        "purpose": statement.purpose,
        "key": statement.key_arn,
        "algorithm": statement.algorithm,
        "signed_at": statement.signed_at,
    }
    if as_json:
        print_json(facts)
    else:
        print(f"verified: {statement.subject.name}, signed at {statement.signed_at} by {statement.key_arn}")


@mac_app.command("generate")
def mac_generate(
    file: OneFile,
    key: KeyOption,
    purpose: PurposeOption,
    resource: ResourceOption = None,
    algorithm: MacAlgorithmOption = "HMAC_SHA_256",
    *,
    audit: AuditWithoutPurpose,
    aws: AwsAccess,
) -> None:
    """Print the MAC of a file in hexadecimal, made by an HMAC key in KMS."""
    client = _kms_client(aws, key)
    with audit.trail() as trail, file.open("rb") as source:
        mac = Mac(key, client=client, algorithm=algorithm, trail=trail)
        print(mac.generate(source, resource=resource or file.name, purpose=purpose).hex())


@mac_app.command("verify")
def mac_verify(
    file: OneFile,
    mac_hex: Annotated[str, typer.Argument(metavar="MAC", help="The MAC in hexadecimal.")],
    key: KeyOption,
    purpose: PurposeOption,
    resource: ResourceOption = None,
    algorithm: MacAlgorithmOption = "HMAC_SHA_256",
    *,
    audit: AuditWithoutPurpose,
    aws: AwsAccess,
) -> None:
    """Verify the MAC of a file by KMS."""
    try:
        tag = bytes.fromhex(mac_hex)
    except ValueError:
        fail("the MAC is hexadecimal")
    client = _kms_client(aws, key)
    with audit.trail() as trail, file.open("rb") as source:
        mac = Mac(key, client=client, algorithm=algorithm, trail=trail)
        mac.verify(source, tag, resource=resource or file.name, purpose=purpose)
    print("verified")
