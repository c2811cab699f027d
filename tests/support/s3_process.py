"""A process that uploads or downloads and can be killed; started by ``test_s3_interrupted.py``.

Arguments: endpoint URL, bucket, object key, "upload" or "download", path.
"""

from __future__ import annotations

import sys
from typing import Any

import boto3
from botocore.config import Config

from phicrypt import PhiCrypt, RawAesKeyring

PART = 5 * 1024**2
LENGTH = 6 * PART + 17


def raw_client(endpoint_url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="local-stack-has-no-secrets",
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def main() -> None:
    endpoint_url, bucket, name, action, path = sys.argv[1:]
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))))
    s3 = phi.s3(raw_client(endpoint_url), part_size_bytes=PART)
    print("ready", flush=True)
    if action == "upload":
        s3.upload_file(path, bucket, name)
    else:
        s3.download_file(bucket, name, path)
    print("done", flush=True)


if __name__ == "__main__":
    main()
