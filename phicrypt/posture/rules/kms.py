"""Rules for KMS keys. Pure: settings in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from phicrypt.posture.reading.settings import KeySettings
from phicrypt.posture.rules.findings import ACCESS, ACCESS_MANAGEMENT, ENCRYPTION, RECOVERY, Rule, Severity, Unread

_ALGORITHMS: Final = {"RSA_": "RSA", "ECC_": "elliptic curves", "SM2": "elliptic curves"}
_SEALING_USES: Final = ("ENCRYPT_DECRYPT", "KEY_AGREEMENT")
_DELETION_STATES: Final = ("PendingDeletion", "PendingReplicaDeletion")
_CUSTODY_OF_ORIGIN: Final = {"EXTERNAL": "imported", "EXTERNAL_KEY_STORE": "external"}


def _metadata(key: KeySettings) -> dict[str, Any]:
    return {} if isinstance(key.metadata, Unread) else dict(key.metadata)


def _command(key: KeySettings, verb: str, *more: str) -> str:
    return " ".join(("aws kms", verb, "--key-id", key.resource, *more, "--region", key.region))


def rotates_automatically(metadata: Mapping[str, Any]) -> bool:
    """Whether KMS rotates keys of this kind by itself: symmetric, customer managed, made by KMS."""
    return bool(
        metadata.get("KeySpec") == "SYMMETRIC_DEFAULT"
        and metadata.get("Origin") == "AWS_KMS"
        and metadata.get("KeyManager", "CUSTOMER") == "CUSTOMER"
    )


def _state(key: KeySettings) -> str | None:
    state = _metadata(key).get("KeyState")
    return None if state == "Enabled" or state in _DELETION_STATES else f"the key's state is {state}"


def _usable_again(key: KeySettings) -> str:
    if _metadata(key).get("KeyState") != "Unavailable":
        return _command(key, "enable-key")
    store = _metadata(key).get("CustomKeyStoreId", "ID")
    return f"aws kms describe-custom-key-stores --custom-key-store-id {store} --region {key.region}"


def _deletion(key: KeySettings) -> str | None:
    metadata = _metadata(key)
    if metadata.get("KeyState") not in _DELETION_STATES:
        return None
    when = metadata.get("DeletionDate")
    return f"the key will be deleted{f' on {when:%Y-%m-%d}' if hasattr(when, 'year') else ''}; its data with it"


def _rotation(key: KeySettings) -> str | None:
    assert not isinstance(key.rotation, Unread)
    return None if key.rotation.get("KeyRotationEnabled") else "automatic rotation is off"


def _public(key: KeySettings) -> str | None:
    assert not isinstance(key.policy, Unread)
    public = [statement.sid or f"number {at}" for at, statement in enumerate(key.policy) if statement.is_public]
    return f"the key policy lets everyone in: statement {', '.join(public)}" if public else None


def _unexpected_grants(key: KeySettings) -> list[Any]:
    assert not isinstance(key.grants, Unread)
    return [
        grant
        for grant in key.grants
        if grant.get("GranteePrincipal") not in key.declared.grantees
        and not str(grant.get("GranteePrincipal", "")).endswith(".amazonaws.com")
    ]


def _grants(key: KeySettings) -> str | None:
    grants = _unexpected_grants(key)
    if not grants:
        return None
    first = grants[0]
    return (
        f"{len(grants)} grant(s) to undeclared principals; the first gives {first.get('GranteePrincipal')} "
        f"{', '.join(first.get('Operations', ())) or 'nothing'}"
    )


def _second_key(key: KeySettings) -> str | None:
    metadata = _metadata(key)
    replicas = metadata.get("MultiRegionConfiguration", {})
    if replicas.get("MultiRegionKeyType") == "REPLICA" or replicas.get("ReplicaKeys"):
        return None
    if key.declared.second_key is None:
        return "no replica in another Region and no second key is declared"
    assert not isinstance(key.second_key, Unread)
    state = key.second_key.get("KeyState", "absent")
    if state != "Enabled":
        return f"the second key's state is {state}"
    if key.declared.second_key.split(":")[3] == key.region:
        return "the second key is in the same Region"
    return None


def _origin(key: KeySettings) -> str | None:
    metadata = _metadata(key)
    origin = metadata.get("Origin")
    if metadata.get("ExpirationModel") == "KEY_MATERIAL_EXPIRES":
        return "the imported key material expires; data is unreadable from then on"
    custody = "imported" if key.declared.imported else key.declared.custody
    if custody == "external" and origin != "EXTERNAL_KEY_STORE":
        return f"the key is declared to be in an external key store, and its origin is {origin}"
    if origin in ("AWS_KMS", "AWS_CLOUDHSM") or _CUSTODY_OF_ORIGIN.get(str(origin)) == custody:
        return None
    return f"the key material's origin is {origin}: its durability is your own"


def _asymmetric(key: KeySettings) -> str | None:
    spec = str(_metadata(key).get("KeySpec", "SYMMETRIC_DEFAULT"))
    algorithm = next((words for start, words in _ALGORITHMS.items() if spec.startswith(start)), None)
    if algorithm is None or key.declared.asymmetric:
        return None
    return (
        f"{spec}: what is sealed to this key opens for whoever breaks {algorithm} one day, from copies made today"
    )


RULES: Final[tuple[Rule[KeySettings], ...]] = (
    Rule(
        "kms-enabled",
        "The key can be used",
        Severity.HIGH,
        "key state Enabled",
        ("metadata",),
        _state,
        _usable_again,
        hipaa=(ENCRYPTION,),
    ),
    Rule(
        "kms-not-pending-deletion",
        "The key is not scheduled for deletion",
        Severity.CRITICAL,
        "no scheduled deletion",
        ("metadata",),
        _deletion,
        lambda key: f"{_command(key, 'cancel-key-deletion')} && {_command(key, 'enable-key')}",
        ("KMS_CMK_NOT_SCHEDULED_FOR_DELETION",),
        (ENCRYPTION, RECOVERY),
    ),
    Rule(
        "kms-rotation",
        "The key rotates every year",
        Severity.MEDIUM,
        "automatic rotation on",
        ("metadata", "rotation"),
        _rotation,
        lambda key: _command(key, "enable-key-rotation"),
        ("CMK_BACKING_KEY_ROTATION_ENABLED",),
        (ENCRYPTION,),
        applies=lambda key: rotates_automatically(_metadata(key)),
    ),
    Rule(
        "kms-no-public-policy",
        "The key policy names who may use the key",
        Severity.CRITICAL,
        "no statement that allows everyone",
        ("policy",),
        _public,
        lambda key: (
            "phicrypt policy key --declaration FILE > policy.json && "
            + _command(key, "put-key-policy", "--policy-name default", "--policy file://policy.json")
        ),
        ("KMS_KEY_POLICY_NO_PUBLIC_ACCESS",),
        (ACCESS, ACCESS_MANAGEMENT),
    ),
    Rule(
        "kms-grants",
        "Only declared principals hold grants",
        Severity.MEDIUM,
        "grants to declared principals and AWS services only",
        ("grants",),
        _grants,
        lambda key: _command(key, "revoke-grant", "--grant-id", str(_unexpected_grants(key)[0].get("GrantId"))),
        hipaa=(ACCESS_MANAGEMENT,),
    ),
    Rule(
        "kms-second-key",
        "Data survives the loss of one key or Region",
        Severity.LOW,
        "a replica in another Region, or a second key there",
        ("metadata", "second_key"),
        _second_key,
        lambda key: (
            _command(key, "replicate-key", "--replica-region OTHER-REGION")
            + "  # for a single-Region key: add a second key in another Region as a recipient and declare it"
        ),
        hipaa=(RECOVERY,),
        applies=lambda key: _metadata(key).get("KeyUsage", "ENCRYPT_DECRYPT") == "ENCRYPT_DECRYPT",
    ),
    Rule(
        "kms-origin",
        "KMS keeps the key material",
        Severity.MEDIUM,
        "origin AWS_KMS or AWS_CLOUDHSM; imported on purpose without expiry; an external key store as declared",
        ("metadata",),
        _origin,
        lambda key: (
            f"aws kms create-key --origin AWS_KMS --region {key.region}"
            "  # then encrypt under the new key; or declare who keeps it: custody"
        ),
        hipaa=(ENCRYPTION, RECOVERY),
    ),
    Rule(
        "kms-asymmetric",
        "Data is sealed under symmetric keys, or to public keys on purpose",
        Severity.LOW,
        "a symmetric key, or asymmetric = true in the declaration",
        ("metadata",),
        _asymmetric,
        lambda key: (
            f"aws kms create-key --region {key.region}"
            "  # then encrypt under the new key; or keep the recipient, and declare asymmetric = true"
        ),
        hipaa=(ENCRYPTION,),
        applies=lambda key: _metadata(key).get("KeyUsage", "ENCRYPT_DECRYPT") in _SEALING_USES,
    ),
)
