"""Servers that take connections and do not answer: silent ones, and such that send a byte now and then."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config


class SlowServer:
    """``with SlowServer("trickling") as server: client = server.client("kms")``.

    Args:
        kind: ``"silent"`` reads a request and answers nothing; ``"trickling"`` sends a head, and then one
            byte of the body at a time, sooner than the client's read timeout each.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.requests = 0
        self._over = threading.Event()
        self._connections: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=512)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def client(self, service: Any, *, read_timeout_seconds: float = 0.2) -> Any:
        """A client of a user's own, which tries once; a trickling server outlives its read timeout."""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            read_timeout=read_timeout_seconds if self.kind == "trickling" else 30,
            max_pool_connections=128,
        )
        return boto3.Session("a", "b", region_name="us-east-1").client(
            service, endpoint_url=self.endpoint_url, config=config
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.recv(65_536)
            self.requests += 1
            if self.kind == "trickling":
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 9999\r\n\r\n{"
                )
                while not self._over.wait(0.05):
                    connection.sendall(b" ")
        except OSError:
            pass  # the client has gone
