"""The demo's first chapter: one record in, one message out, and what an attacker gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from phicrypt.client import PhiCrypt
from phicrypt.demo.patients import patient_bundle
from phicrypt.demo.stage import Stage, Stopwatch
from phicrypt.errors import (
    AuthenticationError,
    ContextMismatchError,
    FormatError,
    LimitExceededError,
    PhiCryptError,
    PhiInContextError,
)
from phicrypt.keys.kms.keyring import KmsKeyring

_CONTEXT = {"tenant": "clinic-7", "resource": "Bundle"}
_MESSAGES = 10_000
_MAX_FILE_BYTES = 256 * 1024 * 1024


def tell(stage: Stage) -> None:
    stage.chapter("A record, encrypted under a KMS key")
    phi = PhiCrypt(KmsKeyring(stage.aws.kms_key_arn, client=stage.aws.client("kms")))
    plain = stage.folder / "record"
    sealed = stage.folder / "record.esdk"
    plain.write_bytes(_bytes_of(stage.file) if stage.file else patient_bundle())
    _encrypt(stage, phi)
    _look_from_outside(stage, phi)
    with sealed.open("rb") as source, (stage.folder / "opened").open("wb") as sink:
        phi.decrypt_stream(source, sink, context={"tenant": "clinic-7"})
    is_equal = (stage.folder / "opened").read_bytes() == plain.read_bytes()
    stage.check(is_equal, "decrypts to the same bytes, and only for the tenant that was expected")
    _attack(stage, phi, sealed.read_bytes())
    _count_calls(stage, phi)


def _bytes_of(file: Path) -> bytes:
    size = file.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise LimitExceededError(
            "the demo holds the file in memory; for large files there is `phicrypt encrypt`",
            limit=_MAX_FILE_BYTES,
            actual=size,
        )
    return file.read_bytes()


def _encrypt(stage: Stage, phi: PhiCrypt) -> None:
    name = stage.file.name if stage.file else "a synthetic FHIR bundle"
    plain, sealed = stage.folder / "record", stage.folder / "record.esdk"
    stage.show("KMS key", stage.aws.kms_key_arn)
    stage.show("plaintext", f"{name}, {plain.stat().st_size:,} bytes")
    with plain.open("rb") as source:
        stage.show("which begins", source.read(48))
    with plain.open("rb") as source, sealed.open("wb") as sink:
        phi.encrypt_stream(source, sink, context=_CONTEXT)
    stage.show("encrypted", f"{sealed.stat().st_size:,} bytes, an AWS Encryption SDK message")


def _look_from_outside(stage: Stage, phi: PhiCrypt) -> None:
    stage.say("What somebody sees who copies the file but may not use the key:")
    with (stage.folder / "record.esdk").open("rb") as source:
        summary = phi.inspect(source)
        source.seek(summary.header_length_bytes)
        body = source.read(4096)
    stage.show("suite", f"{summary.suite_id} {summary.suite}")
    stage.show("opens with", ", ".join(summary.key_arns))
    stage.show("context names", ", ".join(summary.context_names))
    stage.show("body", body)
    with (stage.folder / "record").open("rb") as source:
        start = source.read(32)
    if len(start) >= 16:  # fewer bytes might occur in ciphertext by chance
        stage.check(start not in body, "the record's beginning does not occur in the body")


def _attack(stage: Stage, phi: PhiCrypt, message: bytes) -> None:
    changed = bytearray(message)
    changed[-1] ^= 1
    stage.say("One bit of the message is flipped:")
    stage.check(
        _refused(stage, AuthenticationError, lambda: phi.decrypt(bytes(changed), context=_CONTEXT)),
        "refused, and nothing was released",
    )
    stage.say("The last byte is cut off:")
    stage.check(_refused(stage, FormatError, lambda: phi.decrypt(message[:-1], context=_CONTEXT)), "refused")
    stage.say("Another clinic's message is expected, and the data key is not cached:")
    phi.cache.clear()
    calls_before = stage.kms_calls()
    stage.check(
        _refused(stage, ContextMismatchError, lambda: phi.decrypt(message, context={"tenant": "clinic-8"}))
        and stage.kms_calls() == calls_before,
        "refused, before KMS was asked for anything",
    )
    stage.say("A context that would put a social security number into CloudTrail:")
    stage.check(
        _refused(stage, PhiInContextError, lambda: phi.encrypt(b"", context={"patient": "078-05-1120"})),
        "refused",
    )


def _refused(stage: Stage, expected: type[PhiCryptError], attempt: Callable[[], bytes]) -> bool:
    try:
        attempt()
    except expected as refusal:
        stage.show(type(refusal).__name__, refusal)
        return True
    return False


def _count_calls(stage: Stage, phi: PhiCrypt) -> None:
    stage.say(f"{_MESSAGES:,} lab results, one message each:")
    calls_before = stage.kms_calls()
    context = {"tenant": "clinic-7", "resource": "Observation"}
    with Stopwatch() as watch:
        messages = [phi.encrypt(b"hemoglobin 13.%d g/dL" % (n % 10), context=context) for n in range(_MESSAGES)]
    calls = stage.kms_calls() - calls_before
    stage.show("encrypted", f"{_MESSAGES / watch.seconds:,.0f} messages a second")
    stage.show("KMS calls", f"{calls}, and every message has a key of its own, derived from one data key")
    stage.check(calls == 1, f"{_MESSAGES:,} messages took one KMS call")
    with Stopwatch() as watch:
        opened = [phi.decrypt(message, context={"tenant": "clinic-7"}) for message in messages]
    stage.show("decrypted", f"{_MESSAGES / watch.seconds:,.0f} messages a second")
    stage.check(
        opened[7] == b"hemoglobin 13.7 g/dL" and stage.kms_calls() - calls_before == 2,
        "and opening them one more",
    )
