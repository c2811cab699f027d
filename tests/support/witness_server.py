"""A witness as https://c2sp.org/tlog-witness describes it, on loopback, with switches to misbehave."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import PhiCryptError
from phicrypt.formats.checkpoints import Checkpoint, made_signature, open_checkpoint, signed_message
from phicrypt.formats.merkle import EMPTY_ROOT, verify_consistency
from phicrypt.formats.notes import ED25519_COSIGNATURE, VerifierKey, decode_base64


class WitnessServer:
    """The running witness. ``answers`` replaces its next answers: (status, body) each.

    Attributes:
        logs: verifier keys by origin; what is not here is unknown.
        known: the largest checkpoint that was cosigned, by origin.
        asked: the old sizes that it was asked with.
    """

    def __init__(self, name: str = "witness.example/w1") -> None:
        self._private_key = LocalSigningKey(new_signing_key_pem("ed25519"))
        self.key = VerifierKey.from_der(name, ED25519_COSIGNATURE, self._private_key.public_key_der())
        self.logs: dict[str, VerifierKey] = {}
        self.known: dict[str, Checkpoint] = {}
        self.asked: list[int] = []
        self.answers: list[tuple[int, bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.witness = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> WitnessServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def signature(self, text: str, seconds: int) -> bytes:
        made = self._private_key.sign(signed_message(self.key, text, seconds))
        return made_signature(self.key, made, seconds).line().encode()

    def answer(self, body: bytes) -> tuple[int, bytes]:
        head, _, note = body.partition(b"\n\n")
        old, *lines = head.decode().split("\n")
        old_size = int(old.removeprefix("old "))
        self.asked.append(old_size)
        if self.answers:
            return self.answers.pop(0)
        origin = note.decode().partition("\n")[0]
        if origin not in self.logs:
            return 404, b""
        try:
            opened = open_checkpoint(note, log_keys=[self.logs[origin]])
        except PhiCryptError:
            return 403, b""
        known = self.known.get(origin, Checkpoint(origin, 0, EMPTY_ROOT))
        if old_size > opened.checkpoint.size:
            return 400, b""
        if old_size != known.size:
            return 409, b"%d\n" % known.size
        try:
            verify_consistency(
                old_size=known.size,
                old_root=known.root,
                new_size=opened.checkpoint.size,
                new_root=opened.checkpoint.root,
                proof=[decode_base64(line, "proof") for line in lines],
            )
        except PhiCryptError:
            return 422, b""
        self.known[origin] = opened.checkpoint
        return 200, self.signature(opened.note.text, int(time.time()))


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        witness: WitnessServer = self.server.witness  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = witness.answer(body) if self.path == "/add-checkpoint" else (404, b"")
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", witness.url)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Quiet."""
