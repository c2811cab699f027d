"""Who can do what with which key, proven by KMS itself, without using a key.

::

    matrix = PermissionMatrix.load("permissions.toml")
    trials = try_permissions(matrix, clients_of_roles(matrix, session))
    wrong = [trial for trial in trials if not trial.is_as_expected]

KMS decides about a dry run as about the call itself (identity policies, key policy, grants, conditions on the
encryption context, service control policies, the endpoint's policy), and does nothing. The file::

    [roles]
    writer = "arn:aws:iam::111122223333:role/writer"      # assumed
    me = "current"                                        # the caller's own credentials

    [tenants.clinic-7]
    key = "arn:aws:kms:us-east-1:111122223333:key/…"
    context = { tenant = "clinic-7" }

    [contexts]                                            # tried for every tenant, beside its own
    none = {}

    [[allow]]                                             # everything else is expected to be denied
    role = "writer"
    tenants = ["clinic-7"]
    operations = ["GenerateDataKey"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phicrypt.core.kms_arn import KmsArn, parse_kms_arn
from phicrypt.core.strict_json import parse_document
from phicrypt.errors import ConfigurationError, FormatError, KeyAccessError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.kms.calls import call_kms, kms_client, require_safe_endpoint

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from mypy_boto3_kms.client import KMSClient

Operation = Literal["GenerateDataKey", "Decrypt"]
OPERATIONS: Final[tuple[Operation, ...]] = ("GenerateDataKey", "Decrypt")
CURRENT: Final = "current"
"""In place of a role's ARN: the credentials of the caller."""
OWN: Final = "own"
"""The context that a tenant has itself."""
MAX_TRIALS: Final = 20_000
SESSION_SECONDS: Final = 900
_MAX_FILE_BYTES: Final = 1_048_576
_MODIFIERS: Final = ("IGNORE_CIPHERTEXT",)
_ROLE: Final = r"^(current|arn:aws[a-z-]*:iam::\d{12}:role/.+)$"
_KEY: Final = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]{1,128}$"
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tenant(_Part):
    """A tenant's key and the encryption context that its data is sealed under."""

    key: Annotated[str, Field(pattern=_KEY)]
    context: dict[str, str] = Field(default_factory=dict)


class Allowance(_Part):
    """What a role may do: everything that no allowance names is expected to be denied.

    Attributes:
        tenants: their names, or ``*``.
        contexts: names of contexts; ``own`` is each tenant's own, and the default.
    """

    role: str
    operations: tuple[Operation, ...] = OPERATIONS
    tenants: tuple[str, ...]
    contexts: tuple[str, ...] = (OWN,)


class PermissionMatrix(_Part):
    """Roles, tenants and contexts, and what is expected of them."""

    roles: Annotated[dict[_Name, Annotated[str, Field(pattern=_ROLE)]], Field(min_length=1)]
    tenants: Annotated[dict[_Name, Tenant], Field(min_length=1)]
    contexts: dict[_Name, dict[str, str]] = Field(default_factory=dict)
    allow: tuple[Allowance, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> PermissionMatrix:
        """Read a ``.toml`` or ``.json`` file. Raises ConfigurationError, which says what is wrong where."""
        try:
            with open(path, "rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
            is_json = str(path).endswith(".json")
            members = parse_document(content, is_json=is_json, field="permissions", max_bytes=_MAX_FILE_BYTES)
        except OSError as error:
            raise ConfigurationError(f"the permissions could not be read: {error.strerror}") from None
        except FormatError as error:
            raise ConfigurationError(f"the permissions are no TOML or JSON: {error}") from None
        return cls.of(members)

    @classmethod
    def of(cls, members: Any) -> PermissionMatrix:
        """From parsed TOML or JSON. Raises ConfigurationError, PhiInContextError for a context's value."""
        try:
            matrix = cls.model_validate(members)
        except ValidationError as error:
            places = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:10]
            )
            matrix = None
        if matrix is None:
            raise ConfigurationError(f"the permissions are not valid: {places}")
        matrix._check_names()
        return matrix

    def _check_names(self) -> None:
        """A name that is written wrong would expect a denial, and find one."""
        if OWN in self.contexts:
            raise ConfigurationError(f"the context name {OWN!r} stands for each tenant's own context")
        for at, allowance in enumerate(self.allow, 1):
            known = (
                ({allowance.role}, set(self.roles), "role"),
                (set(allowance.tenants) - {"*"}, set(self.tenants), "tenant"),
                (set(allowance.contexts), {OWN, *self.contexts}, "context"),
            )
            for named, there, what in known:
                if unknown := sorted(named - there):
                    raise ConfigurationError(
                        f"allow, number {at}: there is no {what} {', '.join(map(repr, unknown))}"
                    )
        if (count := len(list(self.cells()))) > MAX_TRIALS:
            raise ConfigurationError(f"{count} trials are more than {MAX_TRIALS}; split the file")
        guard = PhiGuard()
        for context in (*(tenant.context for tenant in self.tenants.values()), *self.contexts.values()):
            guard.check(context)  # CloudTrail shows the context of a dry run like that of any call

    def cells(self) -> Iterator[Cell]:
        """Every question, in the file's order."""
        for role in self.roles:
            for tenant in self.tenants:
                for context in (OWN, *self.contexts):
                    for operation in OPERATIONS:
                        yield Cell(role, tenant, context, operation)

    def expects(self, cell: Cell) -> bool:
        """Whether the operation is to be allowed."""
        return any(
            allowance.role == cell.role
            and cell.operation in allowance.operations
            and ("*" in allowance.tenants or cell.tenant in allowance.tenants)
            and cell.context in allowance.contexts
            for allowance in self.allow
        )

    def context_of(self, cell: Cell) -> dict[str, str]:
        """The pairs that are sent."""
        return self.tenants[cell.tenant].context if cell.context == OWN else self.contexts[cell.context]


@dataclass(frozen=True, slots=True)
class Cell:
    """One question: may this role do this for this tenant under this context?"""

    role: str
    tenant: str
    context: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Trial:
    """A question and KMS's answer.

    Attributes:
        expected: allowed.
        found: allowed; None where KMS's answer says nothing about the permission, for ``reason``.
    """

    cell: Cell
    expected: bool
    found: bool | None
    reason: str = ""

    @property
    def is_as_expected(self) -> bool:
        """False as well where nothing was proven."""
        return self.found is self.expected


ClientOf = Callable[[str, str], "KMSClient"]
"""Name of a role and Region to a KMS client with its credentials. Raises KeyAccessError where it cannot be had."""


def clients_of_roles(
    matrix: PermissionMatrix,
    session: Boto3Session,
    *,
    endpoint_url: str | None = None,
    use_fips_endpoint: bool = False,
) -> ClientOf:
    """Clients with the credentials of each role, by ``sts:AssumeRole``, for 15 minutes."""
    from botocore.config import Config

    if endpoint_url is not None:
        require_safe_endpoint(endpoint_url)  # credentials come from there
    sessions: dict[str, Boto3Session] = {}
    clients: dict[tuple[str, str], KMSClient] = {}

    def client_of(role: str, region: str) -> KMSClient:
        if (role, region) not in clients:
            if role not in sessions:
                sts = {"region_name": region, "endpoint_url": endpoint_url}
                fips = Config(use_fips_endpoint=True) if use_fips_endpoint else None
                sessions[role] = _assumed(matrix.roles[role], session, {**sts, "config": fips})
            clients[role, region] = kms_client(
                region,
                session=sessions[role],
                endpoint_url=endpoint_url,
                use_fips_endpoint=use_fips_endpoint,
                application="phicrypt-cli",
            )
        return clients[role, region]

    return client_of


def _assumed(role_arn: str, session: Boto3Session, settings: dict[str, Any]) -> Boto3Session:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    if role_arn == CURRENT:
        return session
    code = ""
    try:
        sts: Any = session.client("sts", **settings)
        given = sts.assume_role(
            RoleArn=role_arn, RoleSessionName="phicrypt-policy-test", DurationSeconds=SESSION_SECONDS
        )["Credentials"]
        return boto3.Session(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], settings["region_name"]
        )
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    except BotoCoreError as error:
        code = type(error).__name__
    raise KeyAccessError(
        f"the role could not be assumed ({code}): its trust policy and yours decide about sts:AssumeRole",
        operation="AssumeRole",
        code=code,
    )


def try_permissions(
    matrix: PermissionMatrix, client_of: ClientOf, *, on_progress: Callable[[int], None] | None = None
) -> list[Trial]:
    """Ask KMS each question of the matrix, as a dry run.

    Raises ConfigurationError where the endpoint does not know dry runs, after the first such answer: it is not
    AWS's, and has used a key.
    """
    lost: dict[str, KeyAccessError] = {}
    trials = []
    for cell in matrix.cells():
        if cell.role not in lost:
            try:
                found, reason = _tried(matrix, cell, client_of)
            except KeyAccessError as refusal:  # of the role: its other questions need not be asked
                lost[cell.role] = refusal
        if cell.role in lost:
            found, reason = None, str(lost[cell.role])
        trials.append(Trial(cell, matrix.expects(cell), found, reason))
        if on_progress is not None:
            on_progress(1)
    return trials


def _tried(matrix: PermissionMatrix, cell: Cell, client_of: ClientOf) -> tuple[bool | None, str]:
    key = parse_kms_arn(matrix.tenants[cell.tenant].key)
    assert key is not None
    client = client_of(cell.role, key.region)
    try:
        call_kms(client, cell.operation, key_arn=str(key), **_dry_run(client, cell, key, matrix.context_of(cell)))
    except KeyAccessError as refusal:
        return _judged(refusal)
    raise ConfigurationError(
        "the endpoint answered a dry run with a key: it is not AWS's, and what it says proves nothing"
    )


def _dry_run(client: KMSClient, cell: Cell, key: KmsArn, context: Mapping[str, str]) -> dict[str, Any]:
    shape = client.meta.service_model.operation_model(cell.operation).input_shape
    members = shape.members if shape is not None else {}
    parameters: dict[str, Any] = {"KeyId": str(key), "EncryptionContext": dict(context), "DryRun": True}
    if cell.operation == "GenerateDataKey":
        parameters["NumberOfBytes"] = 32
    else:
        parameters["DryRunModifiers"] = list(_MODIFIERS)
    if missing := [name for name in ("DryRun", "DryRunModifiers") if name in parameters and name not in members]:
        raise ConfigurationError(
            f"this version of botocore does not know {', '.join(missing)} of KMS; upgrade boto3"
        )
    return parameters


def _judged(refusal: KeyAccessError) -> tuple[bool | None, str]:
    if refusal.code == "DryRunOperationException":
        return True, ""
    if refusal.code == "AccessDeniedException":
        return False, ""
    return None, f"{refusal.code}: {refusal}"
