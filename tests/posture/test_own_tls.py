"""Whether this Python's ssl offers a post-quantum key exchange: read from the greeting that it would send."""

from __future__ import annotations

import ssl

import pytest

from phicrypt.errors import FormatError
from phicrypt.posture.reading import own_tls
from phicrypt.posture.reading.own_tls import X25519_MLKEM768, groups_of, without_post_quantum


def client_hello(*extensions: tuple[int, bytes]) -> bytes:
    """RFC 8446, section 4.1.2, in one record."""
    listed = b"".join(kind.to_bytes(2) + len(body).to_bytes(2) + body for kind, body in extensions)
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\x20"
        + bytes(32)
        + b"\x00\x02\x13\x01"
        + b"\x01\x00"
        + len(listed).to_bytes(2)
        + listed
    )
    handshake = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2) + handshake


def groups(*numbers: int) -> tuple[int, bytes]:
    listed = b"".join(number.to_bytes(2) for number in numbers)
    return 10, len(listed).to_bytes(2) + listed


def test_groups_are_read_from_among_other_extensions():
    hello = client_hello((0, b"name"), groups(X25519_MLKEM768, 0x1D), (43, b"\x02\x03\x04"))
    assert groups_of(hello) == (0x11EC, 0x1D)
    assert groups_of(client_hello((0, b"name"))) == ()


@pytest.mark.parametrize("length", [0, 5, 43, 60, 77])
def test_what_is_cut_is_no_greeting(length):
    hello = client_hello(groups(0x1D))
    try:
        assert groups_of(hello[:length]) == ()
    except FormatError:
        return


def test_what_is_said_follows_from_what_is_offered(monkeypatch):
    offered = groups_of(own_tls._client_hello())
    assert 0x1D in offered
    assert bool(without_post_quantum()) == (X25519_MLKEM768 not in offered)
    monkeypatch.setattr(own_tls, "_client_hello", lambda: client_hello(groups(X25519_MLKEM768)))
    assert without_post_quantum() == ""
    monkeypatch.setattr(own_tls, "_client_hello", lambda: client_hello(groups(0x1D)))
    assert ssl.OPENSSL_VERSION in without_post_quantum()
    assert "X25519MLKEM768" in without_post_quantum()
