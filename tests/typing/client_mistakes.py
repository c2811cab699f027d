"""Slips in settings, verbs and parameters that a type checker must find; never run.

Each line that ends in ``# error`` holds one mistake, and the lines without it none. A checker that
reports another set of lines fails ``tests/project/test_typing.py``.
"""

from __future__ import annotations

import io

import boto3
from pydantic import BaseModel

from phicrypt import (
    ANY_CONTEXT,
    AuditContext,
    BranchKeyStore,
    CachePolicy,
    HierarchicalKeyring,
    KmsKeyring,
    MultiKeyring,
    PhiCrypt,
    Purpose,
    RawAesKeyring,
)
from phicrypt.audit import AuditTrail, JsonlSink, RecordingSink
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import KeyAccessError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.testing import StaticKeyring, StrictKms, local_aws

ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"

# Keyrings
keyring = KmsKeyring(ARN, client=boto3.client("kms"))
KmsKeyring(ARN, client_factry=boto3.client)  # error
KmsKeyring(ARN, decrypt_key_arn=[ARN])  # error
KmsKeyring(ARN, client=boto3.client("s3"))  # error
KmsKeyring(ARN, client_factory=lambda region: boto3.client("kms", region_name=region))
KmsKeyring(ARN, session=boto3.client("kms"))  # error
KmsKeyring.from_alias("alias/notes", region="us-east-1", failover_regions=["us-west-2"])
KmsKeyring.from_alias("alias/notes", regoin="us-east-1")  # error
KmsKeyring.discovery(account_ids=["1"], partition="aws", client=boto3.client("kms"))
KmsKeyring.discovery(account_ids=["1"], partition="aws", clinet=boto3.client("kms"))  # error
KmsKeyring.discovery(account_ids=["1"])  # error
KmsRsaKeyring(ARN, client=boto3.client("dynamodb"))  # error
BranchKeyStore("t", "t", ARN, dynamodb_client=boto3.client("dynamodb"), kms_clients=keyring.kms_clients)
BranchKeyStore("t", "t", ARN, dynamodb_client=boto3.client("kms"))  # error
BranchKeyStore("t", "t", ARN, kms_clients=boto3.client("kms"))  # error
KmsKeyring(ARN, boto3.client("kms"))  # error
KmsKeyring([ARN])  # error
KmsKeyring.from_alias("alias/clinic", regoin="us-east-1")  # error
KmsKeyring.from_aliases("alias/clinic")  # error
KmsKeyring.discovery(acount_ids=["111122223333"])  # error
RawAesKeyring("clinic", "key-1", "not bytes")  # error
RawAesKeyring("clinic", key_name="key-1", wrapping_key=bytes(32))  # error
MultiKeyring(keyring, childern=[keyring])  # error
MultiKeyring(ARN)  # error
KmsRsaKeyring(ARN, algorithm="RSAES_OAEP_SHA_512")  # error
StaticKeyring(data_keys=bytes(32))  # error

# Branch keys
store = BranchKeyStore("branch-keys", "clinic-keys", ARN, kms_client=boto3.client("kms"))
BranchKeyStore("branch-keys", "clinic-keys", kms_arn=ARN)  # error
BranchKeyStore("branch-keys", "clinic-keys", ARN, dynamo_client=boto3.client("dynamodb"))  # error
store.create_table(deletion_protecton=False)  # error
store.rotate_key("clinic-7")  # error
HierarchicalKeyring(store, branch_key="clinic-7")  # error
HierarchicalKeyring(store, "clinic-7", ttl="600")  # error

# The client
phi = PhiCrypt(keyring, cache=CachePolicy(max_age_seconds=60), limits=ReadLimits(), guard=PhiGuard("refuse"))
PhiCrypt(kerying=keyring)  # error
PhiCrypt(keyring, CachePolicy())  # error
PhiCrypt(keyring, cache=300)  # error
PhiCrypt(keyring, audit=JsonlSink("audit.jsonl"))  # error
PhiCrypt(keyring, guard="refuse")  # error
PhiCrypt(keyring, frame_length=4096)  # error
CachePolicy(max_age=60)  # error
ReadLimits(max_frame_length=4096)  # error
PhiGuard("refuses")  # error
PhiGuard(allow_name=["tenant"])  # error

# Verbs
message = phi.encrypt(b"record", context={"tenant": "clinic-7"})
phi.encrypt(b"record", contxt={"tenant": "clinic-7"})  # error
phi.encrypt("record", context={"tenant": "clinic-7"})  # error
phi.encrypt(b"record", context=[("tenant", "clinic-7")])  # error
phi.encrypt(b"record", context={"tenant": "clinic-7"}, sign=True)  # error
phi.encrypts(b"record", context={})  # error
phi.decrypt(message, context=ANY_CONTEXT)
phi.decrypt(message, contxt=ANY_CONTEXT)  # error
phi.decrypt(message, context={"tenant": "clinic-7"}, require_signature=True)  # error
phi.decrypt_stream(io.BytesIO(message), context=ANY_CONTEXT)  # error
phi.inspect(message).sute_id  # error
phi.cache.purge()  # error

# Signatures, MACs, emergencies
signer = phi.signer(ARN)
phi.signer(ARN, algoritm="ECDSA_SHA_256")  # error
phi.mac(ARN, algoritm="HMAC_SHA_256")  # error
signer.sign(b"result", resource="result-1")  # error
signer.sign(b"result", resource="result-1", purpos="release")  # error
signer.sing(b"result", resource="result-1", purpose="release")  # error
phi.break_glass(principl="dr-4711", reason="the keyring is away", expires_in_seconds=600)  # error
phi.break_glass(actor="dr-4711", reason="the keyring is away")  # error
phi.break_glass(actor="dr-4711", reason="the keyring is away", expires_in_seconds=600, clent=None)  # error
with phi.break_glass(actor="dr-4711", reason="the keyring is away", expires_in_seconds=600) as grant:
    grant.decryp(message, context=ANY_CONTEXT)  # error
    grant.decrypt(message)  # error

# S3 and DynamoDB
phi.s3(bind_locaton=False)  # error
phi.s3(read_fromats=("esdk",))  # error
s3 = phi.s3(boto3.client("s3"))
s3.put_objct(Bucket="clinic", Key="record", Body=b"record")  # error
s3.put_object(Buckt="clinic", Key="record", Body=b"record")  # error
phi.dynamodb.client([], check_table="never")  # error
client = phi.dynamodb.client([])
client.put_itm(TableName="patients", Item={})  # error


class Visit(BaseModel):
    visit_id: str


phi.dynamodb.table(Visit, regoin_name="us-east-1")  # error

# Audit
sink = JsonlSink("audit.jsonl", fsync=True)
JsonlSink("audit.jsonl", max_segment=4096)  # error
AuditTrail([sink], aplication="clinic")  # error
AuditTrail(sink)  # error
phi.acting_as("dr-4711", purpos=Purpose.TREATMENT)  # error
phi.acting_as(actor=4711)  # error
Purpose.TREATMNT  # error
AuditContext(actr="dr-4711")  # error
RecordingSink().event  # error

# Doubles
local_aws(regoin="us-east-1")  # error
with StrictKms() as kms:
    kms.create_key(replica=("eu-west-1",), region=1)  # error
    kms.disabel(ARN)  # error

# Errors
KeyAccessError("no access").retriable  # error
