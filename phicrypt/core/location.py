"""The pair that binds a message to the place it was written to (rule 9).

``phicrypt-location`` is the base64 of SHA-256 over::

    domain tag               "phicrypt/s3/location/v1", ASCII
    length of logical bucket  4 bytes, big-endian
    logical bucket            UTF-8
    length of object key      4 bytes, big-endian
    object key                exact UTF-8, not normalized

It stands in the encryption context, so moving or swapping objects in a bucket makes them
unreadable. The hash hides no guessable name: whoever reads it can confirm a guess.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Final

from phicrypt.errors import ConfigurationError

LOCATION_NAME: Final = "phicrypt-location"
_DOMAIN_TAG: Final = b"phicrypt/s3/location/v1"


def location_pair(bucket: str, object_key: str, logical_buckets: Mapping[str, str]) -> dict[str, str]:
    """The one context pair for an object of a physical bucket, access point name or ARN."""
    fields: tuple[bytes, ...] = ()
    # Suppressed first: Python's own error holds the object key, and would stay with ours as its context.
    with contextlib.suppress(UnicodeEncodeError):
        fields = (logical_buckets.get(bucket, bucket).encode(), object_key.encode())
    if not fields:
        raise ConfigurationError("bucket and object key must be valid Unicode text")
    digest = hashlib.sha256(_DOMAIN_TAG)
    for field in fields:
        digest.update(len(field).to_bytes(4, "big"))
        digest.update(field)
    return {LOCATION_NAME: base64.b64encode(digest.digest()).decode()}
