"""The account behind the strict KMS: keys, denials, faults, and one method per KMS operation."""

from __future__ import annotations

import base64
import itertools
import json
import os
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ACCOUNT_ID = "111122223333"
MAX_CONTEXT_CHARACTERS = 8192
_BLOB_HEAD = b"STRICT-KMS-1\x00"


class KmsError(Exception):
    """An AWS error answer."""

    def __init__(self, code: str, message: str | None = None, *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.text = message
        self.status = status


@dataclass
class KeyRecord:
    """One KMS key in one Region; replicas share ``materials`` and the ``key_pair`` of an asymmetric key."""

    key_id: str
    region: str
    materials: list[tuple[str, bytes]]
    usage: str = "ENCRYPT_DECRYPT"
    spec: str = "SYMMETRIC_DEFAULT"
    state: str = "Enabled"
    is_multi_region: bool = False
    description: str = ""
    key_pair: Any = None
    created: float = field(default_factory=time.time)
    last_use: dict[str, Any] = field(default_factory=dict)
    """Of the last cryptographic operation that succeeded, as GetKeyLastUsage gives it."""

    @property
    def arn(self) -> str:
        return f"arn:aws:kms:{self.region}:{ACCOUNT_ID}:key/{self.key_id}"


@dataclass
class Request:
    """One request as the server saw it, and what it answered."""

    operation: str
    region: str
    parameters: dict[str, Any]
    user_agent: str
    access_key_id: str
    time: float
    request_id: str
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Of the event in CloudTrail."""
    status: int = 0
    error_code: str | None = None

    @property
    def grant_tokens(self) -> list[str]:
        return list(self.parameters.get("GrantTokens", []))


@dataclass
class Fault:
    """Answers that differ from the rule, the next ``times`` times that a request matches."""

    error: KmsError | None
    times: float = 1
    operation: str | None = None
    region: str | None = None
    key_arn: str | None = None
    alter: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    hang_seconds: float = 0.0
    drop: bool = False

    def matches(self, request: Request) -> bool:
        return (
            self.times > 0
            and self.operation in (None, request.operation)
            and self.region in (None, request.region)
            and self.key_arn in (None, request.parameters.get("KeyId"))
        )


@dataclass(eq=False)
class Denial:
    """A deny of a policy: on a key, an operation, a caller, or by a condition on the parameters."""

    key_arn: str | None = None
    operation: str | None = None
    access_key_id: str | None = None
    when: Callable[[dict[str, Any]], bool] | None = None


@dataclass
class Account:
    """Everything the account holds, whatever the Region."""

    keys: dict[tuple[str, str], KeyRecord] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    grants: dict[str, tuple[str, str]] = field(default_factory=dict)
    denials: list[Denial] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def find(self, identifier: str, region: str) -> KeyRecord:
        """The key that an ARN, id or alias names in this Region; NotFoundException as AWS words it."""
        name = identifier
        if identifier.startswith("arn:"):
            parts = identifier.split(":", 5)
            if len(parts) != 6 or parts[2] != "kms":
                raise KmsError("InvalidArnException", f"Invalid arn {identifier}")
            if parts[3] != region:
                raise KmsError("NotFoundException", f"Invalid arn {parts[3]}")
            name = parts[5].removeprefix("key/")
        if name.startswith("alias/"):
            target = self.aliases.get((region, name))
            if target is None:
                raise KmsError("NotFoundException", f"Alias {identifier} is not found.")
            name = target
        record = self.keys.get((region, name))
        if record is None or (identifier.startswith("arn:") and f":{ACCOUNT_ID}:" not in identifier):
            raise KmsError("NotFoundException", f"Key '{identifier}' does not exist")
        return record

    def authorize(self, request: Request, key: KeyRecord | None) -> None:
        """AccessDeniedException where a denial matches and no grant token lifts it."""
        for denial in self.denials:
            if (
                (denial.key_arn is None or (key is not None and denial.key_arn == key.arn))
                and denial.operation in (None, request.operation)
                and denial.access_key_id in (None, request.access_key_id)
                and (denial.when is None or denial.when(request.parameters))
            ):
                granted = {self.grants.get(token) for token in request.grant_tokens}
                if key is not None and (key.arn, request.operation) in granted:
                    continue
                raise KmsError(
                    "AccessDeniedException",
                    f"User: arn:aws:iam::{ACCOUNT_ID}:user/{request.access_key_id} is not authorized to perform: "
                    f"kms:{request.operation} on resource: {key.arn if key else '*'} with an explicit deny in a "
                    "resource-based policy",
                )
        for token in request.grant_tokens:
            if token not in self.grants:
                raise KmsError("InvalidGrantTokenException", "Invalid grant token")


class Operations:
    """KMS's operations over an account. Each method takes the request, gives the answer's members."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.used: list[KeyRecord] = []
        """The keys of the request that is being answered."""

    def usable(self, request: Request, identifier: str, usage: str = "ENCRYPT_DECRYPT") -> KeyRecord:
        """The key, after the checks that every cryptographic operation makes, in AWS's order."""
        key = self.account.find(identifier, request.region)
        self.account.authorize(request, key)
        if key.state == "Disabled":
            raise KmsError("DisabledException", f"{key.arn} is disabled.")
        if key.state == "Unavailable":
            raise KmsError("KeyUnavailableException", f"{key.arn} is unavailable.", status=500)
        if key.state != "Enabled":
            words = {"PendingDeletion": "pending deletion", "PendingImport": "pending import"}
            raise KmsError("KMSInvalidStateException", f"{key.arn} is {words.get(key.state, key.state)}.")
        if key.usage != usage:
            raise KmsError(
                "InvalidKeyUsageException",
                f"{key.arn} key usage is {key.usage} which is not valid for {request.operation}.",
            )
        if request.parameters.get("DryRun"):
            raise KmsError(
                "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."
            )
        self.used.append(key)
        return key

    def CreateKey(self, request: Request) -> dict[str, Any]:
        return self.create_key(request, None)

    def create_key(self, request: Request, private_key: Any) -> dict[str, Any]:
        p = request.parameters
        is_multi_region = bool(p.get("MultiRegion"))
        key_id = f"mrk-{uuid.uuid4().hex}" if is_multi_region else str(uuid.uuid4())
        key = KeyRecord(
            key_id,
            request.region,
            [(os.urandom(32).hex(), os.urandom(32))],
            usage=p.get("KeyUsage", "ENCRYPT_DECRYPT"),
            spec=p.get("KeySpec", "SYMMETRIC_DEFAULT"),
            is_multi_region=is_multi_region,
            description=p.get("Description", ""),
        )
        key.key_pair = private_key or self.new_key_pair(key.spec)
        self.account.keys[request.region, key_id] = key
        return {"KeyMetadata": self._metadata(key)}

    def new_key_pair(self, spec: str) -> Any:
        """The private key of a new asymmetric key; None for a symmetric one."""
        return None

    def ReplicateKey(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["KeyId"], request.region)
        if not key.is_multi_region:
            raise KmsError("UnsupportedOperationException", "The key is not a multi-Region key.")
        copy = replace(key, region=request.parameters["ReplicaRegion"], state="Enabled")
        self.account.keys[copy.region, copy.key_id] = copy
        return {"ReplicaKeyMetadata": self._metadata(copy)}

    def DescribeKey(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["KeyId"], request.region)
        self.account.authorize(request, key)
        return {"KeyMetadata": self._metadata(key)}

    def CreateAlias(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["TargetKeyId"], request.region)
        self.account.aliases[request.region, request.parameters["AliasName"]] = key.key_id
        return {}

    UpdateAlias = CreateAlias

    def DisableKey(self, request: Request) -> dict[str, Any]:
        self.account.find(request.parameters["KeyId"], request.region).state = "Disabled"
        return {}

    def EnableKey(self, request: Request) -> dict[str, Any]:
        self.account.find(request.parameters["KeyId"], request.region).state = "Enabled"
        return {}

    def ScheduleKeyDeletion(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["KeyId"], request.region)
        key.state = "PendingDeletion"
        days = request.parameters.get("PendingWindowInDays", 30)
        return {"KeyId": key.arn, "KeyState": key.state, "DeletionDate": time.time() + 86400 * days}

    def CancelKeyDeletion(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["KeyId"], request.region)
        key.state = "Disabled"
        return {"KeyId": key.arn}

    def GenerateDataKey(self, request: Request) -> dict[str, Any]:
        key = self.usable(request, request.parameters["KeyId"])
        plaintext = os.urandom(self._number_of_bytes(request))
        return {
            "CiphertextBlob": self._seal(key, plaintext, request.parameters.get("EncryptionContext", {})),
            "Plaintext": _b64(plaintext),
            "KeyId": key.arn,
            "KeyMaterialId": key.materials[-1][0],
        }

    def GenerateDataKeyWithoutPlaintext(self, request: Request) -> dict[str, Any]:
        answer = self.GenerateDataKey(request)
        del answer["Plaintext"]
        return answer

    def Encrypt(self, request: Request) -> dict[str, Any]:
        key = self.usable(request, request.parameters["KeyId"])
        plaintext = base64.b64decode(request.parameters["Plaintext"])
        if not 0 < len(plaintext) <= 4096:
            raise KmsError("ValidationException", "1 validation error detected: Value at 'plaintext' …")
        return {
            "CiphertextBlob": self._seal(key, plaintext, request.parameters.get("EncryptionContext", {})),
            "KeyId": key.arn,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def Decrypt(self, request: Request) -> dict[str, Any]:
        p = request.parameters
        if p.get("DryRun") and "IGNORE_CIPHERTEXT" in p.get("DryRunModifiers", ()):
            self.usable(request, p["KeyId"])  # which ends a dry run that is allowed
        key, plaintext, material_id = self._opened(
            request, p["CiphertextBlob"], p.get("KeyId"), p.get("EncryptionContext", {})
        )
        return {
            "KeyId": key.arn,
            "Plaintext": _b64(plaintext),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyMaterialId": material_id,
        }

    def ReEncrypt(self, request: Request) -> dict[str, Any]:
        p = request.parameters
        # IAM knows no kms:ReEncrypt: the caller needs ReEncryptFrom on one key and ReEncryptTo on the other.
        source, plaintext, _ = self._opened(
            replace(request, operation="ReEncryptFrom"),
            p["CiphertextBlob"],
            p.get("SourceKeyId"),
            p.get("SourceEncryptionContext", {}),
        )
        key = self.usable(replace(request, operation="ReEncryptTo"), p["DestinationKeyId"])
        return {
            "CiphertextBlob": self._seal(key, plaintext, p.get("DestinationEncryptionContext", {})),
            "SourceKeyId": source.arn,
            "KeyId": key.arn,
            "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _opened(
        self, request: Request, ciphertext_base64: str, key_id: str | None, context: dict[str, str]
    ) -> tuple[KeyRecord, bytes, str]:
        _check_context(context)
        blob = base64.b64decode(ciphertext_base64)
        try:
            owner, material_index, iv, sealed = _parse_blob(blob)
        except ValueError:
            owner = None
        if owner is None and key_id is None:
            raise KmsError("InvalidCiphertextException")
        key = self.usable(request, key_id or str(owner))
        if owner is None:
            raise KmsError("InvalidCiphertextException")
        if owner != key.key_id:
            raise KmsError(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
        try:
            material_id, material = key.materials[material_index]
            plaintext = AESGCM(material).decrypt(iv, sealed, _canonical(context))
        except (InvalidTag, IndexError):
            raise KmsError("InvalidCiphertextException") from None
        return key, plaintext, material_id

    def _seal(self, key: KeyRecord, plaintext: bytes, context: dict[str, str]) -> str:
        _check_context(context)
        iv = os.urandom(12)
        sealed = AESGCM(key.materials[-1][1]).encrypt(iv, plaintext, _canonical(context))
        owner = key.key_id.encode()
        head = _BLOB_HEAD + struct.pack(">BH", len(owner), len(key.materials) - 1)
        return _b64(head + owner + iv + sealed)

    def _number_of_bytes(self, request: Request) -> int:
        p = request.parameters
        if ("KeySpec" in p) == ("NumberOfBytes" in p):
            raise KmsError("ValidationException", "Please specify either number of bytes or key spec.")
        size = p.get("NumberOfBytes") or {"AES_256": 32, "AES_128": 16}[p["KeySpec"]]
        if not 1 <= size <= 1024:
            raise KmsError("ValidationException", "1 validation error detected: Value at 'numberOfBytes' …")
        return int(size)

    def _metadata(self, key: KeyRecord) -> dict[str, Any]:
        return {
            "AWSAccountId": ACCOUNT_ID,
            "KeyId": key.key_id,
            "Arn": key.arn,
            "Enabled": key.state == "Enabled",
            "KeyState": key.state,
            "KeyUsage": key.usage,
            "KeySpec": key.spec,
            "Description": key.description,
            "MultiRegion": key.is_multi_region,
            "CurrentKeyMaterialId": key.materials[-1][0],
        }


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _canonical(context: dict[str, str]) -> bytes:
    return json.dumps(sorted(context.items())).encode()


def _check_context(context: dict[str, str]) -> None:
    if sum(map(len, itertools.chain.from_iterable(context.items()))) > MAX_CONTEXT_CHARACTERS:
        raise KmsError("ValidationException", "1 validation error detected: Value at 'encryptionContext' …")


def _parse_blob(blob: bytes) -> tuple[str, int, bytes, bytes]:
    if not blob.startswith(_BLOB_HEAD) or len(blob) < len(_BLOB_HEAD) + 3:
        raise ValueError
    length, material_index = struct.unpack_from(">BH", blob, len(_BLOB_HEAD))
    start = len(_BLOB_HEAD) + 3
    owner = blob[start : start + length].decode("ascii")
    iv = blob[start + length : start + length + 12]
    sealed = blob[start + length + 12 :]
    if len(iv) != 12 or len(sealed) < 16:
        raise ValueError
    return owner, material_index, iv, sealed
