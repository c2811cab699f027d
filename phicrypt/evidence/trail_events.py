"""CloudTrail's records as values: what a KMS call was, who made it, and with which keys."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from phicrypt.audit.events import parse_time

KMS_SOURCE: Final = "kms.amazonaws.com"
USING_OPERATIONS: Final = frozenset(
    {
        "Decrypt",
        "DeriveSharedSecret",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "GenerateMac",
        "ReEncrypt",
        "Sign",
        "Verify",
        "VerifyMac",
    }
)
"""KMS operations that use a key; everything else administers or describes one."""
_DESCRIBING: Final = re.compile(r"(Describe|List|Get)[A-Z]")
_CORRELATION: Final = re.compile(r"\bphicrypt-id/([0-9a-f]{32})\b")
_KEY_ARN: Final = re.compile(r"arn:aws[a-z-]{0,16}:kms:[a-z0-9-]{1,32}:\d{12}:key/[0-9a-zA-Z-]{1,64}")


class TrailEvent(NamedTuple):
    """One KMS record of CloudTrail; text fields are empty where CloudTrail has none.

    Attributes:
        event_id: unique; the same record may be delivered twice under one id.
        time_ns: when KMS handled the call, in whole seconds.
        name: the operation, such as ``"Decrypt"``.
        request_id: KMS's request id.
        key_arn: the key that was used.
        principal: ARN of the caller; the account of a key does not learn that of another account's.
        issuer: ARN of the role behind an assumed-role session.
        source_identity: as set with the session.
        invoked_by: the AWS service that called on somebody's behalf.
        user_agent, source_ip, error_code, account, region: as CloudTrail has them.
        correlation_id: from phicrypt's part of the user agent.
        context: the encryption context.
        other_key_arns: further keys of the same call: ReEncrypt opens under one and seals under another.
        shared_event_id: of a key in another account, that account and the caller's have a record each,
            under one shared id.
        is_network: a call as a VPC endpoint saw it (``AwsVpceEvent``), beside KMS's own record of it.
        sha256: of the record's members in one order, to tell a second delivery from another record.
        key_exchange: of the call's TLS connection (``tlsDetails``), such as ``"X25519MLKEM768"``.
    """

    event_id: str
    time_ns: int
    name: str
    request_id: str
    key_arn: str
    principal: str
    issuer: str
    source_identity: str
    invoked_by: str
    user_agent: str
    source_ip: str
    error_code: str
    account: str
    region: str
    correlation_id: str
    context: Mapping[str, str]
    other_key_arns: tuple[str, ...] = ()
    shared_event_id: str = ""
    is_network: bool = False
    sha256: bytes = b""
    key_exchange: str = ""

    @property
    def is_use(self) -> bool:
        """Whether the operation uses a key; of one without a name nobody can say that it does not."""
        return self.name in USING_OPERATIONS or not self.name

    @property
    def is_description(self) -> bool:
        """Whether the operation only reads."""
        return _DESCRIBING.match(self.name) is not None


def _time_ns(record: dict[str, Any]) -> int:
    with suppress(KeyError, TypeError, ValueError):
        return parse_time(record["eventTime"])
    raise ValueError("no valid eventTime")


def parse_record(record: Any) -> TrailEvent | None:
    """A record of CloudTrail as a value; None for another service's.

    Raises ValueError, saying what is wrong, for one that is not CloudTrail's, of an unknown version, or with
    a member of another kind than CloudTrail gives it. Missing members, and null, are nothing unusual.
    """
    if not isinstance(record, dict) or not isinstance(record.get("eventVersion"), str):
        raise ValueError("not a CloudTrail record")
    if record["eventVersion"].partition(".")[0] != "1":
        raise ValueError("unknown CloudTrail version")
    if _text(record, "eventSource") != KMS_SOURCE:
        return None
    identity = _object(record, "userIdentity")
    session = _object(identity, "sessionContext")
    parameters = _object(record, "requestParameters")
    user_agent = _text(record, "userAgent")
    correlation = _CORRELATION.search(user_agent)
    time_ns = _time_ns(record)
    context = _object(parameters, "encryptionContext")
    key_arn = _key_arn(record, parameters)
    return TrailEvent(
        _text(record, "eventID"),
        time_ns,
        _text(record, "eventName"),
        _text(record, "requestID"),
        key_arn,
        _text(identity, "arn"),
        _text(_object(session, "sessionIssuer"), "arn"),
        _text(session, "sourceIdentity"),
        _text(identity, "invokedBy"),
        user_agent,
        _text(record, "sourceIPAddress"),
        _text(record, "errorCode"),
        _text(record, "recipientAccountId"),
        _text(record, "awsRegion"),
        correlation[1] if correlation else "",
        {printable(str(name)): printable(str(value)) for name, value in context.items()},
        tuple(arn for arn in _all_key_arns(record, parameters) if arn != key_arn),
        _text(record, "sharedEventID"),
        _text(record, "eventCategory") == "NetworkActivity" or _text(record, "eventType") == "AwsVpceEvent",
        hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest(),
        _text(_object(record, "tlsDetails"), "keyExchange"),
    )


def is_principal(expected: str, record: TrailEvent) -> bool:
    """Whether the record's caller is this principal: a user, a role, or one session of a role."""
    return bool(expected) and expected in (record.principal, record.issuer)


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A member that may be missing or null; of another kind it says something that nobody judged."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _text(parent: Mapping[str, Any], name: str) -> str:
    value = parent.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return printable(value)


def _resources(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    resources = record.get("resources")
    if resources is None:
        return []
    if not isinstance(resources, list) or not all(isinstance(resource, dict) for resource in resources):
        raise ValueError("resources is no list of objects")
    return resources


def printable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and nothing can print or store."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _key_arn(record: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    answer = _object(record, "responseElements")
    for resource in _resources(record):
        if ":kms:" in (arn := _text(resource, "ARN") or _text(resource, "arn")):
            return arn
    named = _text(answer, "keyId") or _text(parameters, "keyId")
    if named.startswith("arn:"):
        return named
    # Of a denied call CloudTrail often has neither resources nor parameters, only its text.
    in_text = _KEY_ARN.search(_text(record, "errorMessage")[:4_096])
    return in_text[0] if in_text else named


def _all_key_arns(record: Mapping[str, Any], parameters: Mapping[str, Any]) -> set[str]:
    arns = {_text(resource, "ARN") or _text(resource, "arn") for resource in _resources(record)}
    arns |= {_text(parameters, name) for name in ("sourceKeyId", "destinationKeyId")}
    return {arn for arn in arns if _KEY_ARN.fullmatch(arn)}


def same_key_everywhere(key_arn: str) -> str:
    """One name for all replicas of a multi-Region key; other ARNs as they are."""
    if ":key/mrk-" not in key_arn:
        return key_arn
    before, _, after = key_arn.partition(":kms:")
    return f"{before}:kms:*:{after.partition(':')[2]}"
