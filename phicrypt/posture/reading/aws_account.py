"""Reads an AWS account's settings: clients, one question at a time, and honest answers.

Reads only: every operation called from here is a Get, List, Describe or Head. Throttling is left to
botocore's adaptive mode, which slows all threads of a client down together.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.errors import ConfigurationError
from phicrypt.posture.rules.findings import Unread

if TYPE_CHECKING:
    from boto3 import Session as Boto3Session

_DENIED: Final = frozenset(
    ("AccessDenied", "AccessDeniedException", "403", "Forbidden", "UnauthorizedOperation", "AuthorizationError")
)
_GONE: Final = frozenset(
    (
        "404",
        "NoSuchBucket",
        "NotFound",
        "NotFoundException",
        "ResourceNotFoundException",
        "TableNotFoundException",
        "TrailNotFoundException",
    )
)
_THROTTLED: Final = frozenset(("Throttling", "ThrottlingException", "SlowDown", "TooManyRequestsException"))
_FOREIGN: Final = frozenset(("UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"))
MAX_WORKERS: Final = 32

ClientFactory = Callable[[str, str], Any]


class AwsAccount:
    """An AWS account as its reader sees it.

    Args:
        session: a ``boto3.Session``; None makes one with the default credential chain.
        region: where account-wide questions are asked.
        endpoint_url: a local stack, for every service; http on loopback only.
        workers: questions at a time, at most 32.
        client_factory: ``(service, region) -> client``, instead of the session's.

    Raises ConfigurationError for an unsafe endpoint or workers out of bounds.
    """

    def __init__(
        self,
        session: Boto3Session | None = None,
        *,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        workers: int = 16,
        client_factory: ClientFactory | None = None,
    ) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigurationError(f"workers is 1 to {MAX_WORKERS}")
        if endpoint_url is not None:
            from phicrypt.keys.kms.calls import require_safe_endpoint

            require_safe_endpoint(endpoint_url)
        self.region = region
        self.workers = workers
        self._session: Any = session  # the stubs know no client of a service whose name is a value
        self._endpoint_url = endpoint_url
        self._make_client = client_factory or self._new_client
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, region: str | None = None) -> Any:
        """The client for a service and Region; each is made once."""
        place = (service, region or self.region)
        with self._lock:
            if place not in self._clients:
                self._clients[place] = self._make_client(*place)
            return self._clients[place]

    def ask(
        self,
        service: str,
        operation: str,
        permission: str,
        *,
        region: str | None = None,
        absent: tuple[str, ...] = (),
        **parameters: Any,
    ) -> Mapping[str, Any] | Unread:
        """One call: the response, ``{}`` where AWS says that there is no such setting, or Unread.

        Args:
            service: boto3's name.
            operation: boto3's method.
            permission: the IAM action that it needs, for "could not check: needs X".
            absent: error codes that mean an absent setting.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            response: Mapping[str, Any] = getattr(self.client(service, region), operation)(**parameters)
        except ClientError as error:
            return _refusal(error.response, permission, absent, region or self.region)
        except ConfigurationError as error:
            return Unread(str(error))
        except (BotoCoreError, ValueError) as error:
            return Unread(
                f"{service} in {region or self.region} did not answer ({type(error).__name__}): "
                "check the Region, the network and the credentials"
            )
        return response

    def ask_all(
        self, service: str, operation: str, permission: str, member: str, **parameters: Any
    ) -> tuple[Any, ...] | Unread:
        """Every page of a listing, as one tuple of its member's entries."""
        region = parameters.pop("region", None)
        absent = parameters.pop("absent", ())
        entries: list[Any] = []
        try:
            client = self.client(service, region)
        except ConfigurationError as error:
            return Unread(str(error))
        pages = client.get_paginator(operation).paginate(**parameters) if client.can_paginate(operation) else None
        if pages is None:
            answer = self.ask(service, operation, permission, region=region, absent=absent, **parameters)
            return answer if isinstance(answer, Unread) else tuple(answer.get(member) or ())

        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for page in pages:
                entries.extend(page.get(member) or ())
        except ClientError as error:
            refusal = _refusal(error.response, permission, absent, region or self.region)
            return refusal if isinstance(refusal, Unread) else ()
        except (BotoCoreError, ValueError) as error:
            return Unread(f"{service} in {region or self.region} did not answer ({type(error).__name__})")
        return tuple(entries)

    def account_id(self) -> str:
        """The caller's account. Raises ConfigurationError where STS does not say."""
        answer = self.ask("sts", "get_caller_identity", "sts:GetCallerIdentity")
        if isinstance(answer, Unread):
            raise ConfigurationError(f"the caller's account could not be read: {answer.reason}")
        return str(answer["Account"])

    def partition(self) -> str:
        """``"aws"``, ``"aws-us-gov"`` or ``"aws-cn"``, of the Region."""
        for prefix, partition in (("us-gov-", "aws-us-gov"), ("cn-", "aws-cn")):
            if self.region.startswith(prefix):
                return partition
        return "aws"

    def _new_client(self, service: str, region: str) -> Any:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "adaptive", "total_max_attempts": 8},
            max_pool_connections=self.workers,
        )
        if self._session is None:
            self._session = boto3.Session(region_name=self.region)
        try:
            client = self._session.client(
                service, region_name=region, endpoint_url=self._endpoint_url, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"no {service} client for Region {region!r}: {error}") from None
        if service == "s3control" and self._endpoint_url is not None:
            client.meta.events.register("before-sign.s3-control", _take_account_from_host)
        return client


def _take_account_from_host(request: Any, **_: Any) -> None:
    """S3 Control puts the account before the host name, which a local endpoint does not resolve."""
    request.url = re.sub(r"^(https?://)\d{12}\.", r"\1", request.url)


def _refusal(
    response: Mapping[str, Any], permission: str, absent: tuple[str, ...], region: str
) -> Mapping[str, Any] | Unread:
    code = str(response.get("Error", {}).get("Code", "Unknown"))
    if code in absent:
        return {}
    if code in _GONE:
        return Unread("it no longer exists", is_gone=True)
    if code in _DENIED:
        return Unread(f"needs {permission}")
    if code in _THROTTLED:
        return Unread(f"throttled beyond the retries at {permission}; run again with fewer workers")
    if code in _FOREIGN:
        return Unread(f"the credentials are not valid in {region}: is the Region enabled for the account?")
    return Unread(f"{permission} answered {code}")
