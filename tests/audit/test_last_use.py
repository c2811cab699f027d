"""KMS's own word on the last use of a key, compared with the log, and how TLS agreed on keys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from support.cloudtrail_records import ROLE_ARN, deliver, record_of

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.audit import AuditTrail, JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.cli import run
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.evidence.join import join, trail_source
from phicrypt.evidence.key_exchanges import KeyExchanges, is_post_quantum
from phicrypt.evidence.last_uses import LastUseComparison
from phicrypt.evidence.report import render
from phicrypt.testing import StrictKms, mark_as_double
from phicrypt.witness.last_use import LastUse, ask_last_use

needs_the_operation = pytest.mark.skipif(
    "GetKeyLastUsage" not in botocore.session.get_session().get_service_model("kms").operation_names,
    reason="this botocore does not know GetKeyLastUsage",
)
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
NOW = 1_700_000_000_000_000_000
HOUR = 3_600 * 10**9


def event(*, time_ns: int = NOW, key: str = KEY, **call: Any) -> AuditEvent:
    origin = KeyOrigin("aws-kms", key, **{"operation": "Decrypt", **call})
    return AuditEvent(time_ns, "use", "u-1", "decrypt", "success", origin=origin, cache_hit=False)


def used(**changes: Any) -> LastUse:
    return LastUse(KEY, "Decrypt", NOW, "request-1", "event-1", NOW - 100 * HOUR)._replace(**changes)


def found(use: LastUse, *events: AuditEvent) -> tuple[str, str]:
    comparison = LastUseComparison([use])
    for one in events:
        comparison.add(one)
    (finding,) = comparison.findings()
    assert finding.needs_explanation == (finding.word in ("not in the log", "exception"))
    return finding.word, finding.note


class TestComparison:
    def test_a_request_of_ours_is_ours_also_among_further_calls(self) -> None:
        assert found(used(), event(request_ids=("request-0", "request-1")))[0] == "ours"
        other = KeyOrigin("aws-kms", KEY, request_ids=("request-1",), operation="Decrypt")
        assert found(used(), event(key="local", other_calls=(other,)))[0] == "ours"
        assert found(used(), event(key=f"{KEY}#branch-key:7", request_ids=("request-1",)))[0] == "ours"

    def test_a_use_that_the_log_does_not_have_is_foreign(self) -> None:
        word, note = found(used(), event(time_ns=NOW + HOUR, request_ids=("request-0",)))
        assert (word, "event id" in note) == ("not in the log", True)
        word, note = found(used(), event(time_ns=NOW - HOUR, request_ids=("request-0",)))
        assert (word, "newer than the log" in note) == ("not in the log", True)
        assert found(used())[0] == "not in the log"

    def test_a_call_of_ours_without_an_answer_may_be_it(self) -> None:
        assert found(used(), event(correlation_id="c"))[0] == "probably ours"
        assert found(used(), event(request_ids=("request-0",), unanswered_attempts=1))[0] == "probably ours"
        assert found(used(), event(correlation_id="c", operation="GenerateDataKey"))[0] == "not in the log"
        assert found(used(), event(correlation_id="c", time_ns=NOW - HOUR))[0] == "not in the log"

    @pytest.mark.parametrize("change", [{"key": KEY[:-1] + "c"}, {"operation": "Encrypt"}])
    def test_our_request_id_with_another_key_or_operation_is_an_exception(self, change: dict[str, str]) -> None:
        assert found(used(), event(**{"request_ids": ("request-1",), **change}))[0] == "exception"

    def test_a_key_without_a_known_use(self) -> None:
        never = used(operation="", time_ns=0, request_id="", event_id="")
        assert found(never)[0] == "no use known"
        assert found(never, event(request_ids=("request-1",)))[0] == "exception"
        assert found(never, event(request_ids=("request-1",), time_ns=never.tracked_since_ns - HOUR))[0] == (
            "no use known"
        )

    def test_calls_that_kms_does_not_know_after_a_day_are_an_exception(self) -> None:
        later = event(time_ns=NOW + 25 * HOUR, request_ids=("request-9",))
        assert found(used(), event(request_ids=("request-1",)), later)[0] == "exception"
        refused = event(time_ns=NOW + 25 * HOUR, request_ids=("request-9",), error_code="AccessDeniedException")
        assert found(used(), event(request_ids=("request-1",)), refused)[0] == "ours"
        cached = later._replace(cache_hit=True)
        assert found(used(), event(request_ids=("request-1",)), cached)[0] == "ours"


class TestAsking:
    @needs_the_operation
    def test_the_strict_kms_answers_as_aws_does(self) -> None:
        with StrictKms() as kms:
            key_arn, client = kms.create_key(), kms.client()
            assert ask_last_use(client, key_arn).operation == ""
            client.generate_data_key(KeyId=key_arn, KeySpec="AES_256")
            sealed = client.encrypt(KeyId=key_arn, Plaintext=b"x")["CiphertextBlob"]
            kms.deny(key_arn, "Decrypt")
            with pytest.raises(client.exceptions.ClientError):
                client.decrypt(KeyId=key_arn, CiphertextBlob=sealed)
            use, asked = ask_last_use(client, key_arn), kms.requests[2]
            assert asked.operation == "Encrypt"
            assert use == LastUse(
                key_arn, "Encrypt", int(asked.time) * 10**9, asked.request_id, asked.event_id, use.tracked_since_ns
            )
            assert 0 < time.time_ns() - use.tracked_since_ns < 600 * 10**9
            other = kms.create_key()
            client.re_encrypt(CiphertextBlob=sealed, SourceKeyId=key_arn, DestinationKeyId=other)
            assert {ask_last_use(client, one).operation for one in (key_arn, other)} == {"ReEncrypt"}
            kms.create_alias("alias/a", key_arn)
            for wrong in ("alias/a", "nonsense"):
                with pytest.raises(KeyAccessError):
                    ask_last_use(client, wrong)

    @needs_the_operation
    def test_a_refusal_names_the_operation(self) -> None:
        with StrictKms() as kms:
            key_arn = kms.create_key()
            kms.deny(key_arn, "GetKeyLastUsage")
            with pytest.raises(KeyAccessError) as caught:
                ask_last_use(kms.client(), key_arn)
        assert caught.value.operation == "GetKeyLastUsage"

    @needs_the_operation
    def test_an_answer_about_another_key_is_refused(self) -> None:
        with StrictKms() as kms:
            key_arn = kms.create_key()
            kms.alter(lambda answer: {**answer, "KeyId": "another"}, operation="GetKeyLastUsage")
            with pytest.raises(KeyAccessError) as caught:
                ask_last_use(kms.client(), key_arn)
        assert caught.value.code == "WrongKey"

    def test_a_botocore_that_does_not_know_it_says_so(self) -> None:
        @mark_as_double
        class OldClient:
            pass

        with pytest.raises(ConfigurationError, match="update boto3"):
            ask_last_use(OldClient(), KEY)  # type: ignore[arg-type]


class TestCommand:
    @pytest.fixture
    def kms(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with StrictKms() as running:
            yield running

    def ask(
        self, kms: StrictKms, log: Path, capsys: pytest.CaptureFixture[str], *more: str
    ) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = run(["audit", "last-use", "--log", str(log), "--endpoint-url", kms.endpoint_url, "--json", *more])
        said = capsys.readouterr()
        return code, json.loads(said.out or "{}"), said.err

    @needs_the_operation
    def test_a_foreign_use_is_found_without_any_trail(
        self, kms: StrictKms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log, key_arn = tmp_path / "audit.jsonl", kms.create_key()
        with PhiCrypt(KmsKeyring(key_arn, client=kms.client()), audit=[JsonlSink(log)]) as phi:
            message = phi.encrypt(b"x", context={"a": "b"})
        code, said, _ = self.ask(kms, log, capsys)
        assert (code, [one["finding"] for one in said["keys"]]) == (0, ["ours"])
        kms.client().generate_data_key(KeyId=key_arn, KeySpec="AES_256")
        code, said, _ = self.ask(kms, log, capsys)
        assert (code, said["keys"][0]["finding"]) == (1, "not in the log")
        assert said["keys"][0]["event_id"] == next(
            one.event_id for one in reversed(kms.requests) if one.operation == "GenerateDataKey"
        )
        with PhiCrypt(KmsKeyring(key_arn, client=kms.client()), audit=[JsonlSink(log)]) as phi:
            phi.decrypt(message, context={"a": "b"})
        assert self.ask(kms, log, capsys)[0] == 0
        assert run(["audit", "last-use", "--log", str(log), "--endpoint-url", kms.endpoint_url]) == 0
        assert "ours" in capsys.readouterr().out

    @needs_the_operation
    def test_a_key_that_may_not_be_asked_about_is_not_read(
        self, kms: StrictKms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log, key_arn = tmp_path / "audit.jsonl", kms.create_key()
        JsonlSink(log).write([event(key=key_arn)])
        kms.deny(key_arn, "GetKeyLastUsage")
        code, said, _ = self.ask(kms, log, capsys)
        assert code == 12
        assert "kms:GetKeyLastUsage" in said["first_not_read"]

    def test_mistakes_are_told(self, kms: StrictKms, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log = tmp_path / "audit.jsonl"
        JsonlSink(log).write([event(key="local")])
        for more in ((), ("--key", "alias/a")):
            code, _, told = self.ask(kms, log, capsys, *more)
            assert code == 2
            assert "--key" in told


class TestKeyExchange:
    @pytest.mark.parametrize(
        "name", ["X25519MLKEM768", "SecP256r1MLKEM768", "x25519_ml-kem-768", "X25519Kyber768Draft00"]
    )
    def test_hybrids_are_post_quantum(self, name: str) -> None:
        assert is_post_quantum(name)

    @pytest.mark.parametrize("name", ["x25519", "secp256r1", "X448", ""])
    def test_others_are_not(self, name: str) -> None:
        assert not is_post_quantum(name)

    def test_the_share_is_of_those_of_which_it_is_said(self) -> None:
        counts = KeyExchanges()
        assert (counts.share, list(counts.sentences())) == (None, [])
        for name in ("X25519MLKEM768", "x25519", "x25519", ""):
            counts.add(name)
        assert counts.as_dict() == {
            "post_quantum": 1,
            "classical": 2,
            "not_said": 1,
            "post_quantum_share": 1 / 3,
            "by_name": {"x25519": 2, "X25519MLKEM768": 1},
        }
        first, second = counts.sentences()
        assert "1 of 3 of our KMS calls (33%)" in first
        assert "Of 1 of our KMS calls" in second

    def test_names_that_others_choose_are_bounded(self) -> None:
        counts = KeyExchanges()
        for number in range(1_000):
            counts.add(str(number))
        assert len(counts.by_name) == 51
        assert counts.said == 1_000

    def test_the_join_counts_our_calls_and_no_others(self, tmp_path: Path) -> None:
        log = tmp_path / "audit.jsonl"
        with StrictKms() as kms:
            key_arn = kms.create_key()
            trail = AuditTrail([JsonlSink(log)], principal=ROLE_ARN)
            for number in range(3):
                phi = PhiCrypt(KmsKeyring(key_arn, client=kms.client()), audit=trail)
                phi.encrypt(b"x", context={"a": str(number)})
            trail.close()
            kms.client().generate_data_key(KeyId=key_arn, KeySpec="AES_256")
            requests = [one for one in kms.requests if one.operation == "GenerateDataKey"]
        groups = ["X25519MLKEM768", "x25519", None, "X25519MLKEM768"]
        records = [
            record_of(request, key_arn, **({"tlsDetails": {"keyExchange": group}} if group else {}))
            for request, group in zip(requests, groups, strict=True)
        ]
        deliver(tmp_path / "trail", records)
        read, _ = trail_source(str(tmp_path / "trail"), client=lambda service: None)
        with join(log, read) as joined:
            counts = joined.matcher.key_exchanges
            assert (counts.post_quantum, counts.said, counts.not_said) == (1, 2, 1)
            assert "1 of 2 of our KMS calls (50%)" in render(joined, title="t")
