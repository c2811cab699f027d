"""Options that several commands share: single ones as annotated types, those that go together as groups.

::

    @app.command()
    def create(table: str, key: KeyOption, *, aws: AwsAccess, audit: AuditOptions) -> None:
        dynamodb = aws.client("dynamodb")
        with audit.client(aws.kms_keyring(key)) as phi:
            …

A further option of every command is one more field of a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phicrypt.cli.commands import OptionGroup, Without
from phicrypt.core.context import RESERVED_PREFIXES
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.client import PhiCrypt
    from phicrypt.core.materials import Keyring
    from phicrypt.keys.kms.keyring import KmsKeyring

_AWS_PANEL = "AWS"
_AUDIT_PANEL = "Audit"

_KEY = typer.Option(
    "--key",
    metavar="ARN",
    envvar="PHICRYPT_KEY",
    help="KMS key ARN, or alias/NAME, which is resolved once and pinned.",
)
KeyOption = Annotated[str, _KEY]
OptionalKeyOption = Annotated[str | None, _KEY]
ContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        "-c",
        metavar="NAME=VALUE",
        help="Pair to bind to the message; repeatable. It stands in clear in CloudTrail: opaque identifiers only.",
    ),
]
ExpectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--expect", "-e", metavar="NAME=VALUE", help="Pair that the message's context must hold; repeatable."
    ),
]
AnyContextOption = Annotated[
    bool,
    typer.Option(
        "--any-context", help="Accept any context. Another tenant's message then opens where yours was meant."
    ),
]
RequiredContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--required-context",
        metavar="NAME",
        help="Name of a pair that is bound and not stored; its value is given with the others; repeatable. "
        "With --key, KMS and CloudTrail still show it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace existing targets.")]


@dataclass(frozen=True)
class AwsAccess(OptionGroup):
    """The AWS account, Region and endpoint that a command's options name."""

    region: Annotated[
        str | None, typer.Option("--region", metavar="REGION", help="AWS Region.", rich_help_panel=_AWS_PANEL)
    ] = None
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--endpoint-url",
            metavar="URL",
            help="Another endpoint: https, or http on loopback for a local stack.",
            rich_help_panel=_AWS_PANEL,
        ),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="NAME", help="Profile of your AWS configuration.", rich_help_panel=_AWS_PANEL
        ),
    ] = None
    use_fips_endpoint: Annotated[
        bool, typer.Option("--fips", help="Use AWS's FIPS endpoints.", rich_help_panel=_AWS_PANEL)
    ] = False

    @cached_property
    def session(self) -> Any:
        """A ``boto3.Session`` of the profile and Region; ConfigurationError for an unknown profile."""
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            return boto3.Session(region_name=self.region, profile_name=self.profile)
        except BotoCoreError as error:  # an unknown profile, an unreadable configuration file
            raise ConfigurationError(str(error)) from None

    def client(self, service: str, *, region: str | None = None) -> Any:
        """A boto3 client of the service; KMS clients are made by phicrypt's own rules."""
        from botocore.config import Config

        from phicrypt.keys.kms.calls import kms_client, require_safe_endpoint

        if service == "kms":
            return kms_client(
                region or self.region,
                endpoint_url=self.endpoint_url,
                use_fips_endpoint=self.use_fips_endpoint,
                session=self.session,
                application="phicrypt-cli",
            )
        if self.endpoint_url is not None:
            require_safe_endpoint(self.endpoint_url)
        config = Config(use_fips_endpoint=True) if self.use_fips_endpoint else None
        return self.session.client(
            service, region_name=region or self.region, endpoint_url=self.endpoint_url, config=config
        )

    def kms_keyring(self, key: str, *, decrypt_keys: Iterable[str] = ()) -> KmsKeyring:
        """The keyring of a key ARN or alias; ``decrypt_keys`` are further key ARNs that may open."""
        from phicrypt.core.kms_arn import parse_kms_arn
        from phicrypt.keys.kms.keyring import KmsKeyring

        arn = parse_kms_arn(key)
        settings: dict[str, Any] = {
            "decrypt_key_arns": tuple(decrypt_keys),
            "session": self.session,
            "endpoint_url": self.endpoint_url,
            "use_fips_endpoint": self.use_fips_endpoint,
            "application": "phicrypt-cli",
        }
        if key.startswith("alias/") or (arn is not None and arn.resource_type == "alias"):
            return KmsKeyring.from_alias(key, region=self.region or self.session.region_name, **settings)
        return KmsKeyring(key, **settings)


@dataclass(frozen=True)
class AuditOptions(OptionGroup):
    """Where a command's uses are recorded, for whom, and why."""

    audit_log: Annotated[
        Path | None,
        typer.Option(
            "--audit-log",
            metavar="FILE",
            envvar="PHICRYPT_AUDIT_LOG",
            dir_okay=False,
            help="Append every use to this hash-chained log; what cannot be recorded is not done.",
            rich_help_panel=_AUDIT_PANEL,
        ),
    ] = None
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            metavar="ID",
            envvar="PHICRYPT_ACTOR",
            help="Who this is done for, an opaque id; with --audit-log.",
            rich_help_panel=_AUDIT_PANEL,
        ),
    ] = None
    purpose: Annotated[
        str | None,
        typer.Option(
            "--purpose", metavar="NAME", help="Why, such as treatment; with --actor.", rich_help_panel=_AUDIT_PANEL
        ),
    ] = None

    @contextmanager
    def trail(self) -> Iterator[AuditTrail | None]:
        """The trail into the log, if one is named, and who acts, until the block ends."""
        if (self.actor and self.audit_log is None) or (self.purpose and not self.actor):
            raise ConfigurationError("--actor goes with --audit-log, and --purpose with --actor")
        if self.audit_log is None:
            yield None
            return
        from phicrypt.audit.sinks.jsonl import JsonlSink
        from phicrypt.audit.trail import AuditTrail, acting_as

        trail = AuditTrail([JsonlSink(self.audit_log)], application="phicrypt-cli")
        with acting_as(self.actor, self.purpose) if self.actor else nullcontext():
            try:
                yield trail
            finally:
                trail.close()

    @contextmanager
    def client(self, keyring: Keyring, *, required_context: Iterable[str] = ()) -> Iterator[PhiCrypt]:
        """A client that records its uses in the log, if one is named, until the block ends."""
        from phicrypt.client import PhiCrypt

        with self.trail() as trail, PhiCrypt(keyring, audit=trail or (), required_context=required_context) as phi:
            yield phi


AwsWithoutFips = Annotated[AwsAccess, Without("use_fips_endpoint")]
AuditWithoutPurpose = Annotated[AuditOptions, Without("purpose")]


def parse_pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """``["name=value", …]`` as a dict; raises ConfigurationError, which repeats no value."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option} takes NAME=VALUE, with a name before the first '='")
        if name in pairs:
            raise ConfigurationError(f"{option} names {name!r} twice")
        if name.startswith(RESERVED_PREFIXES):
            raise ConfigurationError(f"{option}: the name {name!r} is reserved for the formats themselves")
        pairs[name] = value
    return pairs


def required_names_among(names: Sequence[str] | None, pairs: Mapping[str, str], option: str) -> tuple[str, ...]:
    """The names of ``--required-context``; ConfigurationError unless ``option`` gives each of them a value."""
    for name in names or ():
        if name not in pairs:
            raise ConfigurationError(
                f"--required-context names {name!r}, whose value no message stores: "
                f"say it with {option} {name}=VALUE"
            )
    return tuple(names or ())
