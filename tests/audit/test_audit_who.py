"""``phicrypt audit who`` finds a resource by its name, through the sealed token keys, on a local AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.audit import AuditTrail, JsonlSink
from phicrypt.cli import run
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from phicrypt.witness import ResourceTokens

TABLE = TableConfig(
    table_name="visits",
    partition_key="patient_id",
    sort_key="day",
    actions={"patient_id": Action.SIGN_ONLY, "day": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN},
)


def test_who_used_an_object_or_an_item_also_after_token_keys_were_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    keys, log = tmp_path / "token-keys.json", tmp_path / "audit.jsonl"
    with local_aws() as aws:
        access = ("--key", aws.kms_key_arn, "--endpoint-url", aws.endpoint_url)

        def audit(*arguments: object) -> str:
            capfd.readouterr()
            assert run(["audit", *map(str, arguments)]) == 0
            return capfd.readouterr().out

        audit("token-keys", keys, *access)
        keyring = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
        aws.client("s3").create_bucket(Bucket="bucket")
        for actor in ("dr-1", "dr-2"):
            trail = AuditTrail([JsonlSink(log)], resource_tokens=ResourceTokens.load(keys, keyring))
            phi = PhiCrypt(keyring, audit=trail)
            s3 = phi.s3(aws.client("s3"))
            with phi.acting_as(actor, "treatment"):
                s3.put_object(Bucket="bucket", Key="jane/doe.pdf", Body=b"x")
                s3.put_object(Bucket="bucket", Key="other", Body=b"x")
                phi.dynamodb.encrypt_item({"patient_id": "p/1", "day": "d", "name": "Jane"}, TABLE)
                phi.dynamodb.encrypt_item({"patient_id": "p-1", "day": "d", "name": "Jane"}, TABLE)
            phi.close()
            audit("token-keys", keys, "--rotate", *access)
        for resource, operation in (
            ("s3://bucket/jane/doe.pdf", "s3.put_object"),
            ("dynamodb://visits/p-1/d", "encrypt_item"),
        ):
            answer = audit("who", "--log", log, "--resource", resource, "--token-keys", keys, *access, "--json")
            found = json.loads(answer)
            assert [row["actor"] for row in found] == ["dr-1", "dr-2"], resource
            assert {operation in row["operation"] for row in found} == {True}, found
            assert len({row["resource"] for row in found}) == 2
    assert "jane" not in log.read_text().lower()
