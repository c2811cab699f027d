"""The KMS clients of one keyring: one per Region and process, made when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

from phicrypt.core.aws_clients import check_client
from phicrypt.core.breaker import Breakers
from phicrypt.core.deadlines import DEADLINE_SECONDS, checked_deadline
from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.core.steps import KmsRequest, asked, run
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.calls import call_kms, kms_client, require_safe_endpoint, safe_kms_client
from phicrypt.keys.kms.tagging import check_application

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from botocore.config import Config
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.core.kms_calls import KmsAnswer


class ClientSettings(TypedDict, total=False):
    """Of clients that phicrypt makes; see :func:`phicrypt.keys.kms.calls.kms_client`."""

    session: Boto3Session | None
    endpoint_url: str | None
    use_fips_endpoint: bool
    application: str | None
    config: Config | None
    connect_timeout_seconds: float
    read_timeout_seconds: float
    max_attempts: int


class KmsClientsSettings(TypedDict, total=False):
    """Keywords of :class:`KmsClients`, which keyrings take as well."""

    client: KMSClient | None
    client_factory: Callable[[str], KMSClient] | None
    session: Boto3Session | None
    endpoint_url: str | None
    use_fips_endpoint: bool
    application: str | None
    config: Config | None
    deadline_seconds: float


class SameObject:
    """Equal only to itself's kind around the very same object, which it keeps alive.

    In a cache key it stands for a client's or session's authority: an ``id()`` alone could be
    given to another object after the first one died.
    """

    __slots__ = ("_subject",)

    def __init__(self, subject: object) -> None:
        self._subject = subject

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameObject) and other._subject is self._subject

    def __hash__(self) -> int:
        return id(self._subject)

    def __repr__(self) -> str:
        return f"<the same {type(self._subject).__name__}>"


class KmsClients:
    """Finds, makes and keeps clients.

    Args:
        client: serves its own Region (every Region, if it does not say which one it has).
        client_factory: ``Region -> client``, the caller's code; runs without any lock, once per
            Region and process (twice if two threads ask at once; the first result is kept).
        session, endpoint_url, use_fips_endpoint, config: for clients made here.
        application: the program's name in the user agent of every client.
        deadline_seconds: how long a use waits for its keys, whatever clients make the calls
            (:mod:`phicrypt.core.deadlines`).

    Attributes:
        deadline_seconds: as given.
        breakers: of the endpoints that are asked with these credentials.

    After a fork the child makes clients of its own; a handed client is kept, with connections of
    the child's own.
    """

    def __init__(
        self,
        *,
        client: KMSClient | None = None,
        client_factory: Callable[[str], KMSClient] | None = None,
        session: Boto3Session | None = None,
        endpoint_url: str | None = None,
        use_fips_endpoint: bool = False,
        application: str | None = None,
        config: Config | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        shaping = session or endpoint_url or use_fips_endpoint or config
        if shaping and (client is not None or client_factory is not None):
            raise ConfigurationError(
                "session=, endpoint_url=, use_fips_endpoint= and config= shape clients that phicrypt makes; a "
                "client or client_factory that you give has them already"
            )
        check_application(application)
        if endpoint_url is not None:
            require_safe_endpoint(endpoint_url)
        if client is not None:
            # Now, so that a wrapper or a client with a plain http endpoint fails at construction.
            safe_kms_client(client, application)
        self.deadline_seconds = checked_deadline(deadline_seconds)
        self.breakers = Breakers()
        self._handed_client = client
        self._handed_region = _region_of(client)
        self._factory = client_factory
        self._settings: ClientSettings = {
            "session": session,
            "endpoint_url": endpoint_url,
            "use_fips_endpoint": use_fips_endpoint,
            "application": application,
            "config": config,
        }
        self._made_in = os.getpid()
        self._own = _ProcessClients()

    @property
    def handed_region(self) -> str | None:
        """The Region of the handed client, if there is one and it says so."""
        return self._handed_region

    @property
    def boto3_session(self) -> Boto3Session | None:
        """The ``boto3.Session`` that was given."""
        return self._settings["session"]

    @property
    def endpoint_url(self) -> str | None:
        """KMS's endpoint that was given."""
        return self._settings["endpoint_url"]

    @property
    def local_endpoint_url(self) -> str | None:
        """The endpoint if it is plain http, and so on loopback: a local stack, which has other services too."""
        url = self.endpoint_url
        if self._handed_client is not None:
            url = getattr(getattr(self._handed_client, "meta", None), "endpoint_url", None)
        return url if isinstance(url, str) and urlsplit(url).scheme == "http" else None

    @property
    def application(self) -> str | None:
        """The program's name in the user agent."""
        return self._settings["application"]

    @property
    def authority(self) -> Hashable:
        """Equal for equal credentials only: those of one client, factory or session object."""
        handed: list[object] = [
            one for one in (self._handed_client, self._factory, self.boto3_session) if one is not None
        ]
        settings = (self.endpoint_url, self._settings["use_fips_endpoint"])
        # Default credentials may differ from one moment to the next, so they equal only themselves.
        return (tuple(SameObject(one) for one in handed or [self]), settings)

    def under_role(self, *, session: Boto3Session | None, client: KMSClient | None) -> KmsClients:
        """Others for the same place under other credentials: endpoint, FIPS and application stay."""
        if client is not None:  # it has an endpoint already
            return KmsClients(
                client=client,
                session=session,
                application=self.application,
                deadline_seconds=self.deadline_seconds,
            )
        return KmsClients(
            session=session,
            endpoint_url=self.endpoint_url or self.local_endpoint_url,
            use_fips_endpoint=self._settings["use_fips_endpoint"],
            application=self.application,
            config=self._settings["config"],
            deadline_seconds=self.deadline_seconds,
        )

    def give_up_early(self) -> None:
        """Clients made here leave a Region that does not answer after about 7 seconds: another one may serve."""
        self._settings |= {"connect_timeout_seconds": 1.0, "read_timeout_seconds": 2.0, "max_attempts": 2}

    def check_region(self, region: str) -> None:
        """Raise ConfigurationError if no client of this Region can be had."""
        if self._handed_client is None or self._factory is not None or self._handed_region in (None, region):
            return
        raise ConfigurationError(
            f"the KMS client is of Region {self._handed_region}, the key of {region}: give a client of that "
            "Region, or client_factory= for several Regions"
        )

    def prepare(self, regions: set[str]) -> None:
        """Let the caller's factory make what is missing, before any flight (rule 12)."""
        if self._factory is not None:
            for region in regions:
                self.client(region)

    def ask(self, request: KmsRequest) -> KmsAnswer:
        """Make the call of a request. Raises KeyAccessError for whatever was answered instead."""
        assert request.region is not None
        client = self.client(request.region)
        return call_kms(client, request.operation, key_arn=request.key_arn, **request.parameters)

    def client(self, region: str) -> KMSClient:
        """The client for a Region."""
        own = self._own
        if own.pid != os.getpid():
            own = self._own = _ProcessClients()
        found = own.clients.get(region)
        if found is not None:
            return found
        if self._handed_client is not None and self._handed_region in (None, region):
            made = self._tag(self._handed_client, forked=own.pid != self._made_in)
        elif self._factory is not None:
            made = self._tag(self._made_by_factory(self._factory, region), forked=False)
        else:
            return self._make(own, region)
        return own.clients.setdefault(region, made)

    @staticmethod
    def _made_by_factory(factory: Callable[[str], KMSClient], region: str) -> KMSClient:
        made = factory(region)
        check_client(made, f"client_factory({region!r})", service="kms")
        if _region_of(made) not in (None, region):
            raise ConfigurationError(f"client_factory({region!r}) gave a client of Region {_region_of(made)}")
        return made

    def _tag(self, client: KMSClient, *, forked: bool) -> KMSClient:
        return safe_kms_client(client, self._settings["application"], own_connections=forked)

    def _make(self, own: _ProcessClients, region: str) -> KMSClient:
        # boto3 sessions are not safe to share while they make clients.
        with own.lock:
            if region not in own.clients:
                own.clients[region] = kms_client(region, **self._settings)
            return own.clients[region]


class _ProcessClients:
    """What one process has made; never used by another, whose locks and sockets it must not share."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.clients: dict[str, KMSClient] = {}


def key_arn_of_alias(clients: KmsClients, alias: str, region: str | None) -> str:
    """The ARN of the symmetric encryption key that an alias names at this moment, by DescribeKey.

    Raises ConfigurationError for anything but an alias, and for a key that cannot wrap data keys;
    KeyAccessError if KMS refuses.
    """
    arn = parse_kms_arn(alias)
    if not alias.startswith("alias/") and (arn is None or arn.resource_type != "alias"):
        raise ConfigurationError(f"{alias!r} is no alias; an alias is alias/<name> or an alias ARN")
    where = arn.region if arn is not None else region or clients.handed_region
    if where is None:
        raise ConfigurationError(f"the alias {alias!r} needs a Region: give region= or client=")
    clients.check_region(where)
    answer: KmsAnswer = run(asked(KmsRequest(where, "DescribeKey", {"KeyId": alias}, clients)))
    key = answer.response.get("KeyMetadata") or {}
    if parse_kms_arn(str(key.get("Arn", ""))) is None:
        raise KeyAccessError(
            f"DescribeKey of {alias!r}: the answer names no key; nothing of it was used",
            operation="DescribeKey",
            code="UnexpectedAnswer",
            request_ids=answer.request_ids,
        )
    if key.get("KeyUsage", "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT" or key.get("KeySpec", "SYMMETRIC_DEFAULT") != (
        "SYMMETRIC_DEFAULT"
    ):
        raise ConfigurationError(f"the alias {alias!r} names a key that is not for symmetric encryption")
    return str(key["Arn"])


def _region_of(client: object) -> str | None:
    region = getattr(getattr(client, "meta", None), "region_name", None)
    return region if isinstance(region, str) else None
