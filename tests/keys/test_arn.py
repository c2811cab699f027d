"""KMS key ARNs and the multi-Region match."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phicrypt.core.kms_arn import configured_key_arn, key_arn_of_message, parse_kms_arn
from phicrypt.errors import ConfigurationError, FormatError

KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
MRK_EAST = "arn:aws:kms:us-east-1:111122223333:key/mrk-4321abcd12ab34cd56ef1234567890ab"
MRK_WEST = MRK_EAST.replace("us-east-1", "us-west-2")
NOT_ARNS = [
    "",
    "arn:aws:kms:us-east-1:111122223333:key/",
    "arn:aws:kms:us-east-1:111122223333:key",
    "arn:aws:kms:us-east-1:111122223333:secret/1234",
    "arn:aws:kms:us-east-1::key/1234",
    "arn:aws:kms::111122223333:key/1234",
    "arn::kms:us-east-1:111122223333:key/1234",
    "arn:aws:s3:us-east-1:111122223333:key/1234",
    "aws:kms:us-east-1:111122223333:key/1234",
    "arn:aws:kms:us-east-1:111122223333:key/12:34",
    "arn:aws:kms:us-east-1@evil.example:111122223333:key/1234",
    "arn:aws:kms:us-east-1/x:111122223333:key/1234",
    KEY + "\n",
    " " + KEY,
    KEY + "x" * 2048,
]


@pytest.mark.parametrize(
    "text", [KEY, MRK_EAST, "arn:aws-us-gov:kms:us-gov-west-1:1:key/a/b", KEY.replace("key/", "alias/")]
)
def test_parse_then_print_is_the_identity(text: str) -> None:
    assert str(parse_kms_arn(text)) == text


@pytest.mark.parametrize("text", NOT_ARNS)
def test_anything_else_is_no_kms_arn(text: str) -> None:
    assert parse_kms_arn(text) is None
    with pytest.raises(ConfigurationError, match="not a KMS key ARN"):
        configured_key_arn(text)
    with pytest.raises(FormatError, match="provider info"):
        key_arn_of_message(text.encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_provider_info_is_a_key_arn_or_a_format_error(provider_info: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert str(key_arn_of_message(provider_info)).encode() == provider_info


def test_an_alias_is_not_pinned_and_not_taken_from_a_message() -> None:
    alias = "arn:aws:kms:us-east-1:111122223333:alias/phi"
    for text in (alias, "alias/phi"):
        with pytest.raises(ConfigurationError, match="from_alias"):
            configured_key_arn(text)
    with pytest.raises(FormatError):
        key_arn_of_message(alias.encode())


def test_a_bare_key_id_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigurationError, match="describe-key"):
        configured_key_arn("1234abcd-12ab-34cd-56ef-1234567890ab")


def test_something_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not bytes"):
        configured_key_arn(KEY.encode())


def test_only_keys_whose_id_begins_with_mrk_are_multi_region() -> None:
    assert parse_kms_arn(MRK_EAST).is_multi_region
    assert not parse_kms_arn(KEY).is_multi_region
    assert not parse_kms_arn(MRK_EAST.replace("key/", "alias/")).is_multi_region


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (KEY, KEY, True),
        (MRK_EAST, MRK_WEST, True),
        (KEY, KEY.replace("us-east-1", "us-west-2"), False),
        (MRK_EAST, MRK_WEST.replace("111122223333", "444455556666"), False),
        (MRK_EAST, MRK_WEST.replace("arn:aws:", "arn:aws-cn:"), False),
        (MRK_EAST, MRK_WEST + "0", False),
        (MRK_EAST, KEY, False),
        (MRK_EAST.replace("key/", "alias/"), MRK_WEST.replace("key/", "alias/"), False),
    ],
)
def test_replicas_of_one_multi_region_key_match_and_nothing_else_does(one: str, other: str, same: bool) -> None:
    assert parse_kms_arn(one).is_same_key_as(parse_kms_arn(other)) is same
    assert parse_kms_arn(other).is_same_key_as(parse_kms_arn(one)) is same
