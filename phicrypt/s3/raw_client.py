"""The boto3 client under an encrypted one."""

from __future__ import annotations

from typing import Any

from phicrypt.errors import ConfigurationError
from phicrypt.s3.transfer import DEFAULT_CONCURRENCY


def raw_client(s3: Any) -> Any:
    """A boto3 client as it is, or a new one from a session, with connections enough for transfers."""
    service = getattr(getattr(s3, "meta", None), "service_model", None)
    if service is not None:
        if service.service_name != "s3":
            raise ConfigurationError(f"an S3 client was expected, one of {service.service_name} came")
        return s3
    import boto3
    from botocore.config import Config

    if s3 is None:
        s3 = boto3.Session()
    if not callable(getattr(s3, "client", None)):
        raise ConfigurationError(f"a boto3 S3 client or session was expected, not {type(s3).__name__}")
    return s3.client("s3", config=Config(max_pool_connections=2 * DEFAULT_CONCURRENCY))
