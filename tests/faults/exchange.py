"""A request and its answer as the proxy passes them on, and what a forged answer claims."""

from __future__ import annotations

import http.client
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
_READS: Final = frozenset({"GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems", "GET", "HEAD"})
_UPSTREAM_TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True)
class Answer:
    """A whole answer of a server."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_body(self, body: bytes) -> Answer:
        """The same with another body, and with the checksum that DynamoDB would send for it."""
        crc = ("x-amz-crc32", str(zlib.crc32(body)))
        headers = tuple(crc if name.lower() == "x-amz-crc32" else (name, value) for name, value in self.headers)
        return replace(self, headers=headers, body=body)

    def document(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Incoming:
    """A request as it came.

    Attributes:
        tag: the worker that sent it, from its user agent.
        service: ``"kms"``, ``"dynamodb"`` or ``"s3"``.
        operation: of KMS and DynamoDB their name, of S3 the method.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def tag(self) -> str:
        found = re.search(r"lab/([\w-]+)", self.header("user-agent"))
        return found[1] if found else ""

    @property
    def service(self) -> str:
        target = self.header("x-amz-target")
        return "kms" if target.startswith("TrentService") else "dynamodb" if target else "s3"

    @property
    def operation(self) -> str:
        return self.header("x-amz-target").rpartition(".")[2] or self.method

    @property
    def is_read(self) -> bool:
        return self.operation in _READS

    def header(self, name: str) -> str:
        return next((value for one, value in self.headers if one.lower() == name), "")

    def forwarded_to(self, address: tuple[str, int]) -> Answer:
        """What the server behind the proxy answers."""
        connection = http.client.HTTPConnection(*address, timeout=_UPSTREAM_TIMEOUT_SECONDS)
        try:
            connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers:
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body)
            response = connection.getresponse()
            headers = [pair for pair in response.getheaders() if pair[0].lower() not in _HOP_BY_HOP]
            if self.method == "HEAD" and (length := response.getheader("Content-Length")):
                headers.append(("Content-Length", length))
            return Answer(response.status, tuple(headers), response.read())
        finally:
            connection.close()


@dataclass
class Event:
    """What was done to one exchange.

    Attributes:
        fault: the name of the fault, empty where the true answer was delivered.
        kind: the fault's kind, see :mod:`faults.kinds`.
        is_whole_lie: a whole, well-formed answer was delivered that says "there is none", leaves something
            out, or acknowledges what was not done. No client can tell; such calls are counted apart.
        request_id: of the true answer of KMS, where it was delivered.
    """

    tag: str
    service: str
    operation: str
    fault: str = ""
    kind: str = ""
    is_whole_lie: bool = False
    request_id: str = ""
    canaries: Sequence[str] = field(default_factory=tuple)


def tells_whole_lie(request: Incoming, true: Answer, delivered: Answer, *, was_forwarded: bool) -> bool:
    """Whether the delivered answer leaves out what the true one holds, or acknowledges what was not done."""
    if delivered.status < 300 and not request.is_read:
        return not was_forwarded or true.status >= 300
    if delivered.status == 404 and true.status < 300:
        return True
    if request.service != "dynamodb" or true.status >= 300 or delivered.status >= 300:
        # An object's own older version, or its lengths and headers, are not authenticated by a client.
        return request.service == "s3" and request.is_read and delivered != true
    return _count(delivered.document()) < _count(true.document()) or _says_nothing_is_there(delivered)


def _says_nothing_is_there(answer: Answer) -> bool:
    document = answer.document()
    return isinstance(document, dict) and not ({"Item", "Items", "Responses", "Table"} & document.keys())


def _count(document: Any) -> int:
    """How many items an answer holds."""
    if not isinstance(document, dict):
        return 0
    items = list(document.get("Items") or ()) + ([document["Item"]] if document.get("Item") else [])
    responses = document.get("Responses") or ()
    pages = responses.values() if isinstance(responses, dict) else [responses]
    for page in pages:
        items += [entry for entry in page if entry and (not isinstance(responses, list) or entry.get("Item"))]
    return len(items)
