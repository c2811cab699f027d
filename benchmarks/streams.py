"""256 MiB from file to file, at three frame lengths, and the memory that it takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError
from benchmarks.peers import CONTEXT, ESDK, TINK, EsdkPeer, phi_with_raw_key, tink_streaming
from benchmarks.processes import peak_memory_sampler

MIB: Final = 1024**2
READ_BYTES: Final = MIB
"""What phicrypt reads at once; the bare loop and the peers read as much."""
PHICRYPT: Final = "phicrypt"
BARE_LOOP: Final = "bare read-seal-write loop"
FRAMES: Final = {"4 KiB": 4_096, "128 KiB": 128 * 1024, "1 MiB": MIB}
ESDK_LONG_FRAMES: Final = f"{ESDK}, frame 1 MiB"

Copier = Callable[[Any, Any], object]


def stream_length(profile: Profile) -> int:
    return int(profile.choose(quick=64, full=256)) * MIB


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in TMPDIR: on a disk it is the page cache that is measured, on tmpfs the memory."""
    with tempfile.TemporaryDirectory(prefix="phicrypt-bench-") as name:
        yield Path(name)


def write_random_file(path: Path, length: int) -> None:
    with path.open("wb") as file:
        for _ in range(length // MIB):
            file.write(os.urandom(MIB))


def bare_seal_loop(source: Any, sink: Any) -> None:
    """Read into one buffer, seal into another, write it: nothing less can be done in Python."""
    cipher = AESGCM(bytes(32))
    read_buffer = memoryview(bytearray(READ_BYTES))
    output = memoryview(bytearray(READ_BYTES + 16))
    counter = 0
    while count := source.readinto(read_buffer):
        counter += 1
        cipher.encrypt_into(counter.to_bytes(12, "big"), read_buffer[:count], None, output[: count + 16])
        sink.write(output[: count + 16])


def bare_open_loop(source: Any, sink: Any) -> None:
    cipher = AESGCM(bytes(32))
    read_buffer = memoryview(bytearray(READ_BYTES + 16))
    output = memoryview(bytearray(READ_BYTES))
    counter = 0
    while count := source.readinto(read_buffer):
        counter += 1
        cipher.decrypt_into(counter.to_bytes(12, "big"), read_buffer[:count], None, output[: count - 16])
        sink.write(output[: count - 16])


def phi_seal(**options: Any) -> Copier:
    phi = phi_with_raw_key()
    return lambda source, sink: phi.encrypt_stream(source, sink, context=CONTEXT, **options)


def phi_open(**options: Any) -> Copier:
    phi = phi_with_raw_key(**options)
    return lambda source, sink: phi.decrypt_stream(source, sink, context=CONTEXT)


def esdk_copier(mode: str, **options: Any) -> Copier:
    peer = EsdkPeer()
    return lambda source, sink: peer.stream(mode, source, sink, READ_BYTES, **options)


def tink_copier(mode: str) -> Copier:
    streaming = tink_streaming()

    def seal(source: Any, sink: Any) -> None:
        with streaming.new_encrypting_stream(sink, b"clinic-7") as stream:
            shutil.copyfileobj(source, stream, READ_BYTES)

    def open_(source: Any, sink: Any) -> None:
        with streaming.new_decrypting_stream(source, b"clinic-7") as stream:
            shutil.copyfileobj(stream, sink, READ_BYTES)

    return seal if mode == "e" else open_


def forget(target_path: Path) -> None:
    """Remove what the contender before wrote.

    A file that is truncated and written again is one that ext4 sends to the disk as soon as it is
    closed: at the expense of whoever is measured next.
    """
    target_path.unlink(missing_ok=True)


def seconds_of(copier: Copier, source_path: Path, target_path: Path) -> Sampler:
    def sample() -> float:
        forget(target_path)
        # Unbuffered: each of these does its own reading ahead.
        with source_path.open("rb", buffering=0) as source, target_path.open("wb", buffering=0) as sink:
            start = time.perf_counter()
            copier(source, sink)
            return time.perf_counter() - start

    return sample


def seconds_of_cp(source_path: Path, target_path: Path) -> Sampler:
    def sample() -> float:
        forget(target_path)
        start = time.perf_counter()
        subprocess.run(["cp", str(source_path), str(target_path)], check=True)
        return time.perf_counter() - start

    return sample


def _sealers() -> dict[str, Callable[[], Copier]]:
    return {
        PHICRYPT: lambda: phi_seal(),
        **{
            f"{PHICRYPT}, frame {label}": lambda length=length: phi_seal(frame_length_bytes=length)
            for label, length in FRAMES.items()
            if label != "128 KiB"
        },
        BARE_LOOP: lambda: bare_seal_loop,
        TINK: lambda: tink_copier("e"),
    }


def _sealing_peers() -> dict[str, Callable[[], Copier]]:
    return {
        PHICRYPT: lambda: phi_seal(),
        ESDK: lambda: esdk_copier("e"),
        ESDK_LONG_FRAMES: lambda: esdk_copier("e", frame_length=MIB),
    }


def file_contenders(samplers_of: Callable[[Path], Mapping[str, Callable[[], Sampler]]]) -> Any:
    """Contenders over ``plain`` in a folder of their own, and ``cp`` beside them."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        with scratch_folder() as folder:
            write_random_file(folder / "plain", stream_length(profile))
            copied = {"cp": lambda: seconds_of_cp(folder / "plain", folder / "target")}
            offered: dict[str, Sampler | UnavailableError] = {}
            for name, make in {**samplers_of(folder), **copied}.items():
                try:
                    offered[name] = make()
                except UnavailableError as error:
                    offered[name] = error
            # Nothing of the preparation shall be on its way to the disk while the rounds run.
            os.sync()
            yield offered

    return contenders


def seal_contenders(sealers: Callable[[], dict[str, Callable[[], Copier]]]) -> Any:
    def sampler(folder: Path, make: Callable[[], Copier]) -> Sampler:
        return seconds_of(make(), folder / "plain", folder / "target")

    return file_contenders(
        lambda folder: {name: partial(sampler, folder, make) for name, make in sealers().items()}
    )


Openers = dict[str, tuple[Callable[[], Copier], Callable[[], Copier]]]
"""By contender: how its ciphertext is made, and how it is opened."""


def _openers() -> Openers:
    return {
        PHICRYPT: (lambda: phi_seal(), lambda: phi_open()),
        f"{PHICRYPT}, frame 4 KiB": (lambda: phi_seal(frame_length_bytes=4_096), lambda: phi_open()),
        f"{PHICRYPT}, frame 1 MiB": (lambda: phi_seal(frame_length_bytes=MIB), lambda: phi_open()),
        BARE_LOOP: (lambda: bare_seal_loop, lambda: bare_open_loop),
    }


def _opening_peers() -> Openers:
    return {
        PHICRYPT: (lambda: phi_seal(), lambda: phi_open()),
        ESDK: (lambda: esdk_copier("e"), lambda: esdk_copier("d")),
        ESDK_LONG_FRAMES: (lambda: esdk_copier("e", frame_length=MIB), lambda: esdk_copier("d")),
    }


def open_contenders(openers: Callable[[], Openers]) -> Any:
    def sampler(
        folder: Path, name: str, make_sealer: Callable[[], Copier], make_opener: Callable[[], Copier]
    ) -> Sampler:
        sealed = folder / f"sealed by {name}"
        seconds_of(make_sealer(), folder / "plain", sealed)()
        return seconds_of(make_opener(), sealed, folder / "target")

    return file_contenders(
        lambda folder: {name: partial(sampler, folder, name, *makers) for name, makers in openers().items()}
    )


def memory_contenders(direction: str) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        with scratch_folder() as folder:
            plain = folder / "plain"
            write_random_file(plain, stream_length(profile))
            offered: dict[str, Sampler | UnavailableError] = {}
            for name, worker in ((PHICRYPT, "phicrypt"), (ESDK, "esdk")):
                sealed = folder / f"sealed-{worker}"
                seal = peak_memory_sampler(f"{worker}-encrypt", str(plain), str(sealed))
                try:
                    seal()  # its result is what the decryption reads
                except UnavailableError as error:
                    offered[name] = error
                    continue
                opened = peak_memory_sampler(f"{worker}-decrypt", str(sealed), str(folder / "target"))
                offered[name] = seal if direction == "encrypt" else opened
            yield offered

    return contenders


def cases() -> Iterator[Case]:
    # The peer takes seconds where the others take a tenth of one: in a case of its own it leaves them more rounds.
    for direction, beside_floor, beside_peer in (
        ("encrypt", seal_contenders(_sealers), seal_contenders(_sealing_peers)),
        ("decrypt", open_contenders(_openers), open_contenders(_opening_peers)),
    ):
        title = f"{direction} 256 MiB, file to file"
        floor = Bar(f"{title}, vs the {BARE_LOOP} at the same read size", PHICRYPT, "speedup", 0.9, 1, BARE_LOOP)
        yield Case(
            f"stream-{direction}",
            title,
            beside_floor,
            payload_bytes=256 * MIB,
            bars=(floor,),
            rounds=(7, 25),
        )
        peer = Bar(f"{title}, vs {ESDK} at its default frame length", PHICRYPT, "speedup", 6, 8, ESDK)
        yield Case(
            f"stream-{direction}-peer",
            f"{title}, beside the SDK",
            beside_peer,
            payload_bytes=256 * MIB,
            bars=(peer,),
            rounds=(1, 5),
        )
    for direction in ("encrypt", "decrypt"):
        yield Case(
            f"stream-{direction}-memory",
            f"peak memory of a stream above the idle process, {direction} 256 MiB",
            memory_contenders(direction),
            unit="MiB",
            bars=(Bar(f"peak memory of that stream above idle ({direction})", PHICRYPT, "value", 24, 8),),
            rounds=(1, 3),
        )
