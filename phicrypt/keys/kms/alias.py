"""What an alias names at this moment."""

from __future__ import annotations

from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.calls import call_kms
from phicrypt.keys.kms.clients import KmsClients


def key_arn_of_alias(clients: KmsClients, alias: str, region: str | None) -> str:
    """The ARN of the alias's symmetric encryption key, by DescribeKey.

    Raises ConfigurationError for anything but an alias, and for a key that cannot wrap data keys;
    KeyAccessError if KMS refuses.
    """
    arn = parse_kms_arn(alias)
    if not alias.startswith("alias/") and (arn is None or arn.resource_type != "alias"):
        raise ConfigurationError(f"{alias!r} is no alias; an alias is alias/<name> or an alias ARN")
    where = arn.region if arn is not None else region or clients.handed_region
    if where is None:
        raise ConfigurationError(f"the alias {alias!r} needs a Region: give region= or client=")
    clients.check_region(where)
    key = call_kms(clients.client(where), "DescribeKey", key_arn=alias, KeyId=alias).response["KeyMetadata"]
    if key.get("KeyUsage", "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT" or key.get("KeySpec", "SYMMETRIC_DEFAULT") != (
        "SYMMETRIC_DEFAULT"
    ):
        raise ConfigurationError(f"the alias {alias!r} names a key that is not for symmetric encryption")
    return str(key["Arn"])
