"""Contexts that AWS's library for Java does not read: never written, and read where others wrote them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from support.messages import CONTEXT, raw_client
from support.sdk_providers import raw_provider

from phicrypt import PhiCrypt
from phicrypt.errors import ConfigurationError

LONGEST = 32_767
ENCRYPT: dict[str, Callable[[PhiCrypt, dict[str, str]], object]] = {
    "encrypt": lambda phi, context: phi.encrypt(b"x", context=context),
    "signed": lambda phi, context: phi.encrypt(b"x", context=context, signed=True),
    "encrypt_into": lambda phi, context: phi.encrypt_into(b"x", bytearray(70_000), context=context),
    "encrypt_stream": lambda phi, context: phi.encrypt_stream(io.BytesIO(b"x"), io.BytesIO(), context=context),
    "encrypting_reader": lambda phi, context: phi.encrypting_reader(io.BytesIO(b"x"), context=context).read(),
}
REFUSED = {
    "empty value": {"dataset": ""},
    "long value": {"dataset": "secret-" + "v" * LONGEST},
    "long value in few characters": {"dataset": "\U0001f512" * 8_192},
    "long name": {"n" * (LONGEST + 1): "secret-v"},
}


@pytest.mark.parametrize("verb", ENCRYPT)
@pytest.mark.parametrize("refused", REFUSED)
def test_rule_34_a_context_that_java_does_not_read_is_refused_without_its_value(refused: str, verb: str) -> None:
    phi = raw_client(guard=None)
    with pytest.raises(ConfigurationError, match="Java") as caught:
        ENCRYPT[verb](phi, {**CONTEXT, **REFUSED[refused]})
    assert "secret-" not in str(caught.value)
    assert "\U0001f512" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.__context__ is None


@pytest.mark.parametrize("verb", ENCRYPT)
def test_rule_34_the_longest_name_and_the_longest_value_are_written(verb: str) -> None:
    assert ENCRYPT[verb](raw_client(guard=None), {"dataset": "v" * LONGEST})
    assert ENCRYPT[verb](raw_client(guard=None), {"n" * LONGEST: "7"})


@pytest.mark.parametrize("pairs", [{"dataset": ""}, {"dataset": "v" * 40_000}, {"n" * 40_000: "7"}])
def test_rule_34_what_others_wrote_with_such_a_context_is_read(pairs: dict[str, str]) -> None:
    sdk = EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    message, _ = sdk.encrypt(source=b"payload", encryption_context=pairs, key_provider=raw_provider())
    phi = raw_client(guard=None)
    assert phi.decrypt(message, context=pairs) == b"payload"
    with phi.decrypting_reader(io.BytesIO(message), context=pairs) as reader:
        assert reader.read() == b"payload"
