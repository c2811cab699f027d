"""True inputs of every target: messages, items, rows, logs and records with keys that are known."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.dbesdk_support import patient, patients, static_keyring
from support.true_evidence import BUCKET, KEY_ARN, true_evidence

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DecryptionMaterials
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.core.suites import IV_LENGTH_BYTES
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.evidence.digests import DigestFile
from phicrypt.evidence.proofs import prove
from phicrypt.formats.esdk.derivation import derive_keys
from phicrypt.formats.esdk.frames import single_block_aad
from phicrypt.formats.esdk.header import NON_FRAMED, parse_header
from phicrypt.formats.notes import VerifierKey
from phicrypt.formats.reader import ByteReader
from phicrypt.witness import Checkpoints, LocalNoteKey
from phicrypt.witness.log_tree import tree_path

__all__ = ["BUCKET"]
CONTEXT: Final = {"tenant": "clinic-7"}
PLAINTEXT: Final = b"seventeen octets." * 9
FRAME_LENGTH_BYTES: Final = 32
_KEYRING: Final = RawAesKeyring("clinic", "key-1", bytes(range(32)))


@functools.cache
def phi() -> PhiCrypt:
    return PhiCrypt(_KEYRING, frame_length_bytes=FRAME_LENGTH_BYTES)


def _split(message: bytes) -> tuple[bytes, bytes]:
    length = parse_header(ByteReader(message), ReadLimits()).length_bytes
    return message[:length], message[length:]


def _not_framed(message: bytes) -> tuple[bytes, bytes]:
    """The message with one block for a body, as AWS's older libraries wrote it, under the same keys."""
    header = parse_header(ByteReader(message), ReadLimits())
    asked = DecryptionMaterials(header.suite, header.context, header.context_bytes)
    opened = _KEYRING.on_decrypt(asked, header.encrypted_data_keys)
    assert opened.data_key is not None
    message_key = derive_keys(header.suite, opened.data_key, header.message_id)[0]
    tail = header.body[len(header.body) - 37 :]  # content type, frame length, commitment
    body = header.body[: len(header.body) - 37] + bytes((NON_FRAMED,)) + bytes(4) + tail[5:]
    cipher = AESGCM(message_key)
    iv = (1).to_bytes(IV_LENGTH_BYTES, "big")
    sealed = cipher.encrypt(iv, PLAINTEXT, single_block_aad(header.message_id, len(PLAINTEXT)))
    length = len(PLAINTEXT).to_bytes(8, "big")
    return body + cipher.encrypt(bytes(IV_LENGTH_BYTES), b"", body), iv + length + sealed


def _messages() -> list[tuple[bytes, bytes]]:
    framed = phi().encrypt(PLAINTEXT, context=CONTEXT)
    signed = phi().encrypt(PLAINTEXT, context=CONTEXT, signed=True)
    return [_split(framed), _split(signed), _not_framed(framed)]


_MADE: Final = _messages()
HEADERS: Final = [header for header, _ in _MADE]


def bodies() -> Iterable[bytes]:
    """Each body behind the byte that chooses its header, read at once and as a stream."""
    for number, (_, body) in enumerate(_MADE):
        yield bytes((number,)) + body
        yield bytes((number + 129,)) + body  # 129 leaves the choice among three as it is


# --- DynamoDB -------------------------------------------------------------------------------------

TABLES: Final = (
    patients(),
    TableConfig(
        table_name="patients",
        partition_key="patient_id",
        sort_key="visit",
        actions={
            "patient_id": Action.SIGN_AND_INCLUDE_IN_CONTEXT,
            "visit": Action.SIGN_AND_INCLUDE_IN_CONTEXT,
            "name": Action.ENCRYPT_AND_SIGN,
            "clinic": Action.SIGN_AND_INCLUDE_IN_CONTEXT,
            "note": Action.DO_NOTHING,
        },
        unsigned_attributes=("note",),
    ),
)
ITEM_CONTEXT: Final = {
    "aws-crypto-table-name": "patients",
    "aws-crypto-partition-name": "patient_id",
    "aws-crypto-attr.patient_id": "p-1",
    "aws-crypto-attr.clinic": "AwAAAA==",
    "aws-crypto-legend": "BS",
}


@functools.cache
def phi_for_items() -> PhiCrypt:
    return PhiCrypt(static_keyring(bytes(range(32))))


@functools.cache
def sealed_items() -> tuple[Any, ...]:
    return tuple(phi_for_items().dynamodb.encrypt_item(patient(), table, shape="low-level") for table in TABLES)


def item_headers() -> Iterable[bytes]:
    return [item["aws_dbe_head"]["B"] for item in sealed_items()]


EXPRESSIONS: Final = (
    b"attribute_exists(#n) AND NOT (size(name) > :low OR name BETWEEN :low AND :high)",
    b"begins_with(name, :n) or a.b[3].c in (:x, :y, size(a))",
    b"SET a.b[1] = if_not_exists(c, :z) + :one, #n = list_append(x, :l) REMOVE d ADD e :f DELETE g :h",
    b"patient_id, #n, a.b[0].c",
    b"((((((((a = :b))))))))",
)
BRANCH_KEY_ROW: Final = {
    "branch-key-id": {"S": "clinic-7"},
    "type": {"S": "branch:ACTIVE"},
    "version": {"S": "branch:version:f60c4d1c-3a6a-4a33-9a5c-3f1d9f8b1e11"},
    "enc": {"B": bytes(184)},
    "kms-arn": {"S": KEY_ARN},
    "create-time": {"S": "2026-01-31T00:00:00.000000Z"},
    "hierarchy-version": {"N": "1"},
    "aws-crypto-ec:department": {"S": "cardiology"},
}
S3EC_METADATA: Final = (
    {
        "x-amz-c": "115",
        "x-amz-3": "AQIDBAUGBwgJ",
        "x-amz-w": "12",
        "x-amz-t": json.dumps({"aws:x-amz-cek-alg": "115", "tenant": "7"}),
        "x-amz-d": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==",
        "x-amz-i": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==",
    },
    {
        "x-amz-key-v2": "AQIDBAUGBwgJ",
        "x-amz-wrap-alg": "kms+context",
        "x-amz-cek-alg": "AES/GCM/NoPadding",
        "x-amz-matdesc": json.dumps({"aws:x-amz-cek-alg": "AES/GCM/NoPadding"}),
        "x-amz-iv": "AAECAwQFBgcICQoL",
        "x-amz-tag-len": "128",
        "x-amz-unencrypted-content-length": "17",
    },
)

# --- evidence -------------------------------------------------------------------------------------

POLICY: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Open",
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam::111122223333:role/Portal"]},
            "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
            "Resource": "*",
            "Condition": {
                "StringEquals": {"kms:EncryptionContext:tenant": "clinic-7"},
                "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
            },
        },
        {"Effect": "Deny", "NotPrincipal": "*", "NotAction": "s3:*", "NotResource": "arn:aws:s3:::trail/*"},
    ],
}


@functools.cache
def evidence() -> Any:
    return true_evidence()


@functools.cache
def audit_lines() -> list[bytes]:
    return list(evidence().lines()[:4])


@functools.cache
def trail_record() -> Any:
    return evidence().document(evidence().log_keys()[-1])["Records"][0]


def digest_key() -> str:
    return evidence().digest_keys()[1]


@functools.cache
def digest() -> Any:
    return evidence().document(digest_key())


@functools.cache
def next_digest() -> DigestFile:
    name = evidence().digest_keys()[2]
    return DigestFile(BUCKET, name, evidence().objects[name][0], None)


@functools.cache
def log_file() -> Path:
    """The one log that targets write and read again, in memory where the machine has such a folder."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="phicrypt-fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "audit.jsonl"


@functools.cache
def _checkpointed() -> tuple[VerifierKey, list[bytes]]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "audit.jsonl"
        path.write_bytes(b"".join(audit_lines()))
        key = LocalNoteKey("clinic.example/audit", LocalSigningKey(new_signing_key_pem("ed25519")))
        note = Checkpoints(path, key).checkpoint().note.to_bytes()
        record = json.loads(audit_lines()[1])
        proof = prove(path, f"{record['chain']}:{record['sequence']}")
        return key.verifier_key, [proof, note, tree_path(path).read_bytes()]


def note_key() -> VerifierKey:
    """The verifier key of what :func:`proofs` gives."""
    return _checkpointed()[0]


def proofs() -> Iterable[bytes]:
    """A proof, a checkpoint, and the file that orders the log's lines."""
    return _checkpointed()[1]
