"""Every operation and input member of botocore's S3 model is classed."""

from __future__ import annotations

import botocore.session
import pytest
from botocore import xform_name

from phicrypt.errors import UnsupportedOperationError
from phicrypt.s3.operations import OPERATIONS, Treatment, check_members

MODEL = botocore.session.get_session().get_service_model("s3")
BY_METHOD = {xform_name(name): MODEL.operation_model(name) for name in MODEL.operation_names}


def test_rule_17_every_operation_of_the_model_is_classed() -> None:
    assert set(BY_METHOD) - set(OPERATIONS) == set()


@pytest.mark.parametrize("name", sorted(BY_METHOD))
def test_rule_17_every_input_member_is_classed(name: str) -> None:
    operation = OPERATIONS[name]
    if operation.treatment is Treatment.REFUSED:
        assert operation.reason
        return
    shape = BY_METHOD[name].input_shape
    assert set(shape.members if shape is not None else ()) - operation.members == set()


def test_a_member_has_one_class_only() -> None:
    for operation in OPERATIONS.values():
        classes = (operation.forwarded, operation.handled, frozenset(operation.refused))
        assert sum(map(len, classes)) == len(operation.members)


def test_operations_with_a_streaming_body_are_never_harmless() -> None:
    for name, model in BY_METHOD.items():
        if model.has_streaming_input or model.has_streaming_output or model.has_event_stream_output:
            assert OPERATIONS[name].treatment is not Treatment.HARMLESS, name


def test_forwarded_members_hold_no_body_nor_checksum_of_it() -> None:
    for name, operation in OPERATIONS.items():
        if operation.treatment is Treatment.ENCRYPTED and "Body" in operation.handled:
            assert not {"Body", "ContentMD5", "ContentLength"} & operation.forwarded, name
            assert not [member for member in operation.forwarded if member.startswith("ChecksumS")], name


def test_rule_17_an_unknown_member_is_refused_before_the_network() -> None:
    with pytest.raises(UnsupportedOperationError, match="NewMember"):
        check_members("delete_object", {"Bucket": "b", "Key": "k", "NewMember": "x"})


@pytest.mark.parametrize("member", ["ContentMD5", "ChecksumSHA256", "ChecksumCRC32", "WriteOffsetBytes"])
def test_rule_17_checksums_of_plaintext_and_appends_are_refused(member: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=member):
        check_members("put_object", {"Bucket": "b", "Key": "k", member: "x"})
