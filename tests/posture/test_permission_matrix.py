"""``policy test``: KMS decides by dry runs, no key is used, and what proves nothing does not pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from phicrypt.cli import run
from phicrypt.errors import ConfigurationError, KeyAccessError, PhiInContextError
from phicrypt.posture.permission_matrix import (
    Cell,
    PermissionMatrix,
    Trial,
    clients_of_roles,
    try_permissions,
)
from phicrypt.testing import StrictKms, local_aws

DECRYPT = botocore.session.get_session().get_service_model("kms").operation_model("Decrypt")
pytestmark = pytest.mark.skipif(
    "DryRunModifiers" not in DECRYPT.input_shape.members,
    reason="this version of botocore knows no dry run of Decrypt without a ciphertext",
)
ROLE = "arn:aws:iam::111122223333:role/"


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def matrix_of(kms: StrictKms, **changes: Any) -> PermissionMatrix:
    members: dict[str, Any] = {
        "roles": {"writer": ROLE + "writer", "reader": ROLE + "reader"},
        "tenants": {
            name: {"key": kms.create_key(), "context": {"tenant": name}} for name in ("clinic-7", "clinic-8")
        },
        "contexts": {"foreign": {"tenant": "clinic-9"}},
        "allow": [
            {"role": "writer", "tenants": ["*"], "operations": ["GenerateDataKey"]},
            {"role": "reader", "tenants": ["clinic-7"], "operations": ["Decrypt"]},
        ],
    }
    return PermissionMatrix.of(members | changes)


def deny_what_is_not_allowed(kms: StrictKms, matrix: PermissionMatrix) -> None:
    """Policies as they should be: each role its operation, under the tenants' contexts."""
    own = [tenant.context for tenant in matrix.tenants.values()]
    kms.deny(operation="Decrypt", access_key_id="writer")
    kms.deny(operation="GenerateDataKey", access_key_id="reader")
    kms.deny(matrix.tenants["clinic-8"].key, operation="Decrypt", access_key_id="reader")
    kms.deny(when=lambda parameters: parameters.get("EncryptionContext", {}) not in own)


def tried(kms: StrictKms, matrix: PermissionMatrix) -> list[Trial]:
    return try_permissions(matrix, lambda role, region: kms.client(region, access_key_id=role))


def test_kms_decides_each_question_and_uses_no_key(kms: StrictKms) -> None:
    matrix = matrix_of(kms)
    deny_what_is_not_allowed(kms, matrix)
    kms.requests.clear()
    trials = tried(kms, matrix)
    assert len(trials) == 2 * 2 * 2 * 2
    assert all(trial.is_as_expected for trial in trials)
    assert sorted((t.cell.role, t.cell.tenant, t.cell.context, t.cell.operation) for t in trials if t.found) == [
        ("reader", "clinic-7", "own", "Decrypt"),
        ("writer", "clinic-7", "own", "GenerateDataKey"),
        ("writer", "clinic-8", "own", "GenerateDataKey"),
    ]
    assert len(kms.requests) == len(trials)
    assert all(request.parameters["DryRun"] is True for request in kms.requests)
    assert {request.error_code for request in kms.requests} == {
        "DryRunOperationException",
        "AccessDeniedException",
    }
    assert not any("CiphertextBlob" in request.parameters for request in kms.requests)


def test_what_a_policy_allows_too_much_or_too_little_is_found(kms: StrictKms) -> None:
    matrix = matrix_of(kms)
    deny_what_is_not_allowed(kms, matrix)
    kms.allow(kms.account.denials[2])
    kms.deny(matrix.tenants["clinic-7"].key, operation="GenerateDataKey", access_key_id="writer")
    wrong = [trial for trial in tried(kms, matrix) if not trial.is_as_expected]
    assert wrong == [
        Trial(Cell("writer", "clinic-7", "own", "GenerateDataKey"), expected=True, found=False),
        Trial(Cell("reader", "clinic-8", "own", "Decrypt"), expected=False, found=True),
    ]


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "Unavailable"])
def test_a_key_that_cannot_be_used_proves_nothing(kms: StrictKms, state: str) -> None:
    matrix = matrix_of(kms, allow=[])
    kms.deny(access_key_id="reader")
    kms.key(matrix.tenants["clinic-7"].key).state = state
    unclear = [trial for trial in tried(kms, matrix) if trial.found is None]
    assert {trial.cell.tenant for trial in unclear} == {"clinic-7"}
    assert not any(trial.is_as_expected for trial in unclear)
    assert all(trial.reason for trial in unclear)


def test_a_role_that_cannot_be_assumed_is_asked_once(kms: StrictKms) -> None:
    asked = []

    def client_of(role: str, region: str) -> Any:
        asked.append(role)
        if role == "reader":
            raise KeyAccessError("no", operation="AssumeRole", code="AccessDenied")
        return kms.client(region, access_key_id=role)

    trials = try_permissions(matrix_of(kms), client_of)
    assert {trial.found for trial in trials if trial.cell.role == "reader"} == {None}
    assert asked.count("reader") == 1 and asked.count("writer") == 8


def test_an_endpoint_that_knows_no_dry_run_stops_it() -> None:
    with local_aws() as aws:
        matrix = PermissionMatrix.of(
            {"roles": {"me": "current"}, "tenants": {"a": {"key": aws.kms_key_arn}}, "allow": []}
        )
        with pytest.raises(ConfigurationError, match="proves nothing"):
            try_permissions(matrix, lambda role, region: aws.client("kms"))
        assert len([r for r in aws.kms_requests if r["operation"] == "GenerateDataKey"]) == 1


def test_roles_are_assumed_once_with_their_own_credentials() -> None:
    with local_aws() as aws:
        matrix = PermissionMatrix.of(
            {
                "roles": {"me": "current", "writer": ROLE + "writer"},
                "tenants": {"a": {"key": aws.kms_key_arn}},
            }
        )
        client_of = clients_of_roles(matrix, aws.session(), endpoint_url=aws.endpoint_url)
        client_of("me", "us-east-1").list_keys()
        assert client_of("writer", "us-east-1") is client_of("writer", "us-east-1")
        client_of("writer", "us-east-1").list_keys()
        own, assumed = [r["access_key_id"] for r in aws.kms_requests if r["operation"] == "ListKeys"]
        assert own != assumed
        assert sum(request["service"] == "sts" for request in aws.requests) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"allow": [{"role": "wirter", "tenants": ["*"]}]}, "no role 'wirter'"),
        ({"allow": [{"role": "writer", "tenants": ["clinic-9"]}]}, "no tenant 'clinic-9'"),
        ({"allow": [{"role": "writer", "tenants": ["*"], "contexts": ["x"]}]}, "no context 'x'"),
        ({"allow": [{"role": "writer", "tenants": ["*"], "operations": ["Encrypt"]}]}, "operations"),
        ({"contexts": {"own": {}}}, "'own' stands for"),
        ({"roles": {}}, "roles"),
        ({"roles": {"w": "arn:aws:iam::111122223333:user/w"}}, "roles.w"),
        ({"tenants": {"a": {"key": "alias/a"}}}, "tenants.a.key"),
        ({"allowed": []}, "allowed"),
    ],
)
def test_a_file_that_would_prove_nothing_is_refused(kms: StrictKms, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        matrix_of(kms, **changes)


def test_contexts_that_look_like_phi_are_refused(kms: StrictKms) -> None:
    with pytest.raises(PhiInContextError):
        matrix_of(kms, contexts={"x": {"ssn": "123-45-6789"}})


def test_the_command_shows_what_is_not_as_expected(
    kms: StrictKms, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-secret")
    key_arn, file = kms.create_key(), tmp_path / "permissions.toml"
    file.write_text(
        f"""
        [roles]
        me = "current"
        [tenants.clinic-7]
        key = "{key_arn}"
        context = {{ tenant = "clinic-7" }}
        [[allow]]
        role = "me"
        tenants = ["clinic-7"]
        operations = ["GenerateDataKey"]
        """
    )
    command = ["policy", "test", str(file), "--region", "us-east-1", "--endpoint-url", kms.endpoint_url]
    assert run(command) == 1
    said = capsys.readouterr().out
    assert "Decrypt" in said and "1 of 2 as expected" in said
    kms.deny(operation="Decrypt")
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "trials": [
            {"role": "me", "tenant": "clinic-7", "context": "own", "operation": operation}
            | {"expected": word, "found": word, "why": ""}
            for operation, word in (("GenerateDataKey", "allowed"), ("Decrypt", "denied"))
        ],
        "as_expected": 2,
        "not_as_expected": 0,
    }  # fmt: skip
    assert run(["policy", "test", str(tmp_path / "absent.toml")]) == 2
