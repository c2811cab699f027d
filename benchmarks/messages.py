"""Messages from bytes to bytes: 64 B to 16 MiB, unsigned and signed, audit off and on, warm cache."""

from __future__ import annotations

import contextlib
import hmac
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError, timed
from benchmarks.peers import CONTEXT, ESDK, MPL, TINK, EsdkPeer, mpl_raw_keyring, phi_with_raw_key, tink_envelope
from phicrypt import PhiCrypt
from phicrypt.audit import JsonlSink

Offered = Mapping[str, Sampler | UnavailableError]
Direction = Literal["encrypt", "decrypt"]

PHICRYPT: Final = "phicrypt"
AUDITED: Final = "phicrypt, JSONL chain on"
PRIMITIVES: Final = "the same primitive calls"
AES_GCM: Final = "one AES-GCM call"
SIZES: Final = {"64B": 64, "1KiB": 1_024, "64KiB": 65_536}
LARGE_BYTES: Final = 16 * 1024**2
ESDK_LONG_FRAMES: Final = f"{ESDK}, frame 1 MiB"


def offer(makers: Mapping[str, Callable[[], Callable[[], object]]], profile: Profile) -> Offered:
    """Samplers of operations; a peer that is not there gives its reason instead."""
    offered: dict[str, Sampler | UnavailableError] = {}
    for name, make in makers.items():
        try:
            offered[name] = timed(make(), profile)
        except UnavailableError as error:
            offered[name] = error
    return offered


def primitive_calls(direction: Direction, payload: bytes) -> Callable[[], object]:
    """What suite 0x0478 costs at least: HKDF extract, two expands, two AES-GCM calls; to seal, 32 random bytes."""
    data_key, salt, header, nonce = os.urandom(32), os.urandom(32), bytes(200), bytes(12)
    sealed_header, sealed = (
        AESGCM(data_key).encrypt(nonce, b"", header),
        AESGCM(data_key).encrypt(nonce, payload, salt),
    )

    def derived(message_id: bytes) -> bytes:
        pseudorandom_key = hmac.digest(message_id, data_key, "sha512")
        hmac.digest(pseudorandom_key, b"COMMITKEY\x01", "sha512")
        return hmac.digest(pseudorandom_key, b"\x04\x78DERIVEKEY\x01", "sha512")[:32]

    def seal() -> None:
        message_id = os.urandom(32)
        derived(message_id)
        cipher = AESGCM(data_key)
        cipher.encrypt(nonce, b"", header)
        cipher.encrypt(nonce, payload, salt)

    def open_() -> None:
        derived(salt)
        cipher = AESGCM(data_key)
        cipher.decrypt(nonce, sealed_header, header)
        cipher.decrypt(nonce, sealed, salt)

    return seal if direction == "encrypt" else open_


def aes_gcm_call(direction: Direction, payload: bytes) -> Callable[[], object]:
    cipher, nonce = AESGCM(os.urandom(32)), bytes(12)
    if direction == "encrypt":
        return lambda: cipher.encrypt(nonce, payload, None)
    sealed = cipher.encrypt(nonce, payload, None)
    return lambda: cipher.decrypt(nonce, sealed, None)


def phi_operation(
    phi: PhiCrypt, direction: Direction, payload: bytes, *, signed: bool = False
) -> Callable[[], object]:
    if direction == "encrypt":
        return lambda: phi.encrypt(payload, context=CONTEXT, signed=signed)
    message = phi.encrypt(payload, context=CONTEXT, signed=signed)
    return lambda: phi.decrypt(message, context=CONTEXT, require_signed=signed)


def esdk_operation(
    peer: EsdkPeer, direction: Direction, payload: bytes, *, signed: bool = False, **options: Any
) -> Callable[[], object]:
    if direction == "encrypt":
        return lambda: peer.encrypt(payload, signed=signed, **options)
    message = peer.encrypt(payload, signed=signed, **options)
    return lambda: peer.decrypt(message)


def tink_operation(direction: Direction, payload: bytes) -> Callable[[], object]:
    envelope, associated = tink_envelope(), b"clinic-7"
    if direction == "encrypt":
        return lambda: envelope.encrypt(payload, associated)
    sealed = envelope.encrypt(payload, associated)
    return lambda: envelope.decrypt(sealed, associated)


@contextlib.contextmanager
def audited_phi(**options: Any) -> Iterator[PhiCrypt]:
    """phicrypt with the JSONL chain as it is by default: sealing buffered, opening written through."""
    with tempfile.TemporaryDirectory(prefix="phicrypt-bench-") as folder:
        phi = phi_with_raw_key(audit=[JsonlSink(Path(folder) / "audit.jsonl")], **options)
        with phi, phi.acting_as("dr-4711", "treatment"):
            yield phi


def small_contenders(direction: Direction, size: int, *, signed: bool = False) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(size)
        with audited_phi() as audited:
            yield offer(
                {
                    PHICRYPT: lambda: phi_operation(phi_with_raw_key(), direction, payload, signed=signed),
                    AUDITED: lambda: phi_operation(audited, direction, payload, signed=signed),
                    ESDK: lambda: esdk_operation(EsdkPeer(), direction, payload, signed=signed),
                    **({} if signed else _more_small_peers(direction, payload)),
                },
                profile,
            )

    return contenders


def _more_small_peers(direction: Direction, payload: bytes) -> dict[str, Callable[[], Callable[[], object]]]:
    return {
        f"{MPL}, raw AES": lambda: esdk_operation(EsdkPeer(mpl_raw_keyring()), direction, payload),
        TINK: lambda: tink_operation(direction, payload),
        PRIMITIVES: lambda: primitive_calls(direction, payload),
        AES_GCM: lambda: aes_gcm_call(direction, payload),
    }


def large_contenders(direction: Direction) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(LARGE_BYTES)
        into = _into_operation(direction, payload)
        with audited_phi() as audited:
            yield offer(
                {
                    PHICRYPT: lambda: phi_operation(phi_with_raw_key(), direction, payload),
                    AUDITED: lambda: phi_operation(audited, direction, payload),
                    f"{PHICRYPT}, two threads": lambda: phi_operation(
                        phi_with_raw_key(threads=2), direction, payload
                    ),
                    f"{PHICRYPT}, into a buffer": lambda: into(phi_with_raw_key()),
                    f"{PHICRYPT}, two threads, into a buffer": lambda: into(phi_with_raw_key(threads=2)),
                    AES_GCM: lambda: aes_gcm_call(direction, payload),
                    f"{AES_GCM}, into a buffer": lambda: _gcm_into(direction, payload),
                    ESDK: lambda: esdk_operation(EsdkPeer(), direction, payload),
                    ESDK_LONG_FRAMES: lambda: esdk_operation(EsdkPeer(), direction, payload, frame_length=1024**2),
                    TINK: lambda: tink_operation(direction, payload),
                },
                profile,
            )

    return contenders


def _into_operation(direction: Direction, payload: bytes) -> Callable[[PhiCrypt], Callable[[], object]]:
    def make(phi: PhiCrypt) -> Callable[[], object]:
        message = phi.encrypt(payload, context=CONTEXT)
        buffer = bytearray(len(message))
        if direction == "encrypt":
            return lambda: phi.encrypt_into(payload, buffer, context=CONTEXT)
        return lambda: phi.decrypt_into(message, buffer, context=CONTEXT)

    return make


def _gcm_into(direction: Direction, payload: bytes) -> Callable[[], object]:
    cipher, nonce = AESGCM(os.urandom(32)), bytes(12)
    sealed = cipher.encrypt(nonce, payload, None)
    if not hasattr(cipher, "encrypt_into"):
        raise UnavailableError("this version of cryptography has no encrypt_into")
    if direction == "encrypt":
        buffer = bytearray(len(sealed))
        return lambda: cipher.encrypt_into(nonce, payload, None, buffer)
    plaintext = bytearray(len(payload))
    return lambda: cipher.decrypt_into(nonce, sealed, None, plaintext)


def _bars_1kib(direction: Direction) -> tuple[Bar, ...]:
    limit, reach = (4, 6) if direction == "encrypt" else (3, 4.5)
    mode = "buffered" if direction == "encrypt" else "synchronous"
    return (
        Bar(f"{direction} 1 KiB, 0x0478, warm, audit off, vs {ESDK} caching CMM", PHICRYPT, "speedup", 6, 8, ESDK),
        Bar(
            f"{direction} 1 KiB with the JSONL chain on ({mode}), vs {ESDK}",
            AUDITED,
            "speedup",
            limit,
            reach,
            ESDK,
        ),
        Bar(f"{direction} 1 KiB vs the sum of its own primitive calls", PHICRYPT, "cost", 1.8, 1.4, PRIMITIVES),
    )


def _bars_16mib(direction: Direction) -> tuple[Bar, ...]:
    subject, two = (
        f"{direction} 16 MiB, default frame, vs {AES_GCM} returning new bytes",
        f"{PHICRYPT}, two threads",
    )
    return (
        Bar(f"{subject} (share of its rate)", PHICRYPT, "speedup", 0.6, 0.85, AES_GCM),
        Bar(f"{subject}: two threads", two, "speedup", 1.0, 1.2, AES_GCM),
        Bar(
            f"{subject}: two threads, into a caller's buffer",
            f"{two}, into a buffer",
            "speedup",
            1.3,
            1.6,
            AES_GCM,
        ),
    )


def cases() -> Iterator[Case]:
    directions: tuple[Direction, Direction] = ("encrypt", "decrypt")
    for direction in directions:
        for label, size in SIZES.items():
            yield Case(
                f"{direction}-{label}",
                f"{direction} {label}, suite 0x0478, warm cache",
                small_contenders(direction, size),
                payload_bytes=size,
                bars=_bars_1kib(direction) if label == "1KiB" else (),
            )
        for label, size in (SIZES | {"16MiB": LARGE_BYTES}).items():
            yield Case(
                f"{direction}-{label}-signed",
                f"{direction} {label}, suite 0x0578 (ECDSA P-384)",
                small_contenders(direction, size, signed=True),
                payload_bytes=size,
            )
        yield Case(
            f"{direction}-16MiB",
            f"{direction} 16 MiB, bytes to bytes, default frame length",
            large_contenders(direction),
            payload_bytes=LARGE_BYTES,
            bars=_bars_16mib(direction),
        )
