"""What this Python's own ``ssl`` offers when it calls AWS: read from a greeting that is never sent."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

from phicrypt.errors import FormatError

X25519_MLKEM768: Final = 0x11EC
"""The hybrid group of https://datatracker.ietf.org/doc/draft-ietf-tls-ecdhe-mlkem, which KMS accepts."""
_SUPPORTED_GROUPS: Final = 10


def without_post_quantum() -> str:
    """Why calls of this Python cannot agree on keys with X25519MLKEM768; empty if they can."""
    if X25519_MLKEM768 in groups_of(_client_hello()):
        return ""
    return (
        f"this Python's ssl ({ssl.OPENSSL_VERSION}) does not offer X25519MLKEM768: who records its connections to "
        "KMS may read them once quantum computers can. OpenSSL 3.5 and newer offer it"
    )


def _client_hello() -> bytes:
    """The first record of a connection, as botocore's contexts would send it."""
    outgoing = ssl.MemoryBIO()
    greeting = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="kms.invalid")
    with suppress(ssl.SSLWantReadError):
        greeting.do_handshake()
    return outgoing.read()


def groups_of(client_hello: bytes) -> tuple[int, ...]:
    """The supported groups of a ClientHello (RFC 8446, section 4.1.2) in one TLS record. Raises FormatError."""
    try:
        at = 5 + 4 + 2 + 32  # record header, handshake header, legacy version, random
        at += 1 + client_hello[at]  # session id
        at += 2 + int.from_bytes(client_hello[at : at + 2])  # cipher suites
        at += 1 + client_hello[at] + 2  # compression methods, length of the extensions
        while at + 4 <= len(client_hello):
            kind, length = int.from_bytes(client_hello[at : at + 2]), int.from_bytes(client_hello[at + 2 : at + 4])
            if kind == _SUPPORTED_GROUPS:
                groups = client_hello[at + 6 : at + 4 + length]
                return tuple(int.from_bytes(groups[one : one + 2]) for one in range(0, len(groups), 2))
            at += 4 + length
    except IndexError:
        raise FormatError("a ClientHello was expected", field="TLS record") from None
    return ()
