"""AWS's S3 Encryption Client for Python, one JSON request per line on stdin, one answer per line.

Runs in an environment of its own: the client pins ``cryptography<49``.
"""

import base64
import json
import sys

import boto3
from botocore.config import Config
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig
from s3_encryption.materials.kms_keyring import KmsKeyring
from s3_encryption.materials.materials import AlgorithmSuite, CommitmentPolicy

SUITES = {
    2: (AlgorithmSuite.ALG_AES_256_GCM_IV12_TAG16_NO_KDF, CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT),
    3: (
        AlgorithmSuite.ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
    ),
}


def client_of(request):
    def make(service):
        return boto3.client(
            service,
            endpoint_url=request["endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="local-stack-has-no-secrets",
            config=Config(proxies={}),
        )

    suite, policy = SUITES[request["version"]]
    keyring = KmsKeyring(make("kms"), request["key_arn"])
    config = S3EncryptionClientConfig(keyring=keyring, encryption_algorithm=suite, commitment_policy=policy)
    return S3EncryptionClient(make("s3"), config)


def answer(request):
    client = client_of(request)
    names = {"Bucket": request["bucket"], "Key": request["name"], "EncryptionContext": request["context"]}
    if request["operation"] == "put":
        client.put_object(Body=base64.b64decode(request["body"]), **names)
        return {}
    return {"body": base64.b64encode(client.get_object(**names)["Body"].read()).decode()}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
