"""MACs by KMS, and local MACs under enveloped keys."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import pickle

import pytest

from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.signatures.mac import Mac, mac_message
from phicrypt.testing import StrictKms, local_aws

NAMED = {"resource": "patients/4711", "purpose": "integrity"}
ALGORITHMS = {"HMAC_256": "HMAC_SHA_256", "HMAC_384": "HMAC_SHA_384", "HMAC_512": "HMAC_SHA_512"}


@pytest.fixture(scope="module")
def kms():
    with StrictKms() as running:
        yield running


@pytest.fixture
def local_key(kms):
    return Mac(kms.create_key(), client=kms.client())


@pytest.mark.parametrize(("spec", "algorithm"), ALGORITHMS.items())
def test_mac_is_made_and_verified_by_kms(kms, spec, algorithm):
    mac = Mac(kms.create_mac_key(spec), client=kms.client(), algorithm=algorithm)
    tag = mac.generate(b"x" * 10_000, **NAMED)
    assert len(tag) == int(algorithm[-3:]) // 8
    mac.verify(b"x" * 10_000, tag, **NAMED)
    for source, named in (
        (b"x" * 9_999, NAMED),
        (b"x" * 10_000, NAMED | {"resource": "patients/4712"}),
        (b"x" * 10_000, NAMED | {"purpose": "search"}),
    ):
        with pytest.raises(AuthenticationError):
            mac.verify(source, tag, **named)


def test_mac_is_plain_hmac_over_the_documented_bytes(kms):
    arn = kms.create_mac_key()
    tag = Mac(arn, client=kms.client()).generate(b"value", **NAMED)
    message = mac_message(b"value", "patients/4711", "integrity", arn, "HMAC_SHA_256", "sha256")
    assert message.startswith(b"DSSEv1 28 application/vnd.in-toto+json ")
    assert hmac.compare_digest(tag, hmac.new(kms.key(arn).materials[-1][1], message, hashlib.sha256).digest())


def test_mac_works_on_moto():
    with local_aws() as aws:
        arn = aws.create_kms_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
        mac = Mac(arn, client=aws.client("kms"))
        mac.verify(b"value", mac.generate(b"value", **NAMED), **NAMED)


def test_wrong_key_usage_and_disabled_key_are_refused(kms):
    with pytest.raises(KeyAccessError) as caught:
        Mac(kms.create_key(), client=kms.client()).generate(b"value", **NAMED)
    assert caught.value.code == "InvalidKeyUsageException"
    arn = kms.create_mac_key()
    kms.disable(arn)
    with pytest.raises(KeyAccessError) as caught:
        Mac(arn, client=kms.client()).generate(b"value", **NAMED)
    assert caught.value.code == "DisabledException"


@pytest.mark.parametrize("algorithm", ["HMAC_SHA_224", "sha256", ""])
def test_unknown_algorithm_is_refused(kms, algorithm):
    with pytest.raises(ConfigurationError):
        Mac(kms.create_mac_key(), client=kms.client(), algorithm=algorithm)


def test_algorithm_of_another_key_spec_is_refused_by_kms(kms):
    with pytest.raises(KeyAccessError):
        Mac(kms.create_mac_key("HMAC_512"), client=kms.client()).generate(b"value", **NAMED)


def test_rule_28_local_tokens_need_two_kms_calls_per_key_which_agree(kms, local_key):
    envelope = local_key.new_local_key("search-tokens")
    before = len(kms.requests)
    tokens = local_key.local([envelope], purpose="search-tokens")
    made = [tokens.generate(b"%d" % number, resource="name") for number in range(100)]
    assert [one.operation for one in kms.requests[before:]] == ["Decrypt", "Decrypt"]
    assert len(set(made)) == 100
    tokens.verify(b"7", made[7], resource="name")
    assert made[7] == tokens.generate(b"7", resource="name")


def test_rule_23_tokens_carry_the_id_of_their_key_and_stay_findable_after_rotation(local_key):
    old = local_key.new_local_key("search-tokens")
    token = local_key.local([old], purpose="search-tokens").generate(b"value", resource="name")
    new = local_key.new_local_key("search-tokens")
    rotated = local_key.local([new, old], purpose="search-tokens")
    rotated.verify(b"value", token, resource="name")
    assert rotated.tokens(b"value", resource="name")[1] == token
    assert rotated.generate(b"value", resource="name") != token
    assert token.startswith(json.loads(old)["localMacKey"] + ".")


def test_changed_token_value_or_resource_fails(local_key):
    tokens = local_key.local([local_key.new_local_key("t")], purpose="t")
    token = tokens.generate(b"value", resource="name")
    with pytest.raises(AuthenticationError):
        tokens.verify(b"valuE", token, resource="name")
    with pytest.raises(AuthenticationError):
        tokens.verify(b"value", token, resource="other")
    with pytest.raises(AuthenticationError):
        tokens.verify(b"value", token[:20] + ("A" if token[20] != "A" else "B") + token[21:], resource="name")
    other = local_key.local([local_key.new_local_key("t")], purpose="t")
    with pytest.raises(AuthenticationError) as caught:
        other.verify(b"value", token, resource="name")
    assert caught.value.reason == "MAC key id"


@pytest.mark.parametrize("token", ["", ".", "abc", "abc.", "abc.!!!", "abc.AAAA"])
def test_text_that_is_no_token_is_a_format_error(local_key, token):
    tokens = local_key.local([local_key.new_local_key("t")], purpose="t")
    with pytest.raises(FormatError):
        tokens.verify(b"value", token, resource="name")


def test_envelope_is_bound_to_its_purpose_id_and_kms_key(kms, local_key):
    envelope = local_key.new_local_key("search-tokens")
    with pytest.raises(KeyAccessError):
        local_key.local([envelope], purpose="resource-tokens")
    members = json.loads(envelope)
    members["localMacKey"] = "00" * 8
    with pytest.raises(KeyAccessError):
        local_key.local([json.dumps(members).encode()], purpose="search-tokens")
    with pytest.raises(KeyAccessError):
        Mac(kms.create_key(), client=kms.client()).local([envelope], purpose="search-tokens")


@pytest.mark.parametrize(
    "envelope", [b"", b"{}", b"[]", b'{"localMacKey": "zz", "ciphertext": "AA=="}', b"x" * 20_000, b"\xff"]
)
def test_bytes_that_are_no_envelope_are_a_format_error(local_key, envelope):
    with pytest.raises(FormatError):
        local_key.local([envelope], purpose="t")


def test_local_keys_are_neither_shown_copied_nor_pickled(local_key):
    tokens = local_key.local([local_key.new_local_key("t")], purpose="t")
    assert "AA" not in repr(tokens)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(tokens)


def test_no_envelope_or_too_many_is_a_configuration_error(local_key):
    for envelopes in ([], [b"{}"] * 65):
        with pytest.raises(ConfigurationError):
            local_key.local(envelopes, purpose="t")
