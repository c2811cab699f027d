"""The wire of a botocore client in a test's hands: what comes over it is real, changed, or made up."""

from __future__ import annotations

import io
import itertools
import json
import zlib
from collections.abc import Callable
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.config import Config

_numbers = itertools.count()
HTML = b"<html><body>Please log in to the hospital's guest network</body></html>"


class Answer:
    """One answer of HTTP, to be changed freely."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.body = body

    def with_body(self, body: bytes) -> Answer:
        """Another body, whose length and checksum the headers state, as a forger would."""
        headers = {**self.headers, "content-length": str(len(body))}
        if "x-amz-crc32" in headers:
            headers["x-amz-crc32"] = str(zlib.crc32(body))
        return Answer(self.status, headers, body)


def fresh_id() -> str:
    return f"REQUEST-{next(_numbers)}"


def json_answer(document: Any, *, service: str = "kms", **headers: str) -> Answer:
    """A whole answer of KMS or DynamoDB."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    version = {"kms": "1.1", "dynamodb": "1.0"}[service]
    found = {"content-type": f"application/x-amz-json-{version}", "x-amzn-requestid": fresh_id(), **headers}
    if service == "dynamodb":
        found.setdefault("x-amz-crc32", str(zlib.crc32(body)))
    return Answer(200, found, body)


class Wire:
    """Stands in for a client's connections.

    ``changes`` are taken one for each attempt of ``operation`` (of any, if None): each gets the answer that would
    have come, or None where nobody is there to give one, and gives what comes.
    """

    def __init__(self, client: Any, operation: str | None = None, *, is_real: bool = True) -> None:
        self._client = client
        self._operation = operation
        self._is_real = is_real
        self.changes: list[Callable[[Any], Answer]] = []
        self.always: Callable[[Any], Answer] | None = None
        self.attempts: list[str] = []
        client.meta.events.register_first("before-send", self._send)

    def _send(self, request: Any, event_name: str, **_: Any) -> Any:
        operation = event_name.rpartition(".")[2]
        self.attempts.append(operation)
        if self._operation not in (None, operation) or not (self.changes or self.always):
            return None
        change = self.changes.pop(0) if self.changes else self.always
        assert change is not None
        came = None
        if self._is_real:
            real = self._client._endpoint.http_session.send(request)
            came = Answer(real.status_code, dict(real.headers), real.content)
        given = change(came)
        return AWSResponse(request.url, given.status, HeadersDict(given.headers), _Raw(given.body))


class _Raw(io.BytesIO):
    """urllib3's answer, as far as botocore reads one."""

    def stream(self, **_: Any) -> Any:
        while piece := self.read(65_536):
            yield piece


def unconnected(service: str, *, attempts: int = 1) -> Any:
    """A boto3 client with nothing behind it; https, as AWS's."""
    return boto3.client(
        service,
        region_name="eu-central-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="no-secret",
        config=Config(retries={"mode": "standard", "total_max_attempts": attempts}),
    )
