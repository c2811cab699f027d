"""How cost grows: with the size of a message, the attributes of an item, the number of tenants, and threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from benchmarks.branch_keys import run_in_threads
from benchmarks.dynamodb import PHICRYPT, item_of, legacy_operation, phi_with_branch_key, serializer_operation
from benchmarks.dynamodb import phi_operation as phi_item_operation
from benchmarks.measure import Case, Profile, Sampler, UnavailableError
from benchmarks.messages import (
    AES_GCM,
    aes_gcm_call,
    esdk_operation,
    offer,
    phi_operation,
    tink_operation,
)
from benchmarks.peers import ESDK, LEGACY_DYNAMODB, TINK, EsdkPeer, phi_with_raw_key
from phicrypt import HierarchicalKeyring, PhiCrypt
from phicrypt.keys.branch_keys.values import BranchKey
from phicrypt.testing import StaticBranchKeyStore

SIZES: Final = tuple(4**power for power in range(3, 13))
ATTRIBUTES: Final = (2, 5, 10, 20, 50, 100, 200)
TENANTS: Final = (1, 10, 100, 1_000, 10_000)
FRAMES: Final = tuple(2**power for power in range(11, 23))

Offered = Mapping[str, Sampler | UnavailableError]


def size_contenders(size: int) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(size)
        yield offer(
            {
                PHICRYPT: lambda: phi_operation(phi_with_raw_key(), "encrypt", payload),
                ESDK: lambda: esdk_operation(EsdkPeer(), "encrypt", payload),
                TINK: lambda: tink_operation("encrypt", payload),
                AES_GCM: lambda: aes_gcm_call("encrypt", payload),
            },
            profile,
        )

    return contenders


def frame_contenders(frame_length_bytes: int) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(4 * 1024**2)
        phi = phi_with_raw_key(frame_length_bytes=frame_length_bytes)
        yield offer(
            {
                PHICRYPT: lambda: phi_operation(phi, "encrypt", payload),
                f"{PHICRYPT}, decrypt": lambda: phi_operation(phi, "decrypt", payload),
                AES_GCM: lambda: aes_gcm_call("encrypt", payload),
            },
            profile,
        )

    return contenders


def attribute_contenders(attributes: int) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        item = item_of(attributes)
        yield offer(
            {
                PHICRYPT: lambda: phi_item_operation(phi_with_branch_key(), "encrypt", item),
                LEGACY_DYNAMODB: lambda: legacy_operation("encrypt", item),
                "boto3 serializer": lambda: serializer_operation("encrypt", item),
            },
            profile,
        )

    return contenders


class ManyTenants(StaticBranchKeyStore):
    """A branch key per tenant, at hand."""

    def __init__(self) -> None:
        super().__init__("tenant-0", "8d1fd4a2-6e4b-4d7c-9c11-3a1e7c2b9f10", bytes(32), bytes(32))
        self.identity_of_store = ("many", id(self))

    def fetch_active(self, branch_key_id: str) -> BranchKey:
        return BranchKey(branch_key_id, self._branch_key.version, bytes(32))


def tenant_contenders(tenants: int) -> Any:
    """One message per call, going round the tenants; up to 1,000 branch keys are kept."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        keyring = HierarchicalKeyring(
            ManyTenants(), branch_key_id=lambda context: context["tenant"], ttl_seconds=3_600
        )
        phi = PhiCrypt(keyring=keyring)
        contexts = [{"tenant": f"tenant-{number}"} for number in range(tenants)]

        def in_turn() -> Callable[[], object]:
            payload = bytes(1_024)
            state = {"next": 0}

            def encrypt() -> None:
                number = state["next"]
                state["next"] = (number + 1) % tenants
                phi.encrypt(payload, context=contexts[number])

            for _ in range(tenants):
                encrypt()
            return encrypt

        yield offer({PHICRYPT: in_turn}, profile)

    return contenders


def caller_contenders(size: int) -> Any:
    """Seconds per message for one caller and for two at once, with one client."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(size)
        phi = phi_with_raw_key()
        encrypt = phi_operation(phi, "encrypt", payload)
        decrypt = phi_operation(phi, "decrypt", payload)
        messages = max(4, int(profile.choose(quick=2, full=16)) * 1024**2 // max(size, 4_096))

        def seconds_per_message(operation: Callable[[], object], threads: int) -> float:
            def work(_: int) -> None:
                for _ in range(messages // threads):
                    operation()

            return run_in_threads(threads, work) / (messages // threads * threads)

        yield {
            f"encrypt, {threads} caller{'s' if threads > 1 else ''}": lambda threads=threads: seconds_per_message(
                encrypt, threads
            )
            for threads in (1, 2)
        } | {
            f"decrypt, {threads} caller{'s' if threads > 1 else ''}": lambda threads=threads: seconds_per_message(
                decrypt, threads
            )
            for threads in (1, 2)
        }

    return contenders


def cases() -> Iterator[Case]:
    for size in SIZES:
        yield Case(
            f"curve-size-{size}",
            f"encrypt {size:,} B",
            size_contenders(size),
            payload_bytes=size,
            rounds=(1, 9),
            curve=("message size", "bytes", size),
        )
    for frame_length in FRAMES:
        yield Case(
            f"curve-frame-{frame_length}",
            f"encrypt and decrypt 4 MiB in frames of {frame_length:,} B",
            frame_contenders(frame_length),
            payload_bytes=4 * 1024**2,
            rounds=(1, 9),
            curve=("frame length", "bytes", frame_length),
        )
    for attributes in ATTRIBUTES:
        yield Case(
            f"curve-attributes-{attributes}",
            f"encrypt an item of {attributes} attributes",
            attribute_contenders(attributes),
            rounds=(1, 9),
            curve=("attributes", "attributes", attributes),
        )
    for tenants in TENANTS:
        yield Case(
            f"curve-tenants-{tenants}",
            f"encrypt 1 KiB, {tenants:,} tenants in turn",
            tenant_contenders(tenants),
            rounds=(1, 9),
            curve=("tenants", "tenants", tenants),
        )
    for label, size in (("1KiB", 1_024), ("64KiB", 65_536), ("1MiB", 1024**2)):
        yield Case(
            f"threads-{label}",
            f"seconds per message of {label}, one caller and two at once",
            caller_contenders(size),
            payload_bytes=size,
            rounds=(3, 9),
        )
