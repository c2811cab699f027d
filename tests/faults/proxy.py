"""A loopback proxy in front of the local servers: it reads every request, and spoils some answers."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from .exchange import Answer, Event, Incoming, tells_whole_lie
from .kinds import FAULTS, Fault

_NO_ANSWER_BODY: Final = ("HEAD",)
Choose = Callable[[Incoming, random.Random], Fault | None]


class DroppedError(Exception):
    """The connection is to be closed without a further byte."""


class Exchange:
    """One request on its way; a fault asks it for the true answer, and delivers what it wants.

    Attributes:
        chance: what every choice of a fault is made by.
    """

    def __init__(self, handler: _Handler, request: Incoming, chance: random.Random, event: Event) -> None:
        self._handler = handler
        self._proxy = handler.proxy
        self.request = request
        self.chance = chance
        self.event = event
        self._true: Answer | None = None
        self._is_noted = False

    def true_answer(self) -> Answer:
        """What the server says; the request reaches it now."""
        if self._true is None:
            self._true = self.asked_again()
        return self._true

    def asked_again(self) -> Answer:
        return self.request.forwarded_to(self._proxy.upstreams[self.request.service])

    def pause(self, seconds: float) -> None:
        self._proxy.stopping.wait(seconds)

    def note(self) -> None:
        """Tell the proxy what is done, before the caller can learn it from the answer."""
        if not self._is_noted:
            self._is_noted = True
            self._proxy.record(self.event, self._true)

    def deliver(self, answer: Answer) -> None:
        self._proxy.remember(self.request, answer)
        self.note()
        self._handler.send(answer, self.request.method)

    def deliver_forged(self, answer: Answer) -> None:
        """Deliver what the server did not say to this request."""
        true = self.true_answer()
        if answer == true:
            self.event.kind = "delay"
        else:
            self.event.is_whole_lie = tells_whole_lie(self.request, true, answer, was_forwarded=True)
            if self.request.service != "s3" and answer.document() is None:
                self.event.kind = "transport"  # the forged answer is none
        self.note()
        self._handler.send(answer, self.request.method)

    def deliver_part(self, answer: Answer, length_bytes: int) -> None:
        """The head of the whole answer, a part of its body, and the connection's end."""
        self.note()
        self._handler.send(answer, self.request.method, at_most=length_bytes)
        raise DroppedError

    def trickle(self, answer: Answer, seconds: float) -> None:
        """A byte now and then, for longer than anybody should wait; then the connection's end."""
        self.note()
        self._handler.send(answer, self.request.method, at_most=0)
        until = time.monotonic() + seconds
        for position in range(len(answer.body)):
            if time.monotonic() > until or self._proxy.stopping.wait(0.5):
                break
            self._handler.wfile.write(answer.body[position : position + 1])
        raise DroppedError

    def reset(self) -> None:
        raise DroppedError

    def exchanged_for(self, answer: Answer) -> Answer | None:
        """An answer that somebody else waits for in vain; this one is left for the next who asks."""
        return self._proxy.swap(self.request, answer)

    def earlier_answer(self) -> Answer | None:
        return self._proxy.earlier(self.request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def proxy(self) -> FaultyProxy:
        return self.server.proxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_exchange(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        request = Incoming(self.command, self.path, tuple(self.headers.items()), self.rfile.read(length))
        if len(request.body) < length:  # its sender is gone: a server would not do half of it
            self.close_connection = True
            return
        try:
            self.proxy.serve(self, request)
        except (DroppedError, OSError):
            self.close_connection = True
            with contextlib.suppress(OSError):  # a reset, and no orderly end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_exchange  # noqa: N815 - http.server spells them so

    def send(self, answer: Answer, method: str, *, at_most: int | None = None) -> None:
        lines = [f"HTTP/1.1 {answer.status} Answer"]
        lines += [f"{name}: {value}" for name, value in answer.headers if name.lower() != "content-length"]
        length = len(answer.body)
        if method in _NO_ANSWER_BODY:
            length = int(next((value for name, value in answer.headers if name == "Content-Length"), "0"))
        lines.append(f"Content-Length: {length}")
        body = b"" if method in _NO_ANSWER_BODY else answer.body
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body[:at_most])
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: FaultyProxy

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what this is about."""


class FaultyProxy:
    """Passes requests on, and does to each what the seed says; use it as a context manager.

    Args:
        upstreams: endpoint URL by service.
        canaries: bytes that no request may hold.
        seed: every choice follows from it and the worker's tag.

    Attributes:
        choose: which fault an exchange gets; by default none.
        counts: how many exchanges had each fault (``""`` for none).
        leaks: requests that held a canary.
    """

    def __init__(self, upstreams: Mapping[str, str], *, canaries: Iterable[bytes] = (), seed: int = 0) -> None:
        self.upstreams = {name: _address(url) for name, url in upstreams.items()}
        self._canaries = tuple(canaries)
        self._seed = seed
        self._lock = threading.Lock()
        self._chances: dict[str, random.Random] = {}
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._left: dict[tuple[str, str], tuple[str, Answer]] = {}
        self._earlier: dict[tuple[str, str, str], deque[Answer]] = defaultdict(lambda: deque(maxlen=2))
        self.choose: Choose = lambda request, chance: None
        self.counts: Counter[str] = Counter()
        self.leaks: list[str] = []
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, handler: _Handler, request: Incoming) -> None:
        event = Event(request.tag, request.service, request.operation)
        with self._lock:
            chance = self._chances.setdefault(request.tag, random.Random(f"{self._seed} {request.tag}"))
            own = random.Random(chance.getrandbits(64))
        if any(canary in piece for canary in self._canaries for piece in _pieces(request)):
            self.leaks.append(f"{request.service} {request.operation}")
        fault = self.choose(request, own)
        exchange = Exchange(handler, request, own, event)
        if fault is not None:
            event.fault, event.kind = fault.name, fault.kind
        try:
            if fault is None:
                exchange.deliver(exchange.true_answer())
            else:
                fault.act(exchange)
        finally:
            exchange.note()

    def record(self, event: Event, delivered: Answer | None) -> None:
        if event.service == "kms" and event.kind in ("", "delay") and delivered is not None:
            event.request_id = next((v for n, v in delivered.headers if n.lower() == "x-amzn-requestid"), "")
        with self._lock:
            self.counts[event.fault] += 1
            self._events[event.tag].append(event)

    def take_events(self, tag: str) -> list[Event]:
        """What happened to a worker's requests since it was asked last."""
        with self._lock:
            return self._events.pop(tag, [])

    def remember(self, request: Incoming, answer: Answer) -> None:
        if len(answer.body) < 1 << 16:
            with self._lock:
                self._earlier[request.tag, request.service, request.operation].append(answer)

    def earlier(self, request: Incoming) -> Answer | None:
        with self._lock:
            known = self._earlier.get((request.tag, request.service, request.operation))
            return known[0] if known else None

    def swap(self, request: Incoming, answer: Answer) -> Answer | None:
        place = (request.service, request.operation)
        with self._lock:
            left = self._left.get(place)
            if left is not None and left[0] != request.tag:
                del self._left[place]
                return left[1]
            self._left[place] = (request.tag, answer)
            return None


def some_faults(rate: float, names: Sequence[str] = tuple(FAULTS)) -> Choose:
    """A share of all exchanges goes wrong, each in one of these ways, by their weights."""

    def choose(request: Incoming, chance: random.Random) -> Fault | None:
        if chance.random() >= rate:
            return None
        fitting = [FAULTS[name] for name in names if request.service in FAULTS[name].services]
        return chance.choices(fitting, [fault.weight for fault in fitting])[0] if fitting else None

    return choose


def always(name: str, *, service: str, operation: str = "") -> Choose:
    """One fault, in every exchange of a service, or of one of its operations."""

    def choose(request: Incoming, chance: random.Random) -> Fault | None:
        is_meant = request.service == service and operation in ("", request.operation)
        return FAULTS[name] if is_meant else None

    return choose


def _pieces(request: Incoming) -> Iterator[bytes]:
    yield request.body
    yield unquote_to_bytes(request.target)
    yield repr(request.headers).encode()


def _address(endpoint_url: str) -> tuple[str, int]:
    parts = urlsplit(endpoint_url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port
