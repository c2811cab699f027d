"""Listings: boto3's pages and paginators, and plaintext lengths on request."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from phicrypt.errors import PhiCryptError
from phicrypt.s3.gateway import Gateway
from phicrypt.s3.reading.get import head_object

_CONCURRENCY: Final = 10


def with_plaintext_sizes(gateway: Gateway, parameters: Mapping[str, Any], page: dict[str, Any]) -> dict[str, Any]:
    """The page with ``PlaintextSize`` where the object's metadata or header tells it; a claim (rule 10)."""
    shared = {name: parameters[name] for name in ("RequestPayer", "ExpectedBucketOwner") if name in parameters}

    def size_of(entry: Mapping[str, Any]) -> int | None:
        from botocore.exceptions import ClientError

        pinned = {"Bucket": parameters["Bucket"], "Key": entry["Key"], "IfMatch": entry["ETag"], **shared}
        try:
            length: int = head_object(gateway, pinned)["ContentLength"]
        except (PhiCryptError, ClientError):
            return None  # plaintext, another format, replaced since, or not readable for this caller
        return length

    entries = page.get("Contents", [])
    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="phicrypt-list") as pool:
        for entry, size in zip(entries, pool.map(size_of, entries), strict=True):
            if size is not None:
                entry["PlaintextSize"] = size
                entry["PlaintextSizeVerified"] = False
    return page
