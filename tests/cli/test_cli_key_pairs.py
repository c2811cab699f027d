"""RSA and ECDH key pairs on the command line: recovery offline, and records for another organization."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.recipient_keys import KMS_SPECS, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import PhiCrypt, RawRsaKeyring
from phicrypt.cli import run
from phicrypt.testing import StrictKms

BIND = ("--context", "tenant=clinic-7")
EXPECT = ("--expect", "tenant=clinic-7")
RECORD = b"canary-diagnosis " * 20
NAME = ("--rsa-name", "clinic/recovery-2026")


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


class Desk:
    """A folder with a record and keys, and commands that are run on it."""

    def __init__(self, folder: Path, kms: StrictKms, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.kms = kms
        self.record = folder / "record.json"
        self.record.write_bytes(RECORD)
        self.message = folder / "record.json.esdk"
        self._capfd = capfd

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path

    def __call__(self, name: str, *arguments: object) -> tuple[int, str, str]:
        self._capfd.readouterr()
        aws = () if name == "inspect" else ("--endpoint-url", self.kms.endpoint_url)
        code = run([name, *aws, *map(str, arguments)])
        captured = self._capfd.readouterr()
        return code, captured.out, captured.err

    def encrypt(self, *arguments: object) -> None:
        code, _, error = self("encrypt", self.record, *BIND, "--force", *arguments)
        assert code == 0, error

    def decrypt(self, *arguments: object) -> bytes:
        code, out, error = self("decrypt", self.message, "-", *EXPECT, *arguments)
        assert code == 0, error
        return out.encode()


@pytest.fixture
def desk(environment: dict[str, str], kms: StrictKms, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, kms, capfd)


@pytest.fixture
def rsa_files(desk: Desk) -> tuple[Path, Path]:
    return desk.put("recovery.pub", public_pem(rsa_pair())), desk.put("recovery.key", private_pem(rsa_pair()))


def test_a_recovery_recipient_beside_the_kms_key(desk: Desk, rsa_files: tuple[Path, Path]) -> None:
    public_key, private_key = rsa_files
    arn = desk.kms.create_key()
    desk.encrypt("--key", arn, "--rsa-public-key", public_key, *NAME)
    assert desk.decrypt("--key", arn) == RECORD
    desk.kms.disable(arn)
    before = len(desk.kms.requests)
    assert desk.decrypt("--rsa-private-key", private_key, *NAME) == RECORD
    assert len(desk.kms.requests) == before
    ring = RawRsaKeyring("clinic", "recovery-2026", private_key=rsa_pair())
    assert PhiCrypt(ring).decrypt(desk.message.read_bytes(), context={"tenant": "clinic-7"}) == RECORD


@pytest.mark.parametrize("padding", ["oaep-sha1", "oaep-sha512", "pkcs1"])
def test_the_padding_is_named_on_both_sides(desk: Desk, rsa_files: tuple[Path, Path], padding: str) -> None:
    public_key, private_key = rsa_files
    desk.encrypt("--rsa-public-key", public_key, *NAME, "--rsa-padding", padding)
    assert desk.decrypt("--rsa-private-key", private_key, *NAME, "--rsa-padding", padding) == RECORD
    code, _, _ = desk("decrypt", desk.message, "-", *EXPECT, "--rsa-private-key", private_key, *NAME)
    assert code == 4


def test_an_encrypted_private_key_opens_with_a_file_of_its_password(
    desk: Desk, rsa_files: tuple[Path, Path]
) -> None:
    private_key = desk.put("safe.key", private_pem(rsa_pair(), password=b"correct horse"))
    desk.encrypt("--rsa-public-key", rsa_files[0], *NAME)
    opener = ("--rsa-private-key", private_key, *NAME)
    for text in ("correct horse", "correct horse\n", "correct horse\r\nmore\n"):
        assert desk.decrypt(*opener, "--password-file", desk.put("password", text)) == RECORD
    code, _, error = desk("decrypt", desk.message, "-", *EXPECT, *opener)
    assert code == 2 and "--password-file" in error
    wrong = desk.put("password", "battery staple")
    code, _, error = desk("decrypt", desk.message, "-", *EXPECT, *opener, "--password-file", wrong)
    assert code == 2 and f"--rsa-private-key {private_key}" in error
    assert "battery" not in error


def test_records_for_another_organization_that_both_sides_open(desk: Desk) -> None:
    ours, theirs = ec_pair(), ec_pair()
    ours_public, theirs_public = desk.put("ours.pub", public_pem(ours)), desk.put("theirs.der", public_der(theirs))
    ours_private, theirs_private = (
        desk.put("ours.key", private_pem(ours)),
        desk.put("theirs.key", private_pem(theirs)),
    )
    desk.encrypt("--ecdh-private-key", ours_private, "--ecdh-public-key", theirs_public)
    assert desk.decrypt("--ecdh-private-key", ours_private, "--ecdh-public-key", theirs_public) == RECORD
    assert desk.decrypt("--ecdh-private-key", theirs_private, "--ecdh-public-key", ours_public) == RECORD
    assert desk.decrypt("--ecdh-private-key", theirs_private) == RECORD
    desk.encrypt("--ecdh-public-key", theirs_public)
    assert desk.decrypt("--ecdh-private-key", theirs_private) == RECORD
    code, _, _ = desk("decrypt", desk.message, "-", *EXPECT, "--ecdh-private-key", ours_private)
    assert code == 6


def test_ones_own_key_may_be_in_kms(desk: Desk) -> None:
    theirs = ec_pair("p384")
    arn = desk.kms.create_key(KeySpec=KMS_SPECS["p384"], KeyUsage="KEY_AGREEMENT")
    ours_public = desk.put("ours.pub", public_pem(desk.kms.key(arn).key_pair))
    theirs_public, theirs_private = (
        desk.put("theirs.pub", public_pem(theirs)),
        desk.put("theirs.key", private_pem(theirs)),
    )
    desk.encrypt("--ecdh-key", arn, "--ecdh-public-key", theirs_public)
    assert desk.decrypt("--ecdh-private-key", theirs_private, "--ecdh-public-key", ours_public) == RECORD
    desk.encrypt("--ecdh-private-key", theirs_private, "--ecdh-public-key", ours_public)
    assert desk.decrypt("--ecdh-key", arn, "--ecdh-public-key", theirs_public) == RECORD
    assert desk.decrypt("--ecdh-key", arn) == RECORD


def test_rule_16_recovery_by_a_key_pair_is_rehearsed(desk: Desk, rsa_files: tuple[Path, Path]) -> None:
    public_key, private_key = rsa_files
    desk.encrypt("--key", desk.kms.create_key(), "--rsa-public-key", public_key, *NAME)
    code, out, error = desk("drill", desk.message, *EXPECT, "--rsa-private-key", private_key, *NAME, "--json")
    assert code == 0, error
    report = json.loads(out)
    assert (report["opened"], report["recovery_path"]) == (
        1,
        "<RawRsaKeyring 'clinic' 'recovery-2026' oaep-sha256>",
    )
    other = desk.put("other.key", private_pem(rsa_pair(1)))
    code, _, _ = desk("drill", desk.message, *EXPECT, "--rsa-private-key", other, *NAME)
    assert code == 1
    for arguments in ((), ("--rsa-private-key", private_key, *NAME, "--recovery-key", desk.kms.create_key())):
        code, _, error = desk("drill", desk.message, *EXPECT, *arguments)
        assert code == 2 and "name one recovery path" in error


def test_rule_16_inspect_names_recipients_and_says_who_opens_one_day(
    desk: Desk, rsa_files: tuple[Path, Path]
) -> None:
    theirs = desk.put("theirs.pub", public_pem(ec_pair()))
    desk.encrypt(
        "--key", desk.kms.create_key(), "--rsa-public-key", rsa_files[0], *NAME, "--ecdh-public-key", theirs
    )
    code, out, _ = desk("inspect", desk.message, "--json")
    assert code == 0
    summary = json.loads(out)
    assert [one["public_key_algorithm"] for one in summary["recipients"]] == [None, "RSA", "ECDH"]
    assert summary["recipients"][1]["key_id"] == "recovery-2026"
    assert summary["recipients"][2]["key_id"].startswith("p256:")
    assert [("RSA one day" in one, "elliptic curves one day" in one) for one in summary["remarks"]] == [
        (True, False),
        (False, True),
    ]
    code, out, _ = desk("inspect", desk.message)
    assert "opens for whoever breaks RSA one day" in " ".join(out.split())


WRONG = {
    "nothing": ((), "name a key: --key ARN"),
    "no name": (("--rsa-public-key", "recovery.pub"), "go with --rsa-name"),
    "a name alone": (("--rsa-name", "clinic/x", "--key", "K"), "go with --rsa-name"),
    "half a name": (("--rsa-public-key", "recovery.pub", "--rsa-name", "clinic"), "NAMESPACE/NAME"),
    "kms's name": (("--rsa-public-key", "recovery.pub", "--rsa-name", "aws-kms/x"), "NAMESPACE/NAME"),
    "padding": (("--rsa-public-key", "recovery.pub", *NAME, "--rsa-padding", "md5"), "--rsa-padding is one of"),
    "private for public": (("--rsa-public-key", "recovery.key", *NAME), "a private one"),
    "another kind": (("--ecdh-public-key", "recovery.pub"), "this is an RSA key"),
    "two own keys": (
        ("--ecdh-public-key", "ec.pub", "--ecdh-private-key", "ec.key", "--ecdh-key", "K"),
        "not in both",
    ),
    "two curves": (("--ecdh-public-key", "ec.pub", "--ecdh-private-key", "p384.key"), "on one curve"),
    "no recipient": (("--ecdh-private-key", "ec.key"), "name its key with --ecdh-public-key"),
    "a password for nothing": (
        ("--ecdh-public-key", "ec.pub", "--password-file", "x"),
        "--password-file goes with",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_said_in_the_options_words(
    desk: Desk, rsa_files: tuple[Path, Path], case: str
) -> None:
    arguments, words = WRONG[case]
    pair = ec_pair()
    desk.put("ec.pub", public_pem(pair)), desk.put("ec.key", private_pem(pair))
    desk.put("p384.key", private_pem(ec_pair("p384")))
    arn = desk.kms.create_key()
    in_folder = {one.name: one for one in desk.folder.iterdir()}
    given = [arn if one == "K" else in_folder.get(one, one) for one in arguments]
    code, _, error = desk("encrypt", desk.record, *BIND, *given)
    assert (code, words in error) == (2, True), error
    assert "canary" not in error and not desk.message.exists()


def test_a_private_key_that_others_may_read_is_named(desk: Desk, rsa_files: tuple[Path, Path]) -> None:
    public_key, private_key = rsa_files
    desk.encrypt("--rsa-public-key", public_key, *NAME)
    private_key.chmod(0o644)
    _, _, error = desk("decrypt", desk.message, "-", *EXPECT, "--rsa-private-key", private_key, *NAME)
    assert f"{private_key} can be read by others" in error


def test_a_key_file_that_is_missing_is_a_matter_of_files(desk: Desk) -> None:
    code, _, error = desk("encrypt", desk.record, *BIND, "--ecdh-public-key", desk.folder / "missing.pub")
    assert code == 9 and "missing.pub" in error


def test_opening_needs_ones_own_key(desk: Desk) -> None:
    theirs = desk.put("theirs.pub", public_pem(ec_pair()))
    desk.encrypt("--ecdh-public-key", theirs)
    code, _, error = desk("decrypt", desk.message, "-", *EXPECT, "--ecdh-public-key", theirs)
    assert code == 2 and "name your own key: --ecdh-private-key" in error
