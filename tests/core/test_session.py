"""The session: a value below every verb, which only the client makes."""

from __future__ import annotations

import ast
import copy
import dataclasses
from pathlib import Path

import pytest

import phicrypt
from phicrypt import ANY_CONTEXT, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditTrail, RecordingSink
from phicrypt.audit.trail import NO_TRAIL
from phicrypt.core.limits import ReadLimits
from phicrypt.messages.verbs import MessageClient
from phicrypt.session import Session

PACKAGE = Path(phicrypt.__file__).parent
KEYRING = RawAesKeyring("clinic", "everyday", b"e" * 32)
OTHER = RawAesKeyring("clinic", "other", b"o" * 32)


def test_a_session_has_at_most_ten_public_members() -> None:
    public = [name for name in dir(PhiCrypt(KEYRING).session) if not name.startswith("_")]
    assert len(public) <= 10, public


def test_a_session_never_changes_and_cannot_be_copied() -> None:
    phi_session = PhiCrypt(KEYRING).session
    with pytest.raises(dataclasses.FrozenInstanceError):
        phi_session.threads = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="key material"):
        copy.copy(phi_session)


def test_the_client_shows_what_its_session_holds() -> None:
    trail = AuditTrail([RecordingSink()])
    phi = PhiCrypt(KEYRING, audit=trail, guard=None, limits=ReadLimits(), frame_length_bytes=4096, threads=2)
    for field in dataclasses.fields(Session):
        assert getattr(phi, field.name) is getattr(phi.session, field.name), field.name
    without = PhiCrypt(KEYRING)
    assert (without.trail, without.session.trail) == (None, NO_TRAIL)


def test_another_keyring_keeps_guard_trail_and_bounds_and_caches_nothing() -> None:
    phi_session = PhiCrypt(KEYRING, audit=[RecordingSink()], limits=ReadLimits(), threads=3).session
    under = phi_session.under(OTHER)
    kept = [field.name for field in dataclasses.fields(Session) if field.name != "provider"]
    assert all(getattr(under, name) is getattr(phi_session, name) for name in kept)
    assert under.provider.keyring is OTHER
    message = MessageClient(under).encrypt(b"x")
    assert under.provider.cache.stats().entries == 0
    assert PhiCrypt(OTHER).decrypt(message, context=ANY_CONTEXT) == b"x"
    trail = AuditTrail([RecordingSink()])
    assert phi_session.under(OTHER, trail=trail).trail is trail


def test_only_the_client_makes_a_session() -> None:
    makers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Session"
    }
    assert makers == {"client.py"}
