"""A command line on a local AWS: ``phicrypt("encrypt", …)`` runs it in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from phicrypt.cli import run
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    out: str
    error: str


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with local_aws() as stack:
        yield stack


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, aws: Any) -> dict[str, str]:
    """Environment variables that lead the AWS clients of a command to the local AWS."""
    variables = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_DEFAULT_REGION": aws.region,
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "PHICRYPT_KEY"):
        monkeypatch.delenv(name, raising=False)
    return variables


@pytest.fixture
def phicrypt(environment: dict[str, str], aws: Any, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ending]:
    """Run a command against the local AWS's KMS; its ending."""

    def command(name: str, *arguments: object, key: str | None = None) -> Ending:
        aws_options = () if name in ("inspect", "demo") else ("--endpoint-url", aws.endpoint_url)
        key_options = () if name in ("inspect", "demo") else ("--key", key or aws.kms_key_arn)
        capfd.readouterr()
        code = run([name, *key_options, *aws_options, *(str(one) for one in arguments)])
        captured = capfd.readouterr()
        return Ending(code, captured.out, captured.err)

    return command
