"""Every public name is classed, and the rest of what touches a key leaves its events.

The rest: local MAC keys, manifests, the keys of resource tokens, and the AWS Encryption SDK's manager.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from support.audit_events import ends_of, public_names

import phicrypt
import phicrypt.audit
import phicrypt.dynamodb
import phicrypt.recovery
import phicrypt.witness
from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditTrail, RecordingSink
from phicrypt.cli.root import COMMANDS, load_command
from phicrypt.dynamodb import TypedTable
from phicrypt.errors import KeyAccessError
from phicrypt.esdk import PhiCryptMaterialsManager
from phicrypt.s3.client import S3Client
from phicrypt.s3.operations import OPERATIONS, Treatment
from phicrypt.signatures.mac import LocalMac, Mac
from phicrypt.signatures.signer import Signer, Verifier
from phicrypt.testing import StrictKms
from phicrypt.witness import AnchoredSink, ResourceTokens

CONTEXT = {"tenant": "clinic-7"}

RECORDED_ELSEWHERE = {
    "AnchoredSink": "test_anchors.py",
    **dict.fromkeys(("CheckpointedSink", "Checkpoints", "KmsNoteKey", "LocalNoteKey"), "test_checkpoints.py"),
    "BranchKeyStore": "test_every_branch_key_operation.py",
    "DynamoDb": "test_every_operation.py and test_every_item_and_object.py",
    "PhiCrypt": "test_every_operation.py",
    "ResourceTokens": "here",
    "TypedTable": "test_every_item_and_object.py",
    **dict.fromkeys(("BreakGlass", "break_glass", "record_review"), "test_break_glass.py"),
    "rehearse": "test_cli_drill.py",
}
KEYRINGS = {
    *("HierarchicalKeyring", "KmsKeyring", "MultiKeyring", "RawAesKeyring"),
    *("KmsEcdhKeyring", "RawEcdhKeyring", "RawRsaKeyring"),
}
"""Used by a client, whose use is recorded with the calls that the keyring made."""
WITHOUT_KEYS = {
    *("ANY_CONTEXT", "AuditContext", "CachePolicy", "PhiCryptError", "Purpose"),
    *("AuditEvent", "AuditSink", "AuditTrail", "BUFFERED", "CloudWatchLogsSink", "Delivery", "JsonlSink"),
    *(
        "LoggingSink",
        "StdoutSink",
        "RecordingSink",
        "S3SegmentSink",
        "SinkError",
        "Use",
        "WRITE_THROUGH",
        "WithPolicy",
    ),
    *("acting_as", "assume_role"),
    *("DrillReport", "Sample", "digest_of", "parse_digests"),
    *("Action", "Encrypted", "KmsContextWarning", "PartitionKey", "PhiKeyNameWarning", "PhiModel"),
    *("PlaintextPolicy", "Signed", "SortKey", "TableConfig", "Unsigned", "attributes_of_context"),
    *("Beacon", "BeaconKeyByAttribute", "CompoundBeacon", "Constructor", "EncryptedPart", "OptionalPart"),
    *("IncompleteSearchWarning", "SearchConfig", "Searchable", "SignedPart", "SingleBeaconKey", "StandardBeacon"),
    *("VirtualField", "VirtualPart", "Witness"),
}
METHODS: dict[type, set[str]] = {
    AnchoredSink: {"anchor", "close", "head", "write"},
    LocalMac: {"generate", "tokens", "verify", "purpose"},
    Mac: {"generate", "verify", "local", "new_local_key", "key_arn"},
    PhiCryptMaterialsManager: {"get_encryption_materials", "decrypt_materials"},
    ResourceTokens: {"create", "load", "rotate"} | {"token", "all_tokens"},  # tokens are of the events themselves
    Signer: {"sign", "verify", "sign_manifest", "verify_manifest"}
    | {"algorithm", "key_arn", "public_key_der", "verifier"},
    TypedTable: {"delete", "get", "put", "query", "scan", "set_unsigned", "update"}
    | {"find", "find_one"}  # in dynamodb/test_lookups.py and test_find.py
    | {"create_table", "table_definition"},
    Verifier: {"verify", "verify_manifest"},  # under a public key that the caller holds
}
"""Every public method of the other public classes: those that are run here or in the named files, and the rest."""


def test_every_public_name_is_classed() -> None:
    packages = (phicrypt, phicrypt.audit, phicrypt.dynamodb, phicrypt.recovery, phicrypt.witness)
    names = {name for package in packages for name in package.__all__}
    assert names == {*RECORDED_ELSEWHERE, *KEYRINGS, *WITHOUT_KEYS}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_every_public_method_is_classed(kind: type) -> None:
    assert public_names(kind) == METHODS[kind]


def test_whatever_the_object_client_takes_over_is_harmless_or_refused() -> None:
    taken_over = public_names(S3Client) - set(vars(S3Client))
    touching_no_object = {
        *("can_paginate", "close", "exceptions", "get_paginator", "get_waiter", "meta", "waiter_names"),
        *("generate_presigned_post", "generate_presigned_url"),
    }
    for name in taken_over - touching_no_object:
        assert OPERATIONS[name].treatment in (Treatment.HARMLESS, Treatment.REFUSED), name


@pytest.fixture
def local_phi() -> tuple[PhiCrypt, RecordingSink]:
    sink = RecordingSink()
    return PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))), audit=[sink]), sink


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


# Commands

COMMANDS_WITHOUT_KEYS = {
    *("audit verify", "audit join", "audit actor", "audit incident", "audit break-glass", "audit review"),
    *("audit export", "audit prove", "audit check-proof", "audit checkpoint-key", "audit last-use"),
    *("keystore create-table", "keystore list", "keystore show", "s3 ls", "s3 abort-incomplete"),
    "s3 clean-partial",
    *("inspect", "doctor", "demo", "policy key", "policy writer", "policy reader", "policy auditor"),
    *("policy break-glass", "policy lint", "policy test"),
}


def commands_of(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name in inner:
        yield from commands_of(f"{path} {name}", inner[name])


def test_every_command_that_touches_a_key_takes_an_audit_log() -> None:
    commands = dict(found for name in COMMANDS for found in commands_of(name, load_command(name)))
    assert {"encrypt", "audit verify", "mac generate"} <= set(commands)
    without = {
        path
        for path, command in commands.items()
        if not any("--audit-log" in parameter.opts for parameter in command.params)
    }
    assert without == COMMANDS_WITHOUT_KEYS


# MACs, manifests, token keys, the AWS Encryption SDK


def test_local_mac_keys(kms: StrictKms, local_phi: tuple[PhiCrypt, RecordingSink]) -> None:
    phi, sink = local_phi
    mac = phi.mac(kms.create_key(), client=kms.client())
    envelopes = [mac.new_local_key("search") for _ in range(2)]
    assert [end.operation for end in ends_of(phi, sink)] == ["create-mac-key"] * 2
    tokens = mac.local(envelopes, purpose="search")
    opened = ends_of(phi, sink)
    assert [end.operation for end in opened] == ["open-mac-key"] * 2  # a use of each key
    token = tokens.generate(b"x", resource="r")
    assert tokens.tokens(b"x", resource="r")[0] == token
    tokens.verify(b"x", token, resource="r")
    ends = ends_of(phi, sink)
    assert [end.operation for end in ends] == ["local-mac", "local-mac", "verify-local-mac"]
    for end in ends:
        assert end.origin is not None and opened[0].origin is not None
        assert end.origin.request_ids == opened[0].origin.request_ids
        assert (end.cache_hit, end.outcome) == (True, "success")
    kms.deny()
    for run in (lambda: mac.new_local_key("search"), lambda: mac.local(envelopes, purpose="search")):
        with pytest.raises(KeyAccessError):
            run()
        (end,) = ends_of(phi, sink)
        assert end.outcome == "denied"


def test_manifests_and_verifiers(kms: StrictKms, local_phi: tuple[PhiCrypt, RecordingSink]) -> None:
    phi, sink = local_phi
    signer = phi.signer(kms.create_signing_key("ECC_NIST_P384"), client=kms.client())
    sources = [("a", b"1"), ("b", b"2")]
    named = {"resource": "batch", "purpose": "release"}
    manifest, signature = signer.sign_manifest(sources, **named)
    signer.verify_manifest(manifest, signature, sources, **named)
    assert [(end.operation, end.outcome) for end in ends_of(phi, sink)] == [
        ("sign", "success"),
        ("verify", "success"),
    ]
    signer.verifier(by_kms=True).verify_manifest(manifest, signature, sources, **named)
    signature = signer.sign(b"1", resource="a", purpose="release")
    signer.verifier(by_kms=True).verify(b"1", signature, resource="a", purpose="release")
    ends = ends_of(phi, sink)
    assert [end.operation for end in ends] == ["verify", "sign", "verify"]
    asked = [request.request_id for request in kms.requests if request.operation == "Verify"]
    assert [end.origin.request_ids[0] for end in ends[::2] if end.origin is not None] == asked


def test_token_keys(kms: StrictKms, tmp_path: Path) -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])
    keyring = KmsKeyring(kms.create_key(), client=kms.client())
    phi = PhiCrypt(keyring, audit=trail)
    for run, expected in (
        (ResourceTokens.create, ["encrypt", "decrypt"]),
        (ResourceTokens.rotate, ["encrypt", "decrypt", "decrypt"]),
        (ResourceTokens.load, ["decrypt", "decrypt"]),
    ):
        run(tmp_path / "token-keys.json", keyring, trail=trail)
        assert [end.operation for end in ends_of(phi, sink)] == expected  # one use per token key
    kms.deny()
    with pytest.raises(KeyAccessError):
        ResourceTokens.load(tmp_path / "token-keys.json", keyring, trail=trail)
    (end,) = ends_of(phi, sink)
    assert end.outcome == "denied"


def test_the_aws_encryption_sdk(kms: StrictKms) -> None:
    sink = RecordingSink()
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()), cache=None, audit=[sink])
    manager = PhiCryptMaterialsManager(phi, expect=ANY_CONTEXT)
    client = EncryptionSDKClient()
    message, _ = client.encrypt(source=b"x", materials_manager=manager, encryption_context=CONTEXT)
    client.decrypt(source=message, materials_manager=manager)
    assert [(end.operation, end.outcome) for end in ends_of(phi, sink)] == [
        ("esdk.encrypt", "success"),
        ("esdk.decrypt", "success"),
    ]
    kms.deny()
    for run in (
        lambda: client.encrypt(source=b"x", materials_manager=manager, encryption_context=CONTEXT),
        lambda: client.decrypt(source=message, materials_manager=manager),
    ):
        with pytest.raises((KeyAccessError, AWSEncryptionSDKClientError)):
            run()
        (end,) = ends_of(phi, sink)
        assert end.outcome == "denied"
