"""The commands of docs/sending-records.md, run in their order as a reader would."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.recipient_keys import KMS_SPECS

from phicrypt.cli import run
from phicrypt.core.limits import ReadLimits
from phicrypt.formats.esdk.summary import summarize
from phicrypt.testing import StrictKms

PAGE = Path(__file__).parents[2] / "docs" / "sending-records.md"
TEXT = PAGE.read_text(encoding="utf-8")
RECORD = b'{"canary": "potassium 4.1 mmol/L"}\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[str]:
    """One line per command, those of AWS's own command line left out; a shorter RSA key is made sooner."""
    script = "".join(block for block in blocks("sh") if not block.startswith("aws "))
    lines = script.replace("\\\n", " ").replace("rsa_keygen_bits:3072", "rsa_keygen_bits:2048").splitlines()
    return [line for line in lines if line and line != "umask 077"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_commands_of_the_page_run(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("record.json").write_bytes(RECORD)
    with StrictKms() as kms:
        arn = kms.create_key(KeySpec=KMS_SPECS["p384"], KeyUsage="KEY_AGREEMENT")
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.endpoint_url)
        for command in commands():
            name, *arguments = shlex.split(command.replace("$KEY_ARN", arn))
            if name == "phicrypt":
                assert run(arguments) == 0, (command, capfd.readouterr().err)
            else:
                subprocess.run(["bash", "-c", f"umask 077; {command}"], check=True, timeout=60)
        used = {one.operation for one in kms.requests if one.operation != "CreateKey"}
    assert used == {"GetPublicKey", "DeriveSharedSecret"}
    for opened in ("received.json", "portal.json", "kms.json", "rsa.json"):
        assert Path(opened).read_bytes() == RECORD, opened
    for message in Path().glob("*.esdk"):
        assert b"canary" not in message.read_bytes()
    (digest, *_) = re.findall(r"[0-9a-f]{64}", capfd.readouterr().out)
    with Path("record.json.esdk").open("rb") as message:
        recipient = summarize(message, ReadLimits()).recipients[0]
    assert recipient.key_id == f"p384:{digest}", "inspect shows the digest that the two sides compare"
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
