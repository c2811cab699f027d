"""The parts that an operation is made of, measured by pyperf: ``python -m benchmarks.micro -o FILE``.

pyperf starts processes of its own and calibrates its loops, which suits parts of a microsecond. Names
are ``operation / part``; the part ``whole`` is the operation itself, so that what the parts do not
explain can be seen. Parts of an operation call phicrypt's own functions as the operation does.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Profile, UnavailableError
from benchmarks.peers import CONTEXT, phi_with_raw_key
from benchmarks.processes import ROOT, clean_environment

Part = tuple[str, Callable[[], object]]

KIB: Final = 1_024
_TIMEOUT_SECONDS: Final = 600


def floor_parts() -> Iterator[Part]:
    """The primitives themselves."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from phicrypt.core.primitives import SigningKey
    from phicrypt.core.suites import Curve

    nonce, cipher = bytes(12), AESGCM(bytes(32))
    for label, size in (("64 B", 64), ("1 KiB", KIB), ("64 KiB", 64 * KIB), ("1 MiB", KIB * KIB)):
        payload = os.urandom(size)
        yield f"floor / AES-256-GCM, {label}", lambda payload=payload: cipher.encrypt(nonce, payload, None)
    piece, buffer = os.urandom(KIB * KIB), bytearray(KIB * KIB + 16)
    if hasattr(cipher, "encrypt_into"):
        yield "floor / AES-256-GCM into a buffer, 1 MiB", lambda: cipher.encrypt_into(nonce, piece, None, buffer)
    yield "floor / AESGCM constructor", lambda: AESGCM(nonce + bytes(20))
    yield "floor / 32 random bytes", lambda: os.urandom(32)
    yield "floor / HMAC-SHA-512, one block", lambda: hmac.digest(nonce, b"label", "sha512")
    yield "floor / SHA-384, 1 MiB", lambda: hashlib.sha384(piece).digest()
    yield "floor / copy, 1 MiB", lambda: bytes(memoryview(piece))
    digest, key = hashlib.sha384(b"x").digest(), SigningKey(Curve.P384)
    yield "floor / ECDSA P-384 key generation", lambda: SigningKey(Curve.P384)
    yield "floor / ECDSA P-384 signature", lambda: key.sign_digest(digest)


def encrypt_parts() -> Iterator[Part]:
    """``encrypt`` of 1 KiB, 0x0478, warm cache."""
    from phicrypt.core.primitives import AESGCM, random_bytes
    from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY as SUITE
    from phicrypt.formats.esdk.derivation import derive_keys
    from phicrypt.formats.esdk.frames import seal_only_frame
    from phicrypt.formats.esdk.header import serialize_header_body_v2
    from phicrypt.formats.esdk.sealing import header_part_of

    payload, phi, zero_iv = os.urandom(KIB), phi_with_raw_key(), bytes(12)
    pairs, context_bytes = phi.contexts.to_bind(CONTEXT)

    def materials_of() -> Any:
        return phi.provider.encryption_materials(
            SUITE, pairs, plaintext_length_bytes=KIB, context_bytes=context_bytes
        )[0]

    materials, message_id = materials_of(), random_bytes(32)
    message_key, commitment = derive_keys(SUITE, materials.data_key, message_id)
    constant = header_part_of(materials, phi.frame_length_bytes, phi.limits)
    body = serialize_header_body_v2(SUITE, message_id, constant, commitment)
    cipher = AESGCM(message_key)
    header, frame = body + cipher.encrypt(zero_iv, b"", body), seal_only_frame(cipher, message_id, payload)

    yield "encrypt 1 KiB / whole", lambda: phi.encrypt(payload, context=CONTEXT)
    yield "encrypt 1 KiB / context", lambda: phi.contexts.to_bind(CONTEXT)
    yield "encrypt 1 KiB / cache", materials_of
    yield "encrypt 1 KiB / random message id", lambda: random_bytes(32)
    yield "encrypt 1 KiB / derivation", lambda: derive_keys(SUITE, materials.data_key, message_id)
    yield "encrypt 1 KiB / header body", lambda: serialize_header_body_v2(SUITE, message_id, constant, commitment)
    yield "encrypt 1 KiB / cipher set-up", lambda: AESGCM(message_key)
    yield "encrypt 1 KiB / header tag", lambda: cipher.encrypt(zero_iv, b"", body)
    yield "encrypt 1 KiB / frame", lambda: seal_only_frame(cipher, message_id, payload)
    yield "encrypt 1 KiB / joining", lambda: b"".join((header, *frame))


def decrypt_parts() -> Iterator[Part]:
    """``decrypt`` of 1 KiB, 0x0478, warm cache."""
    from phicrypt.core.primitives import AESGCM
    from phicrypt.formats.esdk.derivation import derive_keys
    from phicrypt.formats.esdk.frames import open_only_frame
    from phicrypt.formats.esdk.header import parse_header
    from phicrypt.formats.esdk.header_memo import HeaderMemo
    from phicrypt.formats.reader import ByteReader

    phi = phi_with_raw_key()
    message = phi.encrypt(os.urandom(KIB), context=CONTEXT)
    expected, memo = phi.contexts.expected(CONTEXT), HeaderMemo()
    header = parse_header(ByteReader(message, 0), phi.limits)
    memo.keep(header)

    def materials_of() -> Any:
        return phi.provider.decryption_materials(
            header.suite,
            header.context,
            header.encrypted_data_keys,
            expected=expected,
            context_bytes=header.context_bytes,
        )[0]

    materials = materials_of()
    message_key, _ = derive_keys(header.suite, materials.data_key, header.message_id)
    cipher, frame = AESGCM(message_key), memoryview(message)[header.length_bytes :]

    yield "decrypt 1 KiB / whole", lambda: phi.decrypt(message, context=CONTEXT)
    yield "decrypt 1 KiB / context", lambda: phi.contexts.expected(CONTEXT)
    yield "decrypt 1 KiB / header (constant part remembered)", lambda: memo.find(message)
    yield "decrypt 1 KiB / cache", materials_of
    yield "decrypt 1 KiB / derivation", lambda: derive_keys(header.suite, materials.data_key, header.message_id)
    yield "decrypt 1 KiB / cipher set-up", lambda: AESGCM(message_key)
    yield "decrypt 1 KiB / header tag", lambda: cipher.decrypt(header.iv, header.tag, header.body)
    yield "decrypt 1 KiB / frame", lambda: open_only_frame(cipher, header.message_id, frame)


def audit_parts() -> Iterator[Part]:
    """One event of an encryption, and a begin and end event of a decryption, as the trail writes them."""
    from phicrypt.audit import JsonlSink
    from phicrypt.audit.trail import AuditTrail

    folder = tempfile.mkdtemp(prefix="phicrypt-bench-")
    trail = AuditTrail([JsonlSink(Path(folder) / "audit.jsonl")])
    message_id = bytes(32)

    def decryption() -> None:
        use = trail.begin("decrypt", format="esdk", suite_id=0x0478, message_id=message_id, context=CONTEXT)
        use.end(byte_count=KIB)

    yield (
        "audit / one buffered event",
        lambda: trail.record("encrypt", format="esdk", suite_id=0x0478, message_id=message_id, context=CONTEXT),
    )
    yield "audit / begin and end, written through", decryption


def item_parts() -> Iterator[Part]:
    """``encrypt_item`` and ``decrypt_item`` of 20 attributes under a cached branch key."""
    from benchmarks.dynamodb import PARTITION_KEY, TABLE, item_of, phi_with_branch_key, table_for
    from phicrypt.formats.dbesdk.attributes import deserialize, serialize_attributes
    from phicrypt.formats.dbesdk.header import parse_header
    from phicrypt.formats.dbesdk.item_context import item_context
    from phicrypt.formats.dbesdk.layout import LegendAction, layout_to_write
    from phicrypt.formats.dbesdk.record import open_record, seal_record

    item, phi = item_of(20), phi_with_branch_key()
    table, ddb = table_for(item), phi.dynamodb
    actions = {name: LegendAction.SIGN if name == PARTITION_KEY else LegendAction.ENCRYPT for name in item}
    layout = layout_to_write(TABLE, actions)

    def terminals_of() -> Any:
        return serialize_attributes(item, layout.names)

    terminals = terminals_of()

    def context_of() -> Any:
        return item_context(
            table.version,
            terminals,
            table_name=TABLE,
            partition_key=PARTITION_KEY,
            sort_key=None,
            context_attributes=table.context_attributes,
        )

    context = context_of()

    def materials_of() -> Any:
        return phi.provider.encryption_materials(table.suite, context, plaintext_length_bytes=None)[0]

    materials, values = materials_of(), list(terminals.values())

    def record_of() -> Any:
        return seal_record(materials, layout, values, version=table.version, stored_context={})

    record, sealed = record_of(), ddb.encrypt_item(item, table)
    header = parse_header(record.header_bytes, phi.limits)

    def opened_materials() -> Any:
        return phi.provider.decryption_materials(
            header.suite, context, header.encrypted_data_keys, expected=context
        )[0]

    to_open = opened_materials()
    stored = [record.encrypted.get(name) or b"".join(terminals[name]) for name in layout.names]

    yield "encrypt item of 20 / whole", lambda: ddb.encrypt_item(item, table)
    yield "encrypt item of 20 / values to bytes", terminals_of
    yield "encrypt item of 20 / context", context_of
    yield "encrypt item of 20 / data key wrapped under the branch key", materials_of
    yield "encrypt item of 20 / record (fields, hash, header, footer)", record_of
    yield "decrypt item of 20 / whole", lambda: ddb.decrypt_item(sealed, table)
    yield "decrypt item of 20 / header", lambda: parse_header(record.header_bytes, phi.limits)
    yield "decrypt item of 20 / context", context_of
    yield "decrypt item of 20 / data key unwrapped under the branch key", opened_materials
    yield (
        "decrypt item of 20 / record (footer, hash, fields)",
        lambda: open_record(to_open, header, record.footer_bytes, layout, stored),
    )
    yield "decrypt item of 20 / bytes to values", lambda: [deserialize(*value) for value in values]


def stream_parts() -> Iterator[Part]:
    """One run of frames of ``encrypt_stream`` and ``decrypt_stream``, from file to file."""
    from phicrypt.core.memory import page_memory
    from phicrypt.core.primitives import AESGCM
    from phicrypt.formats.esdk.frames import REGULAR_OVERHEAD_BYTES, FrameCipher, frames_in_run
    from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES as FRAME_LENGTH

    frames = frames_in_run(FRAME_LENGTH)
    plaintext = page_memory(frames * FRAME_LENGTH)
    ciphertext = page_memory(frames * (FRAME_LENGTH + REGULAR_OVERHEAD_BYTES))
    cipher = FrameCipher(AESGCM(os.urandom(32)), os.urandom(32), FRAME_LENGTH)
    cipher.seal_regular_frames_into(1, plaintext, ciphertext)
    file = tempfile.TemporaryFile(prefix="phicrypt-bench-", buffering=0)  # noqa: SIM115 - as long as the process
    file.write(ciphertext)

    def write() -> None:
        file.truncate(0)  # so that the pages are new, as those of a file that grows
        os.pwrite(file.fileno(), ciphertext, 0)

    opened = page_memory(len(plaintext))
    yield "stream, 1 MiB / read from the page cache", lambda: os.preadv(file.fileno(), [plaintext], 0)
    yield "stream, 1 MiB / seal 8 frames", lambda: cipher.seal_regular_frames_into(1, plaintext, ciphertext)
    yield "stream, 1 MiB / open 8 frames", lambda: cipher.open_regular_frames_into(1, ciphertext, opened)
    yield "stream, 1 MiB / write to the page cache", write


def run(profile: Profile) -> dict[str, Any]:
    """Run pyperf in processes of its own; name to best, median and standard deviation in seconds."""
    try:
        import pyperf
    except ImportError as error:
        raise UnavailableError(f"pyperf is not installed ({error})") from None
    settings = profile.choose(
        quick=["-p", "1", "-n", "2", "-w", "1", "--min-time", "0.002"],
        full=["-p", "4", "-n", "4", "-w", "1", "--min-time", "0.02"],
    )
    with tempfile.TemporaryDirectory(prefix="phicrypt-bench-") as folder:
        target = Path(folder) / "micro.json"
        command = [sys.executable, "-m", "benchmarks.micro", "--quiet", "-o", str(target), *settings]
        ending = subprocess.run(
            command,
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if ending.returncode != 0:
            raise UnavailableError(f"pyperf ended with {ending.returncode}: {ending.stderr.strip()[-300:]}")
        suite = pyperf.BenchmarkSuite.load(str(target))
        return {
            one.get_name(): {"best": min(one.get_values()), "median": one.median(), "deviation": _deviation(one)}
            for one in suite
        }


def _deviation(benchmark: Any) -> float:
    return float(benchmark.stdev()) if len(benchmark.get_values()) > 1 else 0.0


def main() -> None:
    import pyperf

    runner = pyperf.Runner(program_args=("-m", "benchmarks.micro"))
    for parts in (floor_parts, encrypt_parts, decrypt_parts, audit_parts, stream_parts, item_parts):
        for name, function in parts():
            runner.bench_func(name, function)


if __name__ == "__main__":
    main()
