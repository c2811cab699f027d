"""The faults: what each does to one exchange, and what a client may conclude.

Kinds::

    delay       late and true
    twice       the request arrives twice; the second answer is delivered
    transport   no answer, in any of its shapes: an outage, worth another try
    throttling  the service asks for patience: worth another try, no outage
    server      the service failed: an outage, worth another try
    forged      whole, well-formed and wrong: refused, and worth no other try
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .exchange import Answer, Incoming

if TYPE_CHECKING:
    from .proxy import Exchange

SILENT_SECONDS: Final = 3.0
TRICKLE_SECONDS: Final = 4.0
_HTML: Final = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>proxy</body></html>"


@dataclass(frozen=True)
class Fault:
    """One way in which an exchange goes wrong.

    Attributes:
        act: does it to an exchange; it decides whether the request reaches the server.
        weight: how often it comes among the faults.
        services: to which requests it is done.
    """

    name: str
    kind: str
    act: Callable[[Exchange], None]
    weight: float
    services: tuple[str, ...] = ("kms", "dynamodb", "s3")


def _delay(exchange: Exchange) -> None:
    exchange.pause(exchange.chance.uniform(0.001, 0.05))
    exchange.deliver(exchange.true_answer())


def _duplicated(exchange: Exchange) -> None:
    exchange.true_answer()
    exchange.deliver(exchange.asked_again())


def _reset_before(exchange: Exchange) -> None:
    exchange.reset()


def _reset_after(exchange: Exchange) -> None:
    exchange.true_answer()
    exchange.reset()


def _cut(exchange: Exchange) -> None:
    answer = exchange.true_answer()
    exchange.deliver_part(answer, exchange.chance.randrange(max(1, len(answer.body))))


def _html(exchange: Exchange) -> None:
    if exchange.chance.random() < 0.5:
        exchange.true_answer()
    exchange.deliver(Answer(200, (("Content-Type", "text/html"),), _HTML))


def _empty(exchange: Exchange) -> None:
    if exchange.chance.random() < 0.5:
        exchange.true_answer()
    exchange.deliver(Answer(200, (), b""))


def _cut_whole(exchange: Exchange) -> None:
    """Cut, and the length agrees with it: what a faulty proxy passes on as whole."""
    answer = exchange.true_answer()
    cut = Answer(answer.status, answer.headers, answer.body[: exchange.chance.randrange(max(1, len(answer.body)))])
    exchange.deliver(cut)


def _stale_checksum(exchange: Exchange) -> None:
    answer = exchange.true_answer()
    exchange.deliver(Answer(answer.status, answer.headers, flipped(answer.body, exchange.chance)))


def _silent(exchange: Exchange) -> None:
    if exchange.chance.random() < 0.5:
        exchange.true_answer()
    exchange.note()
    exchange.pause(SILENT_SECONDS)
    exchange.reset()


def _trickling(exchange: Exchange) -> None:
    exchange.trickle(exchange.true_answer(), TRICKLE_SECONDS)


def _throttled(exchange: Exchange) -> None:
    exchange.deliver(_refusal(exchange.request, 400, "ThrottlingException", "Rate exceeded"))


def _failing(exchange: Exchange) -> None:
    code = {"kms": "KMSInternalException", "dynamodb": "InternalServerError"}.get(
        exchange.request.service, "InternalError"
    )
    exchange.deliver(_refusal(exchange.request, 500, code, "failed"))


def _slow_down(exchange: Exchange) -> None:
    exchange.deliver(_refusal(exchange.request, 503, "SlowDown", "Please reduce your request rate."))


def _flipped(exchange: Exchange) -> None:
    """One bit of the body, with the checksum that belongs to what it became."""
    answer = exchange.true_answer()
    exchange.deliver_forged(answer.with_body(flipped(answer.body, exchange.chance)))


def _swapped(exchange: Exchange) -> None:
    """The answer to another caller's request of the same operation."""
    answer = exchange.true_answer()
    other = exchange.exchanged_for(answer)
    if other is None:
        exchange.event.kind = "transport"
        exchange.reset()
    else:
        exchange.deliver_forged(other)


def _repeated(exchange: Exchange) -> None:
    """The answer that this caller had before, once more, request id and all."""
    exchange.true_answer()
    earlier = exchange.earlier_answer()
    if earlier is None:
        exchange.event.kind = "transport"
        exchange.reset()
    else:
        exchange.deliver_forged(earlier)


def flipped(body: bytes, chance: random.Random) -> bytes:
    """The body with one bit changed."""
    if not body:
        return body
    changed = bytearray(body)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _refusal(request: Incoming, status: int, code: str, text: str) -> Answer:
    """The service's own error, as it writes one."""
    if request.service == "s3":
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        body = b"" if request.method == "HEAD" else body
        return Answer(status, (("Content-Type", "application/xml"), ("x-amz-request-id", _id())), body)
    prefix = "com.amazonaws.dynamodb.v20120810#" if request.service == "dynamodb" else ""
    body = f'{{"__type":"{prefix}{code}","message":"{text}"}}'.encode()
    headers = (("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", _id()))
    return Answer(status, headers, body)


def _id() -> str:
    return f"{random.getrandbits(128):032x}"


_TABLES: Final = ("dynamodb",)
FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault("delayed", "delay", _delay, 4),
        Fault("duplicated", "twice", _duplicated, 2),
        Fault("reset-before", "transport", _reset_before, 4),
        Fault("reset-after", "transport", _reset_after, 4),
        Fault("cut", "transport", _cut, 4),
        Fault("cut-whole", "transport", _cut_whole, 3, ("kms", "dynamodb")),
        Fault("html", "transport", _html, 3),
        Fault("empty", "transport", _empty, 2),
        Fault("stale-checksum", "transport", _stale_checksum, 2, _TABLES),
        Fault("silent", "transport", _silent, 0.4),
        Fault("trickling", "transport", _trickling, 0.4, ("kms", "dynamodb")),
        Fault("throttled", "throttling", _throttled, 3, ("kms", "dynamodb")),
        Fault("failing", "server", _failing, 3),
        Fault("slow-down", "server", _slow_down, 2, ("s3",)),
        Fault("flipped", "forged", _flipped, 3),
        Fault("swapped", "forged", _swapped, 3),
        Fault("repeated", "forged", _repeated, 2),
    )
}
