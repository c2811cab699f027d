"""A local KMS that refuses what AWS refuses: what moto leaves out (key states, denials, throttling, …).

An in-process HTTP server that speaks KMS's JSON 1.1 protocol for one account in every Region, with
real AES-GCM under key material that replicas of a multi-Region key share. Error names, HTTP status
and the order of checks follow AWS's API reference. One method per operation, named after it, so
that a further operation is one more method of
:class:`phicrypt.testing.strict_kms_operations.Operations`. ::

    with StrictKms() as kms:
        arn = kms.create_key()
        kms.disable(arn)
        client = kms.client("us-east-1")
"""

from __future__ import annotations

import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from phicrypt.testing.local_stack import session_without_profile
from phicrypt.testing.strict_kms_asymmetric import AsymmetricOperations
from phicrypt.testing.strict_kms_operations import Account, Denial, Fault, KeyRecord, KmsError, Request

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

_session_lock = threading.RLock()
_session = functools.cache(session_without_profile)


class StrictKms:
    """The running server and its switches; use it as a context manager.

    Attributes:
        account: the keys, denials and faults.
        connections: the clients' addresses, one per connection.
    """

    operations = AsymmetricOperations

    def __init__(self) -> None:
        self.account = Account()
        self.connections: list[tuple[str, int]] = []
        self._service = self.operations(self.account)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> StrictKms:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[Request]:
        """Every request in order of arrival, refused ones and retries included."""
        return self.account.requests

    def operations_called(self) -> list[tuple[str, str]]:
        """(operation, Region) of every request."""
        return [(request.operation, request.region) for request in self.requests]

    def session(self, access_key_id: str = "AKIDSTRICT", region: str = "us-east-1") -> Any:
        """A ``boto3.Session``; one per caller and Region, because each loads the service model anew."""
        with _session_lock:
            return _session(region, access_key_id)

    def client(
        self,
        region: str = "us-east-1",
        *,
        access_key_id: str = "AKIDSTRICT",
        endpoint_url: str | None = None,
        max_attempts: int = 1,
        read_timeout_seconds: float = 5,
    ) -> KMSClient:
        """A plain boto3 client, by default without retries."""
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": max_attempts},
            connect_timeout=1,
            read_timeout=read_timeout_seconds,
            max_pool_connections=64,
            proxies={},
            use_fips_endpoint=False,
        )
        session = self.session(access_key_id, region)
        with _session_lock:
            client: KMSClient = session.client(
                "kms", endpoint_url=endpoint_url or self.endpoint_url, config=config
            )
        return client

    def create_key(
        self,
        region: str = "us-east-1",
        *,
        replicas: tuple[str, ...] = (),
        private_key: Any = None,
        **parameters: Any,
    ) -> str:
        """A key's ARN; with ``replicas``, a multi-Region key that also lives in those Regions.

        ``parameters`` are CreateKey's. An asymmetric key takes a ``private_key`` of yours, which
        spares a test the making of RSA keys.
        """
        if replicas:
            parameters["MultiRegion"] = True
        request = Request("CreateKey", region, parameters, "", "", time.time(), "")
        answer = self._service.create_key(request, private_key)
        arn: str = answer["KeyMetadata"]["Arn"]
        key = self.key(arn)
        for replica in replicas:
            self.account.keys[replica, key.key_id] = replace(key, region=replica)
        return arn

    def create_signing_key(self, spec: str, **parameters: Any) -> str:
        """A key that signs: ``"ECC_NIST_P256"``, ``"RSA_2048"``, ``"ML_DSA_65"``, …"""
        return self.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY", **parameters)

    def create_mac_key(self, spec: str = "HMAC_256") -> str:
        return self.create_key(KeySpec=spec, KeyUsage="GENERATE_VERIFY_MAC")

    def key(self, arn: str) -> KeyRecord:
        return self.account.find(arn, arn.split(":")[3])

    def disable(self, arn: str) -> None:
        self.key(arn).state = "Disabled"

    def enable(self, arn: str) -> None:
        self.key(arn).state = "Enabled"

    def schedule_deletion(self, arn: str) -> None:
        self.key(arn).state = "PendingDeletion"

    def rotate(self, arn: str) -> None:
        """New key material; what the old one sealed still opens."""
        self.key(arn).materials.append((os.urandom(32).hex(), os.urandom(32)))

    def create_alias(self, name: str, arn: str) -> None:
        key = self.key(arn)
        self.account.aliases[key.region, name] = key.key_id

    def grant(self, arn: str, operation: str) -> str:
        """A grant token that lifts a denial of one operation on one key."""
        token = f"grant-{uuid.uuid4().hex}"
        self.account.grants[token] = (arn, operation)
        return token

    def deny(self, arn: str | None = None, operation: str | None = None, **conditions: Any) -> Denial:
        denial = Denial(arn, operation, **conditions)
        self.account.denials.append(denial)
        return denial

    def allow(self, denial: Denial) -> None:
        self.account.denials.remove(denial)

    def fail(
        self, code: str = "KMSInternalException", *, status: int = 500, message: str = "injected", **where: Any
    ) -> Fault:
        """Answer ``code`` the next ``times`` (1) times that ``operation``, ``region`` and ``key_arn`` match.

        ``message`` is AWS's text, which for keys in custom key stores says what went wrong.
        """
        return self._add(Fault(KmsError(code, message, status=status), **where))

    def throttle(self, times: int = 1, **where: Any) -> Fault:
        return self.fail("ThrottlingException", status=400, times=times, **where)

    def alter(self, change: Callable[[dict[str, Any]], dict[str, Any]], **where: Any) -> Fault:
        """Let the true answer pass through ``change``: a KMS that lies."""
        return self._add(Fault(None, alter=change, **where))

    def hang(self, seconds: float, **where: Any) -> Fault:
        """Answer late: a client with a shorter read timeout gives up."""
        return self._add(Fault(None, hang_seconds=seconds, **where))

    @contextmanager
    def region_down(self, region: str) -> Iterator[None]:
        """Connections of a Region are dropped without an answer."""
        fault = self._add(Fault(None, times=float("inf"), region=region, drop=True))
        try:
            yield
        finally:
            self.account.faults.remove(fault)

    @staticmethod
    def closed_endpoint() -> str:
        """The URL of a loopback port on which nothing listens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{probe.getsockname()[1]}"

    def _add(self, fault: Fault) -> Fault:
        with self.account.lock:
            self.account.faults.append(fault)
        return fault

    def answer(self, request: Request) -> tuple[Fault | None, dict[str, Any]]:
        """The answer's members and the fault that shaped them, or KmsError."""
        with self.account.lock:
            self.account.requests.append(request)
            fault = next((one for one in self.account.faults if one.matches(request)), None)
            if fault is not None:
                fault.times -= 1
                if fault.drop:
                    return fault, {}
                if fault.error is not None:
                    raise fault.error
            method = getattr(self._service, request.operation, None)
            if method is None or not request.operation[:1].isupper():
                raise KmsError("UnknownOperationException")
            self._service.used.clear()
            try:
                answer = method(request)
            except KeyError as missing:
                raise KmsError("ValidationException", f"{missing} is required") from None
            self._service.note_success(request)
        return fault, fault.alter(answer) if fault is not None and fault.alter is not None else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, kms: StrictKms) -> None:
        self.kms = kms
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment per answer: no delayed acknowledgement between head and body
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        self.server.kms.connections.append(self.client_address)
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        scope = self.headers.get("Authorization", "").partition("Credential=")[2].split(",")[0].split("/")
        request = Request(
            operation=self.headers.get("X-Amz-Target", "").partition(".")[2],
            region=scope[2] if len(scope) == 5 else "us-east-1",
            parameters=json.loads(body or b"{}"),
            user_agent=self.headers.get("User-Agent", ""),
            access_key_id=scope[0],
            time=time.time(),
            request_id=str(uuid.uuid4()),
        )
        status = 200
        payload: dict[str, Any] = {}
        try:
            fault, payload = self.server.kms.answer(request)
            if fault is not None and fault.drop:
                self.close_connection = True
                return
            if fault is not None and fault.hang_seconds:
                time.sleep(fault.hang_seconds)
        except KmsError as error:
            status, payload = error.status, {"__type": error.code}
            if error.text is not None:
                payload["message"] = error.text
            request.error_code = error.code
        request.status = status
        self._send(status, payload, request.request_id)

    def _send(self, status: int, payload: dict[str, Any], request_id: str) -> None:
        encoded = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(encoded)))
        self.send_header("x-amzn-RequestId", request_id)
        self.end_headers()
        self.wfile.write(encoded)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Quiet."""
