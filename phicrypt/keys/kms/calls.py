"""How every KMS call of phicrypt is made: the client, the call, its errors and its request ids."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from phicrypt.core.aws_clients import check_client, is_botocore_client
from phicrypt.core.kms_calls import KmsAnswer
from phicrypt.core.log_redaction import redact_kms_logs
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.errors import key_access_error
from phicrypt.keys.kms.tagging import check_application, tagged, tagged_call

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from botocore.config import Config
    from mypy_boto3_kms.client import KMSClient

__all__ = ["call_kms", "kms_client", "redact_kms_logs", "require_safe_endpoint", "tagged"]

CONNECT_TIMEOUT_SECONDS: Final = 2.0
READ_TIMEOUT_SECONDS: Final = 5.0
MAX_ATTEMPTS: Final = 4
"""First try and retries, by botocore's standard mode (throttling, 5xx, network)."""


def kms_client(
    region: str | None = None,
    *,
    endpoint_url: str | None = None,
    use_fips_endpoint: bool = False,
    session: Boto3Session | None = None,
    application: str | None = None,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    max_attempts: int = MAX_ATTEMPTS,
    max_connections: int = 50,
    config: Config | None = None,
) -> KMSClient:
    """A boto3 KMS client with short timeouts, standard retries, tagged calls and redacted logs.

    Args:
        region: the key's Region; None takes the session's.
        endpoint_url: another endpoint (VPC endpoint, local stack); https, or http on loopback.
        use_fips_endpoint: KMS's FIPS 140-3 endpoint of the Region; excludes ``endpoint_url``.
        session: a ``boto3.Session``; None makes one with the default credential chain.
        application: the program's name for CloudTrail's user agent.
        config: botocore's ``Config``, whose settings win over those above.

    Raises ConfigurationError for a plain http endpoint that is not on loopback (also from
    ``AWS_ENDPOINT_URL_KMS`` or the profile), for FIPS with an endpoint, for an unknown Region.
    """
    check_application(application)
    if endpoint_url is not None:
        require_safe_endpoint(endpoint_url)
        if use_fips_endpoint:
            raise ConfigurationError(
                "use_fips_endpoint chooses the endpoint by Region; to use a FIPS VPC endpoint give its URL only"
            )
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    settings = Config(
        connect_timeout=connect_timeout_seconds,
        read_timeout=read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        max_pool_connections=max_connections,
        use_fips_endpoint=True if use_fips_endpoint else None,
    )
    if config is not None:
        settings = settings.merge(config)
    make = partial((session or boto3.Session()).client, "kms", region_name=region, endpoint_url=endpoint_url)
    # A proxy would read the plaintext data keys that loopback is meant to keep on this machine.
    past_proxies = settings.merge(Config(proxies={}))
    try:
        client = make(config=past_proxies if _is_plain(endpoint_url) else settings)
        check_client(client, "session=", service="kms")
        if endpoint_url is None and _is_plain(client.meta.endpoint_url):
            client = make(config=past_proxies)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"no KMS client for Region {region!r}: {error}") from None
    return safe_kms_client(client, application)


def safe_kms_client(
    client: KMSClient,
    application: str | None = None,
    *,
    own_connections: bool = False,
    parameter: str = "client=",
) -> KMSClient:
    """:func:`tagged` for a KMS client, which is judged first, and its endpoint too."""
    check_client(client, parameter, service="kms")
    endpoint_url = getattr(getattr(client, "meta", None), "endpoint_url", None)
    if isinstance(endpoint_url, str):
        require_safe_endpoint(endpoint_url)
    return tagged(client, application, own_connections=own_connections)


def _is_plain(endpoint_url: str | None) -> bool:
    return endpoint_url is not None and urlsplit(endpoint_url).scheme == "http"


def require_safe_endpoint(endpoint_url: str) -> None:
    """Raise ConfigurationError unless the URL is https, or http on loopback."""
    url = urlsplit(endpoint_url)
    host = url.hostname or ""
    is_loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    if host and (url.scheme == "https" or (url.scheme == "http" and is_loopback)):
        return
    raise ConfigurationError(
        f"the endpoint {url.scheme}://{host} is refused: plaintext data keys travel in KMS answers, so an "
        "endpoint is https, or http on loopback (localhost, 127.0.0.0/8, ::1) for a local stack"
    )


def method_of(operation: str) -> str:
    """boto3's method for an operation: ``get_item`` for ``GetItem``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


def call_kms(client: KMSClient, operation: str, *, key_arn: str | None, **parameters: Any) -> KmsAnswer:
    """Call one KMS operation.

    Args:
        client: a client from :func:`kms_client` or :func:`tagged`, or a marked double with boto3's method names.
        operation: AWS's name, such as ``"GenerateDataKey"``.
        key_arn: for errors: the key that is asked.
        parameters: boto3's, such as ``KeyId=``; members that are None or empty are left out.

    Raises KeyAccessError for whatever AWS, the network or the credentials answered.
    """
    method = getattr(client, method_of(operation))
    present = {
        name: value for name, value in parameters.items() if value is not None and value not in ((), {}, [])
    }
    refusal = None
    with tagged_call() as call:
        try:
            response = method(**present)
        except Exception as error:
            refusal = key_access_error(
                error, operation, key_arn, present, call, is_botocore=is_botocore_client(client)
            )
            if refusal is None:
                raise
    if refusal is not None:
        # Not in the handler: botocore's error quotes parameters, and AWS's text may quote the context (rule 32).
        raise refusal from None
    request_ids = tuple(call.request_ids)
    if not request_ids and (only := response.get("ResponseMetadata", {}).get("RequestId")):
        request_ids = (only,)
    return KmsAnswer(response, request_ids, call.correlation_id, call.unanswered_attempts)
