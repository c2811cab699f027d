"""Manifests and fingerprints by themselves: bounds, and what is no descriptor."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.manifests import (
    MAX_MANIFEST_ENTRIES,
    MAX_MANIFEST_LENGTH_BYTES,
    read_manifest,
    write_manifest,
)
from phicrypt.formats.signatures import Fingerprint, descriptor, fingerprint, read_descriptor

ONE = fingerprint("result-1", b"result", "sha256")


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("source", [b"result", bytearray(b"result"), memoryview(b"result"), io.BytesIO(b"result")])
def test_a_fingerprint_is_digest_and_length_of_any_source(source: Any, digest: str) -> None:
    if isinstance(source, io.BytesIO):
        source.seek(0)
    expected = Fingerprint("result-1", digest, hashlib.new(digest, b"result").digest(), 6)
    assert fingerprint("result-1", source, digest) == expected


@pytest.mark.parametrize(("name", "digest"), [("", "sha256"), (None, "sha256"), ("x", "md5"), ("x", "")])
def test_a_fingerprint_needs_a_name_and_a_digest_of_ours(name: Any, digest: str) -> None:
    with pytest.raises(ConfigurationError):
        fingerprint(name, b"", digest)


def test_a_manifest_is_read_back() -> None:
    entries = (ONE, fingerprint("result-2", b"", "sha512"))
    assert read_manifest(write_manifest(entries)) == entries


def test_a_manifest_is_bounded() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        write_manifest([])
    with pytest.raises(ConfigurationError, match="each name once"):
        write_manifest([ONE, ONE])
    with pytest.raises(LimitExceededError) as caught:
        write_manifest([ONE] * (MAX_MANIFEST_ENTRIES + 1))
    assert (caught.value.limit, caught.value.actual) == (MAX_MANIFEST_ENTRIES, MAX_MANIFEST_ENTRIES + 1)
    with pytest.raises(LimitExceededError) as caught:
        read_manifest(b" " * (MAX_MANIFEST_LENGTH_BYTES + 1))
    assert caught.value.limit == MAX_MANIFEST_LENGTH_BYTES


def changed(**members: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(descriptor(ONE))), **members}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (changed(name=""), "name"),
        (changed(name=7), "name"),
        (changed(digest={}), "digest"),
        (changed(digest={"md5": "00"}), "digest"),
        (changed(digest={"sha256": "no hexadecimal"}), "digest"),
        (changed(digest={"sha256": "00"}), "digest"),
        (changed(annotations={}), "length"),
        (changed(annotations={"length": -1}), "length"),
        (changed(annotations={"length": True}), "length"),
        ([], "entry"),
    ],
)
def test_what_is_no_descriptor_is_refused_by_field(value: Any, field: str) -> None:
    assert read_descriptor(changed(), "entry") == ONE
    with pytest.raises(FormatError) as caught:
        read_descriptor(value, "entry")
    assert field in str(caught.value)


@pytest.mark.parametrize("resources", [None, [], {}, [descriptor(ONE), descriptor(ONE)]])
def test_what_is_no_list_of_resources_is_refused(resources: Any) -> None:
    with pytest.raises(FormatError, match="resources"):
        read_manifest(json.dumps({"resources": resources}).encode())
