"""KMS key ARNs, and when one multi-Region key stands for another.

``framework/aws-kms/aws-kms-key-arn.md`` and ``aws-kms-mrk-match-for-decrypt.md``::

    arn:<partition>:kms:<Region>:<account>:key/<key id>        a key
    arn:<partition>:kms:<Region>:<account>:key/mrk-<32 hex>    a multi-Region key
    arn:<partition>:kms:<Region>:<account>:alias/<name>        an alias
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from phicrypt.errors import ConfigurationError, FormatError

_ARN: Final = re.compile(
    r"arn:(?P<partition>[a-z0-9-]+):kms:(?P<region>[a-z0-9-]+):(?P<account>[A-Za-z0-9-]+)"
    r":(?P<resource_type>key|alias)/(?P<resource_id>[A-Za-z0-9/_.+=,@-]+)"
)
"""Stricter than the specification in the characters, because a Region of a message becomes a host name."""
_MAX_ARN_LENGTH: Final = 2048


@dataclass(frozen=True, slots=True)
class KmsArn:
    """The parts of a KMS ARN; ``str()`` gives it back."""

    partition: str
    region: str
    account: str
    resource_type: str
    resource_id: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:{self.resource_type}/{self.resource_id}"

    @property
    def is_multi_region(self) -> bool:
        """Whether this is a multi-Region key; an alias never is, whatever its name."""
        return self.resource_type == "key" and self.resource_id.startswith("mrk-")

    def in_region(self, region: str) -> KmsArn:
        """The replica of a multi-Region key in another Region."""
        return replace(self, region=region)

    def is_same_key_as(self, other: KmsArn) -> bool:
        """Identical ARNs, or replicas of one multi-Region key (MRK match for decrypt)."""
        if self == other:
            return True
        return self.is_multi_region and other.is_multi_region and self.in_region(other.region) == other


def parse_kms_arn(text: str) -> KmsArn | None:
    """The parts of a KMS key or alias ARN; None for anything else."""
    found = _ARN.fullmatch(text) if len(text) <= _MAX_ARN_LENGTH else None
    return KmsArn(**found.groupdict()) if found else None


def configured_key_arn(text: object) -> KmsArn:
    """A key ARN from the caller; raises ConfigurationError that says what to give instead."""
    if not isinstance(text, str):
        raise ConfigurationError(f"a KMS key ARN is text, not {type(text).__name__}")
    arn = parse_kms_arn(text)
    if arn is not None and arn.resource_type == "key":
        return arn
    if text.startswith("alias/") or (arn is not None and arn.resource_type == "alias"):
        raise ConfigurationError(
            f"{text!r} is an alias: whoever may change it chooses the key. Give the key ARN, or let "
            "KmsKeyring.from_alias() resolve the alias once"
        )
    raise ConfigurationError(
        f"{text!r} is not a KMS key ARN (arn:aws:kms:<Region>:<account>:key/<key id>); a bare key id leaves "
        "account and Region open. `aws kms describe-key` shows the ARN"
    )


def key_arn_of_message(provider_info: bytes) -> KmsArn:
    """The key ARN in an ``aws-kms`` encrypted data key; raises FormatError for anything else."""
    try:
        arn = parse_kms_arn(provider_info.decode("ascii"))
    except UnicodeDecodeError:
        arn = None
    if arn is None or arn.resource_type != "key":
        raise FormatError(
            "an aws-kms encrypted data key names its KMS key by ARN; this one does not",
            field="encrypted data key provider info",
        )
    return arn
