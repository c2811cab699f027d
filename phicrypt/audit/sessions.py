"""Role sessions that name a person, so that CloudTrail's own identity does (part of tagging).

CloudTrail shows the session name in the caller's ARN, and the source identity beside it; the source
identity cannot be changed by later role chaining. Both are set by whoever assumes the role: trust them
as far as the role's trust policy lets only your identity provider or gateway set them, with conditions
on ``sts:RoleSessionName`` and ``sts:SourceIdentity``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.aws_clients import check_client
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from boto3 import Session as Boto3Session
    from mypy_boto3_sts.client import STSClient

_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


def assume_role(
    role_arn: str,
    *,
    actor: str,
    duration_seconds: int = 3_600,
    client: STSClient | None = None,
    session: Boto3Session | None = None,
    set_source_identity: bool = True,
) -> Boto3Session:
    """A ``boto3.Session`` with credentials of the role whose session name and source identity are the actor.

    Pass it as ``session=`` to a keyring: each actor then has a session, a keyring and a cache of its
    own, and every KMS call costs that actor's own data key. Credentials are not renewed: a session
    ends after ``duration_seconds`` (900 to 43,200).

    Args:
        role_arn: the role; its trust policy must allow ``sts:AssumeRole`` and, unless
            ``set_source_identity`` is off, ``sts:SetSourceIdentity``.
        actor: 2 to 64 letters, digits or ``_+=,.@-``.
        client: a boto3 STS client; None makes one of ``session``.

    Raises ConfigurationError for an actor that STS does not take, and what boto3 raises.
    """
    if not isinstance(actor, str) or not _NAME.fullmatch(actor):
        raise ConfigurationError("STS takes an actor of 2 to 64 letters, digits or _+=,.@-")
    if not 900 <= duration_seconds <= 43_200:
        raise ConfigurationError("duration_seconds is between 900 and 43,200")
    if client is not None:
        check_client(client, service="sts")
    import boto3

    base = session or boto3.Session()
    sts = client or base.client("sts")
    parameters: dict[str, Any] = {
        "RoleArn": role_arn,
        "RoleSessionName": actor,
        "DurationSeconds": duration_seconds,
    }
    if set_source_identity:
        parameters["SourceIdentity"] = actor
    credentials = sts.assume_role(**parameters)["Credentials"]
    return boto3.Session(
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        region_name=base.region_name,
    )
