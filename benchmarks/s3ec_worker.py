"""AWS's S3 Encryption Client for Python, measuring itself; runs in an environment of its own, without phicrypt.

Without arguments: the first line of stdin is the set-up, each further one asks for ``calls`` puts or
gets and is answered with seconds per call. With one argument of JSON: one put or get and its peak
memory above idle. (Its ``download_file`` fails above the multipart threshold, so it gets whole bodies.)
"""

import json
import os
import sys
import time

import boto3
from botocore.config import Config
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig
from s3_encryption.materials.kms_keyring import KmsKeyring


def client_of(settings):
    def make(service):
        return boto3.client(
            service,
            endpoint_url=settings["endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id="S3RVER",
            aws_secret_access_key="S3RVER",
            config=Config(proxies={}, s3={"addressing_style": "path"}),
        )

    keyring = KmsKeyring(make("kms"), settings.get("key_arn") or settings["kms_key_arn"])
    return S3EncryptionClient(make("s3"), S3EncryptionClientConfig(keyring=keyring))


def memory_mebibytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(f"{name}:"))


def measure_memory(settings):
    client, bucket, name = client_of(settings), settings["bucket"], settings["name"]
    client.put_object(Bucket=bucket, Key="warm", Body=b"x")
    client.get_object(Bucket=bucket, Key="warm")["Body"].read()
    idle = memory_mebibytes("VmRSS")
    if settings["peak"] == "put":
        with open(settings["source"], "rb") as source:
            client.put_object(Bucket=bucket, Key=name, Body=source)
    else:
        client.get_object(Bucket=bucket, Key=name)["Body"].read()
    return memory_mebibytes("VmHWM") - idle


def measure_seconds(client, bucket, request, payloads):
    name, length, calls = request["name"], request["length"], request["calls"]
    body = payloads.setdefault(length, os.urandom(length))
    start = time.perf_counter()
    for _ in range(calls):
        if request["operation"] == "put":
            client.put_object(Bucket=bucket, Key=name, Body=body)
        else:
            client.get_object(Bucket=bucket, Key=name)["Body"].read()
    return (time.perf_counter() - start) / calls


def main():
    if len(sys.argv) == 2:
        print(json.dumps({"mebibytes": measure_memory(json.loads(sys.argv[1]))}), flush=True)
        return
    settings = json.loads(sys.stdin.readline())
    client = client_of(settings)
    print("{}", flush=True)
    payloads = {}
    for line in sys.stdin:
        try:
            answer = {"seconds": measure_seconds(client, settings["bucket"], json.loads(line), payloads)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
