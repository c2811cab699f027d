"""Shared pieces of the S3 tests: counting and failing clients over a real boto3 client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from phicrypt.testing import mark_as_double


@mark_as_double
class WatchedS3:
    """A boto3 S3 client that counts what it is asked and how many body bytes it returns.

    ``on_call(operation, parameters)`` may raise, to fail a request.
    """

    def __init__(self, s3: Any, on_call: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self._s3 = s3
        self.on_call = on_call
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.body_bytes = 0

    def reset(self) -> None:
        self.calls.clear()
        self.body_bytes = 0

    def operations(self) -> list[str]:
        return [name for name, _ in self.calls]

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._s3, name)
        if name in ("meta", "exceptions") or not callable(member):
            return member

        def call(*positional: Any, **parameters: Any) -> Any:
            self.calls.append((name, parameters))
            if self.on_call is not None:
                self.on_call(name, parameters)
            answer = member(*positional, **parameters)
            if name == "get_object":
                self.body_bytes += answer["ContentLength"]
            return answer

        return call


def flip(data: bytes, index: int) -> bytes:
    """The bytes with one bit of one byte changed."""
    changed = bytearray(data)
    changed[index] ^= 0x01
    return bytes(changed)
