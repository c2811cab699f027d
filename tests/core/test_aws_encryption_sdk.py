"""Both directions against the AWS Encryption SDK for Python: raw AES, and KMS on the embedded AWS."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.identifiers import AlgorithmSuite
from aws_encryption_sdk.key_providers.kms import KMSMasterKey
from support.messages import WRAPPING_KEY
from support.sdk_providers import raw_provider

from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.core.suites import ESDK_SUITES
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import LocalAws

CONTEXT = {"tenant": "clinic-7", "resource": "DiagnosticReport", "größe": "µ"}
FRAME_LENGTHS = (1, 4096, DEFAULT_FRAME_LENGTH_BYTES, 1024 * 1024)


def sizes_for(frame_length: int) -> tuple[int, ...]:
    return tuple(sorted({0, 1, max(frame_length - 1, 0), frame_length, frame_length + 1, 3 * frame_length + 7}))


CASES = [(frame_length, size) for frame_length in FRAME_LENGTHS for size in sizes_for(frame_length)]
# The SDK writes multiples of the cipher's 128 bits only.
CASES_OF_THE_SDK = [(128, size) for size in sizes_for(128)] + [case for case in CASES if case[0] > 1]


def plaintext_of(size: int) -> bytes:
    return (b"A synthetic patient bundle. " * (size // 28 + 1))[:size]


@pytest.fixture(scope="module")
def embedded() -> Iterator[LocalAws]:
    with local_aws() as aws:
        yield aws


@pytest.fixture(params=["raw-aes", "kms"])
def both_sides(request: pytest.FixtureRequest) -> tuple[PhiCrypt, Any]:
    """phicrypt, and a master key provider of the SDK for the same key."""
    if request.param == "raw-aes":
        keyring: Any = RawAesKeyring("clinic", "key-1", WRAPPING_KEY)
        return PhiCrypt(keyring), raw_provider()
    aws: LocalAws = request.getfixturevalue("embedded")
    kms = aws.client("kms")
    return PhiCrypt(KmsKeyring(aws.kms_key_arn, client=kms)), KMSMasterKey(key_id=aws.kms_key_arn, client=kms)


def sdk_client(**options: Any) -> EncryptionSDKClient:
    return EncryptionSDKClient(
        commitment_policy=options.pop("commitment_policy", CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    )


@pytest.mark.parametrize("signed", [False, True], ids=["0x0478", "0x0578"])
def test_what_phicrypt_writes_opens_with_the_sdk(both_sides: tuple[PhiCrypt, Any], signed: bool) -> None:
    phi, provider = both_sides
    client = sdk_client()
    for frame_length, size in CASES:
        plaintext = plaintext_of(size)
        message = phi.encrypt(plaintext, context=CONTEXT, signed=signed, frame_length_bytes=frame_length)
        opened, header = client.decrypt(source=message, key_provider=provider)
        assert opened == plaintext
        assert header.encryption_context.items() >= CONTEXT.items()
        assert header.algorithm.algorithm_id == (0x0578 if signed else 0x0478)
        assert header.frame_length == frame_length


@pytest.mark.parametrize("signed", [False, True], ids=["0x0478", "0x0578"])
def test_what_phicrypt_streams_opens_with_the_sdk(both_sides: tuple[PhiCrypt, Any], signed: bool) -> None:
    phi, provider = both_sides
    for frame_length, size in CASES:
        plaintext = plaintext_of(size)
        sink = io.BytesIO()
        phi.encrypt_stream(
            io.BytesIO(plaintext), sink, context=CONTEXT, signed=signed, frame_length_bytes=frame_length
        )
        opened, _ = sdk_client().decrypt(source=sink.getvalue(), key_provider=provider)
        assert opened == plaintext


@pytest.mark.parametrize("signed", [False, True], ids=["0x0478", "0x0578"])
def test_what_the_sdk_writes_opens_with_phicrypt(both_sides: tuple[PhiCrypt, Any], signed: bool) -> None:
    phi, provider = both_sides
    algorithm = (
        AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
        if signed
        else AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
    )
    for frame_length, size in CASES_OF_THE_SDK:
        plaintext = plaintext_of(size)
        message, _ = sdk_client().encrypt(
            source=plaintext,
            key_provider=provider,
            encryption_context=CONTEXT,
            algorithm=algorithm,
            frame_length=frame_length,
        )
        assert phi.decrypt(message, context=CONTEXT, require_signed=signed) == plaintext
        with phi.decrypting_reader(io.BytesIO(message), context=CONTEXT) as reader:
            assert reader.read() == plaintext


LEGACY_SUITES = sorted(suite_id for suite_id, suite in ESDK_SUITES.items() if not suite.is_committing)


@pytest.mark.parametrize("suite_id", LEGACY_SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 128, 4096], ids=["non-framed", "128", "4096"])
def test_every_legacy_suite_that_the_sdk_writes_is_read(suite_id: int, frame_length: int) -> None:
    plaintext = plaintext_of(1000)
    client = sdk_client(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
    message, _ = client.encrypt(
        source=plaintext,
        key_provider=raw_provider(),
        encryption_context=CONTEXT,
        algorithm=next(suite for suite in AlgorithmSuite if suite.algorithm_id == suite_id),
        frame_length=frame_length,
    )
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY))
    assert phi.decrypt(message, context=CONTEXT, allow_uncommitted=True) == plaintext
    sink = io.BytesIO()
    phi.decrypt_stream(io.BytesIO(message), sink, context=ANY_CONTEXT, allow_uncommitted=True)
    assert sink.getvalue() == plaintext


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_non_framed_messages_of_the_sdk_with_commitment_are_read(signed: bool, size: int) -> None:
    algorithm = (
        AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
        if signed
        else AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
    )
    message, _ = sdk_client().encrypt(
        source=plaintext_of(size),
        key_provider=raw_provider(),
        encryption_context=CONTEXT,
        algorithm=algorithm,
        frame_length=0,
    )
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY))
    assert phi.inspect(message).is_framed is False
    assert phi.decrypt(message, context=CONTEXT) == plaintext_of(size)
    with phi.decrypting_reader(io.BytesIO(message), context=CONTEXT) as reader:
        assert not reader.seekable()
        assert reader.read() == plaintext_of(size)
