"""How KMS calls are made: endpoints, tags, request ids, errors, redaction."""

from __future__ import annotations

import base64
import copy
import re
import threading
from typing import Any

import pytest

import phicrypt
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.calls import call_kms, kms_client, require_safe_endpoint, tagged
from phicrypt.testing import StrictKms, mark_as_double

CANARY = "canary-tenant-4711"


def own_client(kms: StrictKms, **settings: Any) -> Any:
    return kms_client("us-east-1", endpoint_url=kms.endpoint_url, session=kms.session(), **settings)


def generate(client: Any, arn: str, **more: Any) -> Any:
    return call_kms(client, "GenerateDataKey", key_arn=arn, KeyId=arn, NumberOfBytes=32, **more)


# --- endpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://kms.us-east-1.amazonaws.com",
        "http://10.0.0.1:8080",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "http://[::2]:80",
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "http://",
    ],
)
def test_refuses_an_endpoint_that_is_neither_https_nor_loopback(url: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        kms_client("us-east-1", endpoint_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://vpce-1.kms.us-east-1.vpce.amazonaws.com",
        "http://127.0.0.1:4566",
        "http://[::1]:1",
        "http://LOCALHOST",
    ],
)
def test_accepts_https_and_loopback(url: str) -> None:
    require_safe_endpoint(url)


def test_refuses_a_plain_http_endpoint_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example.com")
    with pytest.raises(ConfigurationError, match="loopback"):
        kms_client("us-east-1")


@pytest.mark.parametrize("from_environment", [False, True])
def test_calls_to_loopback_never_pass_a_proxy(
    kms: StrictKms, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    with StrictKms() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.endpoint_url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        if from_environment:
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.endpoint_url)
            client = kms_client("us-east-1", session=kms.session())
        else:
            client = own_client(kms)
        generate(client, kms.create_key())
        assert (len(kms.requests), proxy.requests) == (1, [])


def test_fips_switch_chooses_the_fips_endpoint_of_the_region() -> None:
    client = kms_client("us-east-1", use_fips_endpoint=True)
    assert client.meta.endpoint_url == "https://kms-fips.us-east-1.amazonaws.com"


def test_fips_and_an_endpoint_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="FIPS"):
        kms_client("us-east-1", use_fips_endpoint=True, endpoint_url="https://kms.example.com")


@pytest.mark.parametrize("region", ["us east 1", "evil.example.com/#"])
def test_refuses_a_region_that_is_no_host_label(region: str) -> None:
    with pytest.raises(ConfigurationError, match="Region"):
        kms_client(region)


# --- tags ----------------------------------------------------------------------------------------


def test_user_agent_begins_with_version_correlation_id_and_application(kms: StrictKms) -> None:
    arn = kms.create_key()
    answer = generate(own_client(kms, application="ward-app"), arn)
    sent = kms.requests[0].user_agent
    assert sent.startswith(
        f"phicrypt/{phicrypt.__version__} phicrypt-id/{answer.correlation_id} phicrypt-app/ward-app Boto3/"
    )
    assert re.fullmatch("[0-9a-f]{32}", answer.correlation_id)


def test_each_call_has_its_own_correlation_id_and_retries_share_it(kms: StrictKms) -> None:
    arn = kms.create_key()
    client = tagged(kms.client(max_attempts=3))
    kms.throttle(times=2)
    first, second = generate(client, arn), generate(client, arn)
    ids = [re.search("phicrypt-id/([0-9a-f]+)", request.user_agent)[1] for request in kms.requests]
    assert ids == [first.correlation_id] * 3 + [second.correlation_id]
    assert first.correlation_id != second.correlation_id


def test_request_ids_of_all_attempts_are_reported_in_order(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.throttle(times=2)
    answer = generate(tagged(kms.client(max_attempts=3)), arn)
    assert answer.request_ids == tuple(request.request_id for request in kms.requests)
    assert len(answer.request_ids) == 3


def test_request_ids_of_all_attempts_stand_in_the_error(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.throttle(times=3)
    with pytest.raises(KeyAccessError) as caught:
        generate(tagged(kms.client(max_attempts=3)), arn)
    assert caught.value.request_ids == tuple(request.request_id for request in kms.requests)
    assert caught.value.request_id == kms.requests[-1].request_id
    assert caught.value.correlation_id in kms.requests[0].user_agent


def test_a_handed_client_is_not_changed(kms: StrictKms) -> None:
    arn = kms.create_key()
    client = kms.client()
    attributes = dict(client.__dict__)
    emitter = client.meta.events
    client.describe_key(KeyId=arn)
    generate(tagged(client, "ward-app"), arn)
    assert client.__dict__ == attributes
    assert client.meta.events is emitter
    client.describe_key(KeyId=arn)
    before, ours, after = (request.user_agent for request in kms.requests)
    assert "phicrypt" in ours
    assert before == after
    assert "phicrypt" not in after


def test_two_applications_share_a_handed_client_and_each_says_its_own_name(kms: StrictKms) -> None:
    arn = kms.create_key()
    client = kms.client()
    first, second = tagged(client, "ward-app"), tagged(client, "billing")
    for one in (first, second, first):
        generate(one, arn)
    generate(tagged(client), arn)
    names = [re.findall(r"phicrypt-app/(\S+)", request.user_agent) for request in kms.requests]
    assert names == [["ward-app"], ["billing"], ["ward-app"], []]
    assert [request.user_agent.count("phicrypt/") for request in kms.requests] == [1, 1, 1, 1]


def test_hooks_of_the_handed_client_still_run(kms: StrictKms) -> None:
    arn = kms.create_key()
    client = kms.client()
    seen: list[str] = []
    client.meta.events.register("before-call.kms", lambda model, **_: seen.append(model.name))
    generate(tagged(client), arn)
    assert seen == ["GenerateDataKey"]


def test_tagging_twice_tags_once_and_the_last_application_counts(kms: StrictKms) -> None:
    arn = kms.create_key()
    once = tagged(kms.client(), "first")
    assert tagged(once) is once
    assert tagged(once, "first") is once
    generate(tagged(once, "second"), arn)
    assert kms.requests[0].user_agent.count("phicrypt/") == 1
    assert "phicrypt-app/second" in kms.requests[0].user_agent


def test_clients_of_other_services_can_be_tagged() -> None:
    from phicrypt.testing import local_aws

    with local_aws() as aws:
        tagged(aws.client("dynamodb"), "ward-app").list_tables()
        assert aws.requests[-1]["service"] == "dynamodb"
        assert aws.requests[-1]["user_agent"].startswith(f"phicrypt/{phicrypt.__version__} phicrypt-id/")


@pytest.mark.parametrize("application", ["", "two words", "x" * 51, "bell\x07", "new\r\nline"])
def test_refuses_an_application_name_that_breaks_the_header(application: str) -> None:
    with pytest.raises(ConfigurationError, match="application"):
        kms_client("us-east-1", application=application)


def test_a_fake_without_botocore_inside_is_used_as_it_is() -> None:
    class Fake:
        def generate_data_key(self, **parameters: Any) -> dict[str, Any]:
            return {"parameters": parameters, "ResponseMetadata": {"RequestId": "r-1"}}

    fake = mark_as_double(Fake())
    assert tagged(fake, "ward-app") is fake
    answer = call_kms(fake, "GenerateDataKey", key_arn=None, KeyId="k", GrantTokens=[], EncryptionContext={})
    assert answer.response["parameters"] == {"KeyId": "k"}
    assert answer.request_ids == ("r-1",)


def test_own_connections_share_no_pool_with_the_handed_client(kms: StrictKms) -> None:
    arn = kms.create_key()
    client: Any = kms.client()
    clone = tagged(client, own_connections=True)
    generate(clone, arn)
    assert len(client._endpoint.http_session._manager.pools.keys()) == 0
    assert len(clone._endpoint.http_session._manager.pools.keys()) == 1


class _CopiedSlowly:
    """A client's events, whose copy is made only once another thread had time to change them."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self.copying, self.changed = threading.Event(), threading.Event()
        self.was_changed_meanwhile = False

    def __copy__(self) -> Any:
        if not self.copying.is_set():
            self.copying.set()
            self.was_changed_meanwhile = self.changed.wait(0.5)
        return copy.copy(self._events)

    def register_last(self, *arguments: Any, **options: Any) -> None:
        self._events.register_last(*arguments, **options)
        self.changed.set()


def test_one_client_that_two_threads_tag_at_once_is_not_changed_while_its_events_are_copied(
    kms: StrictKms,
) -> None:
    client: Any = kms.client()
    events = client.meta.events = _CopiedSlowly(client.meta.events)
    first = threading.Thread(target=tagged, args=(client,))
    first.start()
    assert events.copying.wait(10)
    second = threading.Thread(target=tagged, args=(client,))
    second.start()
    first.join(10)
    second.join(10)
    # botocore would raise "dictionary changed size during iteration", in the first use of a key.
    assert not events.was_changed_meanwhile
    generate(tagged(client), kms.create_key())
    assert kms.requests[-1].user_agent.count("phicrypt-id/") == 1


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "says", "is_retryable", "is_outage"),
    [
        ("AccessDeniedException", 400, "allow kms:GenerateDataKey", False, False),
        ("DisabledException", 400, "is disabled", False, False),
        ("KMSInvalidStateException", 400, "pending deletion", False, False),
        ("NotFoundException", 400, "check the ARN, the client's Region", False, False),
        ("InvalidCiphertextException", 400, "another key, or was changed", False, False),
        ("IncorrectKeyException", 400, "another key", False, False),
        ("InvalidKeyUsageException", 400, "KeyUsage", False, False),
        ("ExpiredTokenException", 400, "expired", False, False),
        ("ThrottlingException", 400, "throttled", True, False),
        ("LimitExceededException", 400, "quota", False, False),
        ("KMSInternalException", 500, "another Region", True, True),
        ("DependencyTimeoutException", 503, "another Region", True, True),
        ("SomethingNew", 400, "refused", False, False),
    ],
)
def test_aws_errors_say_what_to_do(
    kms: StrictKms, code: str, status: int, says: str, is_retryable: bool, is_outage: bool
) -> None:
    arn = kms.create_key()
    kms.fail(code, status=status)
    with pytest.raises(KeyAccessError, match=says) as caught:
        generate(tagged(kms.client()), arn, EncryptionContext={"tenant": CANARY})
    error = caught.value
    assert (error.code, error.operation, error.key_arn) == (code, "GenerateDataKey", arn)
    assert (error.is_retryable, error.is_outage) == (is_retryable, is_outage)
    assert error.request_id == kms.requests[0].request_id
    assert arn in str(error)
    assert CANARY not in f"{error}{error!r}{error.__cause__}"
    assert error.__suppress_context__
    assert error.__context__ is None  # botocore's error may quote what was sent


def test_a_denial_quotes_aws_to_name_the_policy(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.deny(arn)
    with pytest.raises(KeyAccessError, match="explicit deny in a resource-based policy"):
        generate(tagged(kms.client()), arn)


def test_a_denial_that_repeats_a_context_value_is_not_quoted(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.deny(arn)
    with pytest.raises(KeyAccessError) as caught:
        generate(tagged(kms.client(access_key_id=CANARY)), arn, EncryptionContext={"tenant": CANARY})
    assert CANARY not in str(caught.value)


def test_dropped_connections_and_closed_ports_are_outages(kms: StrictKms) -> None:
    arn = kms.create_key()
    with kms.region_down("us-east-1"), pytest.raises(KeyAccessError, match="did not answer") as dropped:
        generate(tagged(kms.client()), arn)
    with pytest.raises(KeyAccessError, match="did not answer") as closed:
        generate(tagged(kms.client(endpoint_url=kms.closed_endpoint())), arn)
    for caught, code in ((dropped, "ConnectionClosedError"), (closed, "EndpointConnectionError")):
        assert (caught.value.code, caught.value.is_retryable, caught.value.is_outage) == (code, True, True)
        assert caught.value.request_id is None


def test_a_read_timeout_is_an_outage(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.hang(1.0)
    client = own_client(kms, read_timeout_seconds=0.1, max_attempts=1)
    with pytest.raises(KeyAccessError) as caught:
        generate(client, arn)
    assert (caught.value.code, caught.value.is_outage) == ("ReadTimeoutError", True)


def test_own_client_retries_throttling_up_to_max_attempts(kms: StrictKms) -> None:
    arn = kms.create_key()
    kms.throttle(times=1)
    generate(own_client(kms, max_attempts=2), arn)
    assert [request.status for request in kms.requests] == [400, 200]


def test_missing_credentials_are_named(kms: StrictKms, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    client = kms_client("us-east-1", endpoint_url=kms.endpoint_url)
    with pytest.raises(KeyAccessError, match="no AWS credentials") as caught:
        generate(client, kms.create_key())
    assert (caught.value.code, caught.value.is_retryable) == ("NoCredentialsError", False)


def test_parameters_that_botocore_refuses_are_not_repeated(kms: StrictKms) -> None:
    with pytest.raises(KeyAccessError) as caught:
        generate(tagged(kms.client()), kms.create_key(), EncryptionContext={"tenant": [CANARY]})
    assert caught.value.code == "ParamValidationError"
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_other_exceptions_of_a_fake_pass_through() -> None:
    class Fake:
        def decrypt(self, **_: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call_kms(Fake(), "Decrypt", key_arn=None)


@pytest.mark.parametrize("plaintext", ["A", 5, [], {"a": 1}])
def test_rule_27_an_answer_that_botocore_cannot_parse_is_a_key_access_error(
    kms: StrictKms, plaintext: Any
) -> None:
    kms.alter(lambda answer: {**answer, "Plaintext": plaintext})
    with pytest.raises(KeyAccessError):
        generate(tagged(kms.client()), kms.create_key())


def test_settings_of_a_botocore_config_win(kms: StrictKms) -> None:
    from botocore.config import Config

    client = own_client(kms, config=Config(read_timeout=0.1, retries={"total_max_attempts": 1}))
    kms.hang(1.0)
    with pytest.raises(KeyAccessError, match="ReadTimeoutError"):
        generate(client, kms.create_key())
    assert len(kms.requests) == 1


def test_an_answer_hides_its_response_in_repr(kms: StrictKms) -> None:
    answer = generate(tagged(kms.client()), kms.create_key())
    assert repr(answer.response["Plaintext"])[2:-1] not in repr(answer)
    assert base64.b64encode(answer.response["Plaintext"]).decode() not in repr(answer)
