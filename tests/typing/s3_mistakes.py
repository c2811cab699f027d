"""Slips with S3 that a type checker must find, where boto3-stubs is installed; never run.

Each line that ends in ``# error`` holds one mistake, and the lines without it none. A checker that
reports another set of lines fails ``tests/project/test_typing.py``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import boto3

from phicrypt import ANY_CONTEXT, AuditContext, PhiCrypt, RawAesKeyring

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef, PutObjectOutputTypeDef

phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)))
raw = boto3.client("s3")

# Settings
s3 = phi.s3(raw, bind_location=False, read_formats=("esdk", "s3ec-v3"), context={"tenant": "7"}, signed=True)
phi.s3(require_private_bucket=True, part_size_bytes=8 * 1024**2, logical_buckets={"replica": "records"})
phi.s3(bind_locaton=False)  # error
phi.s3(raw, read_fromats=("esdk",))  # error
phi.s3(raw, format="s3-ec")  # error
phi.s3(raw, context="tenant-7")  # error
phi.s3(raw, require_private_buckets=True)  # error


# It is boto3's client, with boto3's answers
def archive(client: S3Client) -> None:
    client.put_object(Bucket="records", Key="k", Body=b"x")


archive(s3)
stored: PutObjectOutputTypeDef = s3.put_object(Bucket="records", Key="k", Body=b"x")
answer: GetObjectOutputTypeDef = s3.get_object(Bucket="records", Key="k")
head: HeadObjectOutputTypeDef = s3.head_object(Bucket="records", Key="k")
text: str = s3.get_object(Bucket="records", Key="k")["Body"].read().decode()
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="records"):
    print(page["Name"], page.get("Contents", []))
s3.get_waiter("object_exists").wait(Bucket="records", Key="k")
s3.put_objct(Bucket="records", Key="k", Body=b"x")  # error
s3.put_object(Buckt="records", Key="k", Body=b"x")  # error
s3.put_object(Bucket="records", Body=b"x")  # error
s3.get_object(Bucket="records", Key="k")["Bdy"]  # error
s3.delete_objct(Bucket="records", Key="k")  # error
s3.head_object(Bucket="records", Key=7)  # error
s3.get_paginator("list_objets_v2")  # error
number: int = s3.get_object(Bucket="records", Key="k")["Body"].read()  # error

# What phicrypt adds
s3.put_object(Bucket="records", Key="k", Body=b"x", EncryptionContext={"patient": "p"})
s3.put_object(Bucket="records", Key="k", Body=b"x", EncryptionContext=AuditContext(tenant="7"))
s3.get_object(Bucket="records", Key="k", EncryptionContext=ANY_CONTEXT, RequireSigned=True, AllowUncommitted=True)
verified: bool = s3.get_object(Bucket="records", Key="k", Range="bytes=0-9")["PhiCrypt"]["LengthVerified"]
s3.list_objects_v2(Bucket="records", PlaintextSizes=True)
s3.copy_object(Bucket="records", Key="k", CopySource="records/j", EncryptionContext={"patient": "p"})
s3.create_multipart_upload(Bucket="records", Key="k", EncryptionContext={"patient": "p"})
s3.put_object(Bucket="records", Key="k", Body=b"x", EncryptonContext={"patient": "p"})  # error
s3.put_object(Bucket="records", Key="k", Body=b"x", EncryptionContext={"patient": 7})  # error
s3.put_object(Bucket="records", Key="k", Body=b"x", RequireSigned=True)  # error
s3.get_object(Bucket="records", Key="k", RequireSigned="yes")  # error
s3.get_object(Bucket="records", Key="k", RequireSignd=True)  # error
s3.get_object(Bucket="records", Key="k")["PhiCrypt"]["LengthVerifed"]  # error

# Files and transfers
s3.upload_fileobj(io.BytesIO(b"x"), "records", "k", {"EncryptionContext": {"patient": "p"}})
s3.download_file(Bucket="records", Key="k", Filename="k")
piece: bytes = s3.open("s3://records/k").read_at(0, 10)
s3.open("s3://records/k", "wb", context={"patient": "p"}).write(b"x")
s3.upload_file("k", Buckt="records", Key="k")  # error
s3.open("s3://records/k").read_att(0, 10)  # error
s3.open("s3://records/k").read_at(offset=0, length_bytes=10)  # error
s3.open("s3://records/k", "r")  # error
s3.open("s3://records/k", "wb").read_at(0, 10)  # error
s3.open("s3://records/k", verson_id="7")  # error
s3.rewrap("records", "k", to="alias/clinic")  # error
s3.rewrap("records", "k", keyring=RawAesKeyring("clinic", "key-1", bytes(32)))  # error
