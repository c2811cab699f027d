"""The embedded local AWS: moto's server in this process, on a free loopback port.

It needs no credentials and uses none: its clients carry fixed dummy credentials and look at neither
environment nor profile. What moto enforces and what not stands in ``docs/testing.md``; in short, it
checks encryption contexts, and neither key states nor permissions.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, overload

from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource
    from mypy_boto3_kms.client import KMSClient
    from mypy_boto3_s3.client import S3Client

ACCESS_KEY_ID: Final = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY: Final = "local-stack-has-no-secrets"  # noqa: S105  (a dummy; moto checks no signature)
MAX_RECORDED_REQUESTS: Final = 10_000
_MAX_RECORDED_BODY_BYTES: Final = 1 << 20

# moto's DynamoDB reads, checks the condition and writes without a lock: two conditional writes that
# meet would both be acknowledged, and one lost. Its state belongs to the process, and so does this.
_dynamodb_lock = threading.Lock()

_moto_users = 0
_moto_users_lock = threading.Lock()


class LocalAws:
    """A running local AWS; use it as a context manager, through :func:`phicrypt.testing.local_aws`.

    Attributes:
        region: the Region of its clients.
        endpoint_url: ``http://127.0.0.1:<port>``.
        kms_key_arn: a symmetric KMS key, made at the start.
        kms_requests: one dict per request that KMS received, in order of arrival: ``operation``,
            ``parameters`` (decoded JSON), ``user_agent``, ``region`` (of the signature; also as
            ``authorization_region``), ``access_key_id``, ``time`` (Unix seconds), and once it was
            answered ``status`` and ``request_id``.
        requests: one dict per request of any service: ``service``, ``method``, ``path``, ``query``,
            ``operation`` (of JSON services), ``body_bytes``, ``user_agent``, ``status``.

    Both lists hold the last ``MAX_RECORDED_REQUESTS`` (10,000) requests.
    """

    def __init__(
        self,
        region: str = "us-east-1",
        *,
        wrap_application: Callable[[WSGIApplication], WSGIApplication] | None = None,
    ) -> None:
        self.region = region
        self.kms_key_arn = ""
        self.kms_requests: list[dict[str, Any]] = _Latest()
        self.requests: list[dict[str, Any]] = _Latest()
        self._wrap_application = wrap_application
        self._session_lock = threading.Lock()  # a session makes one client at a time
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint_url(self) -> str:
        if self._server is None:
            raise ConfigurationError("the local AWS is not running: use it as `with local_aws() as aws:`")
        return f"http://127.0.0.1:{self._server.server_port}"

    @overload
    def client(self, service: Literal["kms"], **settings: Any) -> KMSClient: ...
    @overload
    def client(self, service: Literal["s3"], **settings: Any) -> S3Client: ...
    @overload
    def client(self, service: Literal["dynamodb"], **settings: Any) -> DynamoDBClient: ...
    @overload
    def client(self, service: str, **settings: Any) -> Any: ...

    def client(self, service: str, **settings: Any) -> Any:
        """A boto3 client of the local stack; ``settings`` as for ``boto3.client``."""
        with self._session_lock:
            return self._session.client(service, **self._complete(settings))

    @overload
    def resource(self, service: Literal["dynamodb"], **settings: Any) -> DynamoDBServiceResource: ...
    @overload
    def resource(self, service: str, **settings: Any) -> Any: ...

    def resource(self, service: str, **settings: Any) -> Any:
        """A boto3 resource of the local stack."""
        with self._session_lock:
            return self._session.resource(service, **self._complete(settings))

    def session(self) -> Any:
        """A ``boto3.Session`` with dummy credentials; give its clients ``endpoint_url`` yourself."""
        return session_without_profile(self.region)

    @functools.cached_property
    def _session(self) -> Any:
        return self.session()

    def create_kms_key(self, *, region: str | None = None, **parameters: Any) -> str:
        """Make a KMS key (``parameters`` as CreateKey takes them); its ARN."""
        client = self.client("kms", region_name=region or self.region)
        arn: str = client.create_key(**parameters)["KeyMetadata"]["Arn"]
        return arn

    def __enter__(self) -> LocalAws:
        try:
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
            from werkzeug.serving import make_server
        except ImportError:
            _refuse_without_moto()
        _begin_moto()
        try:
            application: WSGIApplication = _OneWriteAtATime(DomainDispatcherApplication(create_backend_app))
            if self._wrap_application is not None:
                application = self._wrap_application(application)
            self._server = make_server(
                "127.0.0.1", 0, _Recorder(application, self), threaded=True, request_handler=_quiet_handler()
            )
            self._thread = threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="local-aws", daemon=True
            )
            self._thread.start()
            self.kms_key_arn = self.create_kms_key(Description="phicrypt local stack")
        except BaseException:
            self._stop()
            raise
        self.kms_requests.clear()
        self.requests.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        if self._server is not None:
            self._server.server_close()
        self._server = None
        _end_moto()

    def _complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Client settings that point here, past proxies and FIPS switches of the environment."""
        from botocore.config import Config

        config = Config(proxies={}, use_fips_endpoint=False, use_dualstack_endpoint=False)
        if "config" in settings:
            config = config.merge(settings["config"])
        return {"region_name": self.region, "endpoint_url": self.endpoint_url, **settings, "config": config}


class _Latest(list[dict[str, Any]]):
    """A list that forgets its oldest entries: a stack may serve a whole session of tests."""

    def append(self, entry: dict[str, Any]) -> None:
        super().append(entry)
        del self[:-MAX_RECORDED_REQUESTS]


class _OneWriteAtATime:
    """WSGI middleware that lets one DynamoDB request in at a time, so that conditional writes are atomic."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            return self._application(environ, start_response)
        # Read before the lock is taken: a slow sender must not hold up everybody else.
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with _dynamodb_lock:
            return self._application(environ, start_response)


class _Recorder:
    """WSGI middleware that writes down what each service received."""

    def __init__(self, application: WSGIApplication, stack: LocalAws) -> None:
        self._application = application
        self._stack = stack

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        scope = _credential_scope(environ.get("HTTP_AUTHORIZATION", ""))
        record: dict[str, Any] = {
            "service": scope.get("service", ""),
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", ""),
            "query": environ.get("QUERY_STRING", ""),
            "operation": target.rpartition(".")[2],
            "body_bytes": int(environ.get("CONTENT_LENGTH") or 0),
            "user_agent": environ.get("HTTP_USER_AGENT", ""),
        }
        self._stack.requests.append(record)
        records = [record]
        if target.startswith("TrentService."):
            records.append(self._kms_record(environ, record, scope))

        def answer(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            named = {name.lower(): value for name, value in headers}
            for one in records:
                one["status"] = int(status.split()[0])
                one["request_id"] = named.get("x-amzn-requestid") or named.get("x-amz-request-id")
            return start_response(status, headers, *rest)

        return self._application(environ, answer)

    def _kms_record(
        self, environ: WSGIEnvironment, record: dict[str, Any], scope: dict[str, str]
    ) -> dict[str, Any]:
        body = environ["wsgi.input"].read(min(record["body_bytes"], _MAX_RECORDED_BODY_BYTES))
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            parameters = json.loads(body or b"{}")
        except ValueError:
            parameters = None
        kms_record = {
            "operation": record["operation"],
            "parameters": parameters,
            "user_agent": record["user_agent"],
            "region": scope.get("region", ""),
            "authorization_region": scope.get("region", ""),
            "access_key_id": scope.get("access_key_id", ""),
            "time": time.time(),
        }
        self._stack.kms_requests.append(kms_record)
        return kms_record


def _credential_scope(authorization: str) -> dict[str, str]:
    """Access key id, Region and service of a Signature Version 4 header; empty for any other."""
    _, found, rest = authorization.partition("Credential=")
    parts = rest.split(",")[0].split("/")
    if not found or len(parts) != 5:
        return {}
    return {"access_key_id": parts[0], "region": parts[2], "service": parts[3]}


def _quiet_handler() -> Any:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class QuietHandler(MotoRequestHandler):
        def log(self, *_: object) -> None:
            """Nothing: a line per request would drown the demo."""

    return QuietHandler


def session_without_profile(region: str, access_key_id: str = ACCESS_KEY_ID) -> Any:
    """A ``boto3.Session`` that reads neither profile nor configuration files of the user."""
    import boto3
    from botocore.session import Session as BotocoreSession

    nothing = (None, None, os.devnull, None)
    bare = BotocoreSession(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": nothing,
            "credentials_file": nothing,
        }
    )
    models = _service_models()
    bare.register_component("data_loader", models)
    session = boto3.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        region_name=region,
        botocore_session=bare,
    )
    # Each boto3.Session adds its own folder to the loader's: once is enough.
    models.search_paths[:] = dict.fromkeys(models.search_paths)
    return session


@functools.cache
def _service_models() -> Any:
    """One loader for all sessions: reading the services' models is most of what making a client costs."""
    from botocore.loaders import create_loader

    return create_loader()


def _begin_moto() -> None:
    from moto.core.base_backend import AccountSpecificBackend

    global _moto_users
    with _moto_users_lock:
        if _moto_users == 0:
            _reset_moto()
            # moto lists Regions with a session of its own, which fails where AWS_PROFILE names a profile
            # that this machine lacks.
            session = session_without_profile("us-east-1")
            AccountSpecificBackend.get_session = classmethod(lambda _: session)  # type: ignore[assignment, method-assign]
        _moto_users += 1


def _end_moto() -> None:
    """moto's state belongs to the process: the last local AWS to stop leaves it empty."""
    global _moto_users
    with _moto_users_lock:
        _moto_users -= 1
        if _moto_users == 0:
            _reset_moto()


def _reset_moto() -> None:
    from moto.core.base_backend import BackendDict
    from moto.core.model_instances import reset_model_data

    BackendDict.reset()
    reset_model_data()


def _refuse_without_moto() -> NoReturn:
    raise ConfigurationError(
        "the embedded local AWS needs moto's server, which is not installed: pip install 'phicrypt[demo]'"
    ) from None
