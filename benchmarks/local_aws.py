"""``python -m benchmarks.local_aws``: moto until stdin closes; prints its endpoint and a KMS key's ARN."""

from __future__ import annotations

import json
import sys

from phicrypt.testing import local_aws

if __name__ == "__main__":
    with local_aws() as aws:
        print(json.dumps({"endpoint_url": aws.endpoint_url, "kms_key_arn": aws.kms_key_arn}), flush=True)
        sys.stdin.read()
