"""What an application declares: the keys, buckets, tables and trails that hold or guard its PHI.

From code, or from a TOML or JSON file::

    region = "us-east-1"

    [[keys]]
    arn = "arn:aws:kms:us-east-1:111122223333:key/…"
    second_key = "arn:aws:kms:us-west-2:111122223333:key/…"

    [[buckets]]
    name = "clinic-audit"
    audit = true

    [[tables]]
    name = "patients"

    [[trails]]
    name = "organization-trail"

    [roles]
    writer = "arn:aws:iam::111122223333:role/intake"

    [context]
    tenant = "clinic-7"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from phicrypt.core.strict_json import parse_document
from phicrypt.errors import ConfigurationError, FormatError

_MAX_DECLARATION_BYTES = 1_048_576
_KEY_ARN = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]{1,128}$"
_ROLE_ARN = r"^arn:aws[a-z-]*:iam::\d{12}:(root|role/.+|user/.+)$"


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyDeclaration(_Declared):
    """A KMS key.

    Attributes:
        arn: the key's ARN.
        second_key: the ARN of a key in another Region that opens the same data (a second recipient);
            not needed for a multi-Region key with a replica.
        grantees: principals that may hold grants on the key.
        custody: who keeps the key material: ``"kms"``, ``"imported"`` (on purpose, your own copy), or
            ``"external"`` (an external key store, XKS).
        imported: the same as ``custody = "imported"``.
        asymmetric: data is sealed to its public key on purpose, though it opens for whoever breaks the key's
            algorithm one day.
    """

    arn: Annotated[str, Field(pattern=_KEY_ARN)]
    second_key: Annotated[str, Field(pattern=_KEY_ARN)] | None = None
    grantees: tuple[str, ...] = ()
    custody: Literal["kms", "imported", "external"] = "kms"
    imported: bool = False
    asymmetric: bool = False

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]


class BucketDeclaration(_Declared):
    """An S3 bucket.

    Attributes:
        name: the bucket's name.
        account: the account that owns it, if not the caller's; asked for in every read.
        audit: it holds audit segments, so Object Lock is expected.
        replicated: replication is expected.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    account: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    audit: bool = False
    replicated: bool = True


class TableDeclaration(_Declared):
    """A DynamoDB table; ``region`` where it differs from the declaration's."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{3,255}$")]
    region: str | None = None


class TrailDeclaration(_Declared):
    """A CloudTrail trail by name or ARN; ``region`` is its home Region where that differs."""

    name: Annotated[str, Field(min_length=3)]
    region: str | None = None


class Roles(_Declared):
    """Principals for ``phicrypt policy``."""

    administrator: Annotated[str, Field(pattern=_ROLE_ARN)] | None = None
    writer: Annotated[str, Field(pattern=_ROLE_ARN)] | None = None
    reader: Annotated[str, Field(pattern=_ROLE_ARN)] | None = None
    auditor: Annotated[str, Field(pattern=_ROLE_ARN)] | None = None
    break_glass: Annotated[str | None, Field(pattern=_ROLE_ARN, alias="break-glass")] = None


def _by_name(member: str) -> BeforeValidator:
    """Lets a plain text stand for an object with only that member."""

    def expand(entries: Any) -> Any:
        if not isinstance(entries, list | tuple):
            return entries
        return tuple({member: entry} if isinstance(entry, str) else entry for entry in entries)

    return BeforeValidator(expand)


class Declaration(_Declared):
    """All of it. Lists accept plain names: ``buckets = ["a", "b"]``."""

    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{2,32}$")] = "us-east-1"
    keys: Annotated[tuple[KeyDeclaration, ...], _by_name("arn")] = ()
    buckets: Annotated[tuple[BucketDeclaration, ...], _by_name("name")] = ()
    tables: Annotated[tuple[TableDeclaration, ...], _by_name("name")] = ()
    trails: Annotated[tuple[TrailDeclaration, ...], _by_name("name")] = ()
    roles: Roles = Roles()
    context: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Declaration:
        """Read a ``.toml`` or ``.json`` file. Raises ConfigurationError, which says what is wrong where."""
        try:
            with open(path, "rb") as file:
                content = file.read(_MAX_DECLARATION_BYTES + 1)
            is_json = str(path).endswith(".json")
            members = parse_document(
                content, is_json=is_json, field="declaration", max_bytes=_MAX_DECLARATION_BYTES
            )
            return cls.of(members)
        except OSError as error:
            raise ConfigurationError(f"the declaration could not be read: {error.strerror}") from None
        except FormatError as error:
            raise ConfigurationError(f"the declaration is no TOML or JSON: {error}") from None

    @classmethod
    def of(cls, members: Any) -> Declaration:
        """From parsed TOML or JSON. Raises ConfigurationError."""
        try:
            return cls.model_validate(members)
        except ValidationError as error:
            places = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:10]
            )
        raise ConfigurationError(f"the declaration is not valid: {places}")
