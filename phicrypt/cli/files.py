"""``phicrypt encrypt``, ``decrypt`` and ``inspect``: files, folders and pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from phicrypt.cli.commands import Commands, Without
from phicrypt.cli.console import EXIT_CODES_EPILOG, print_json, print_table, progress
from phicrypt.cli.key_pairs import KeyPairs
from phicrypt.cli.options import (
    AnyContextOption,
    AuditOptions,
    AwsAccess,
    ContextOption,
    ExpectOption,
    ForceOption,
    JsonOption,
    OptionalKeyOption,
    RequiredContextOption,
    parse_pairs,
    required_names_among,
)
from phicrypt.cli.transfers import (
    MESSAGE_SUFFIX,
    PIPE,
    SourceFile,
    Transfer,
    copy_file,
    copy_folder,
    copy_pipe,
    for_each_file,
    open_source,
    source_files,
    spooled_source,
)
from phicrypt.core.context import ANY_CONTEXT
from phicrypt.errors import ConfigurationError

app = Commands(no_args_is_help=True)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a folder, or - for standard input.")]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET",
        help=f"A file, a folder, or - for standard output. Default: SOURCE with {MESSAGE_SUFFIX} added or taken "
        "away; - for -. Required for folders.",
    ),
]


@app.command(epilog=EXIT_CODES_EPILOG)
def encrypt(
    source: Source,
    key: OptionalKeyOption = None,
    target: Target = None,
    context: ContextOption = None,
    required_context: RequiredContextOption = None,
    signed: Annotated[bool, typer.Option("--signed", help="Sign with ECDSA P-384 (suite 0x0578).")] = False,
    force: ForceOption = False,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_private_key")],
    audit: AuditOptions,
    aws: AwsAccess,
) -> None:
    """Encrypt a file, each file of a folder, or a pipe, as AWS Encryption SDK messages.

    A target appears under its name only when it is complete. Of a folder, links and special files
    are left out, and said so. Each key that is named, in KMS or of a pair, opens the message by itself:
    --rsa-public-key for offline recovery, --ecdh-public-key for another organization.
    """
    bound = parse_pairs(context, "--context")
    required = required_names_among(required_context, bound, "--context")
    target = target or _encrypted_name(source)
    if target == PIPE and sys.stdout.isatty():
        raise ConfigurationError("ciphertext is not written to a terminal: redirect it, or name a TARGET")
    keyring = pairs.keyring(aws, key, writes=True)
    with audit.client(keyring, required_context=required) as phi:

        def seal(reader: Any, writer: Any) -> None:
            phi.encrypt_stream(reader, writer, context=bound, signed=signed)

        _run(Transfer(seal, force=force, is_private=False, add_suffix=True), source, target, "Encrypting")


@app.command(epilog=EXIT_CODES_EPILOG)
def decrypt(
    source: Source,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="ARN",
            envvar="PHICRYPT_KEY",
            help="KMS key ARN (or alias/NAME, first only) that may open the message; repeatable.",
        ),
    ] = None,
    target: Target = None,
    expect: ExpectOption = None,
    required_context: RequiredContextOption = None,
    any_context: AnyContextOption = False,
    require_signed: Annotated[bool, typer.Option("--require-signed", help="Refuse unsigned messages.")] = False,
    allow_uncommitted: Annotated[
        bool,
        typer.Option(
            "--allow-uncommitted", help="Also open suites without key commitment, of a writer you trust."
        ),
    ] = False,
    verify_first: Annotated[
        bool,
        typer.Option("--verify-first", help="To a pipe: verify the whole message before the first byte leaves."),
    ] = False,
    force: ForceOption = False,
    *,
    pairs: Annotated[KeyPairs, Without("rsa_public_key")],
    audit: AuditOptions,
    aws: AwsAccess,
) -> None:
    """Decrypt a message, each message of a folder, or a pipe. Needs --expect or --any-context.

    A file appears under its name, with mode 0600, only when all of it was verified. Standard output
    gets each frame as soon as that frame is verified: if a later one fails, the reader of the pipe
    has the beginning of a message whose end was changed or cut off, and only the exit code says so.
    --verify-first reads the whole message before anything leaves; a piped message is kept as
    ciphertext in an unlinked temporary file meanwhile.
    """
    expected = parse_pairs(expect, "--expect")
    if bool(expected) == any_context:
        raise ConfigurationError("decrypt takes either --expect NAME=VALUE (repeatable) or --any-context")
    required = required_names_among(required_context, expected, "--expect")
    target = target or _decrypted_name(source)
    first, *others = key or (None,)
    keyring = pairs.keyring(aws, first, decrypt_keys=[one for one in others if one is not None])
    with audit.client(keyring, required_context=required) as phi:

        def unseal(reader: Any, writer: Any) -> None:
            phi.decrypt_stream(
                reader,
                writer,
                context=ANY_CONTEXT if any_context else expected,
                require_signed=require_signed,
                allow_uncommitted=allow_uncommitted,
            )

        work = _after_verifying(unseal) if verify_first and target == PIPE else unseal
        _run(Transfer(work, force=force, is_private=True, add_suffix=False), source, target, "Decrypting")


@app.command(epilog=EXIT_CODES_EPILOG)
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A message, a folder of messages, or - for standard input.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show suite, keys, context names and lengths of a message. Uses no key, verifies nothing.

    Context values are not shown. Pairs that a message is bound to without storing them stand in no header: only
    opening it with --required-context tells whether there are any.
    """
    from phicrypt.core.limits import ReadLimits
    from phicrypt.formats.esdk.summary import summarize

    if source != PIPE and Path(source).is_dir():
        found: list[dict[str, Any]] = []

        def add(file: SourceFile) -> None:
            with file.open() as reader:
                found.append({"file": file.shown, **summarize(reader, ReadLimits()).as_dict()})

        try:
            for_each_file(source_files(Path(source), only_messages=True), add, "Inspecting")
        finally:
            if as_json:
                print_json(found)
            else:
                columns = ("file", "suite", "signed", "plaintext bytes", "context names", "keys")
                print_table("", columns, (_row(one) for one in found))
        return
    with open_source(source) as reader:
        summary = summarize(reader, ReadLimits()).as_dict()
    if as_json:
        print_json(summary)
    else:
        summary["required_context_names"] = "(no header names them: only opening tells)"
        summary["recipients"] = [f"{one['provider_id']} {one['key_id']}" for one in summary["recipients"]]
        print_table("", ("field", "value"), ((name, _cell(value)) for name, value in summary.items()))


def _run(transfer: Transfer, source: str, target: str, description: str) -> None:
    if source != PIPE and Path(source).is_dir():
        if target == PIPE:
            raise ConfigurationError("a folder goes into a TARGET folder, not into a pipe")
        copy_folder(transfer, Path(source), Path(target), description)
    elif target == PIPE:
        with open_source(source) as reader, progress(description, None, in_bytes=True) as advance:
            copy_pipe(transfer, reader, sys.stdout.buffer, advance)
    else:
        copy_file(transfer, source, Path(target), description)


def _encrypted_name(source: str) -> str:
    _refuse_folder_without_target(source)
    return PIPE if source == PIPE else f"{source}{MESSAGE_SUFFIX}"


def _decrypted_name(source: str) -> str:
    _refuse_folder_without_target(source)
    if source == PIPE:
        return PIPE
    if source.endswith(MESSAGE_SUFFIX) and Path(source).name != MESSAGE_SUFFIX:
        return source.removesuffix(MESSAGE_SUFFIX)
    raise ConfigurationError(f"SOURCE does not end in {MESSAGE_SUFFIX}: name a TARGET (- for standard output)")


def _refuse_folder_without_target(source: str) -> None:
    if source != PIPE and Path(source).is_dir():
        raise ConfigurationError(f"{source} is a folder: name a TARGET folder")


def _after_verifying(unseal: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def verify_then_unseal(reader: Any, writer: Any) -> None:
        with spooled_source(reader) as seekable, open(os.devnull, "wb", buffering=0) as nowhere:
            start = seekable.tell()
            unseal(seekable, nowhere)
            seekable.seek(start)
            unseal(seekable, writer)

    return verify_then_unseal


def _row(summary: dict[str, Any]) -> tuple[object, ...]:
    names = ("file", "suite", "is_signed", "plaintext_length_bytes", "context_names")
    keys = [one["key_id"] for one in summary["recipients"]]
    return (*(_cell(summary[name]) for name in names), _cell(keys))


def _cell(value: object) -> object:
    return "\n".join(str(one) for one in value) if isinstance(value, list | tuple) else value
