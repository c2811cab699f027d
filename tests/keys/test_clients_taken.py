"""Which clients are taken (rules 33 and 41): redacted and tagged, or refused by name."""

from __future__ import annotations

import base64
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
import wrapt
from support.keyring_support import EAST, opens, to_encrypt

from phicrypt.audit import CloudWatchLogsSink, JsonlSink, S3SegmentSink, assume_role
from phicrypt.core.aws_clients import check_client, mark_as_double
from phicrypt.errors import ConfigurationError
from phicrypt.keys.branch_keys.store import BranchKeyStore, FailoverRegion
from phicrypt.keys.kms.calls import kms_client
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.signatures import Mac, Signer
from phicrypt.testing import StrictKms
from phicrypt.witness import AnchoredSink


class Wrapper:
    """Delegates whatever it is asked."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Disguised(Wrapper):
    """Passes ``isinstance`` as what it stands around."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self._client)


def subclassed(client: Any) -> Any:
    made = type("KMS", (type(client),), {"__module__": __name__})
    other = object.__new__(made)
    other.__dict__.update(client.__dict__)
    return other


def asynchronous(client: Any) -> Any:
    class AioBaseClient(type(client)):  # type: ignore[misc]
        async def _make_api_call(self, operation_name: str, api_params: Any) -> Any: ...

    AioBaseClient.__module__ = "aiobotocore.client"
    other = object.__new__(AioBaseClient)
    other.__dict__.update(client.__dict__)
    return other


FOREIGN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "wrapper": (Wrapper, "Wrapper came.*stands around"),
    "disguised wrapper": (Disguised, "Disguised came"),
    "wrapt proxy": (wrapt.ObjectProxy, "ObjectProxy came"),
    "subclass": (subclassed, r"KMS came"),
    "mock": (lambda client: mock.Mock(), "Mock came.*mark_as_double"),
    "mock with spec": (lambda client: mock.Mock(spec=client), "Mock came"),
    "magic mock with spec": (lambda client: mock.MagicMock(spec=client), "MagicMock came"),
    "autospec": (lambda client: mock.create_autospec(client, instance=True), "Mock came"),
    "asynchronous client": (asynchronous, "synchronous boto3 client.*AioBaseClient came"),
    "boto3 itself": (lambda client: boto3, "module came"),
}
every_foreign_client = pytest.mark.parametrize("kind", FOREIGN)


@pytest.fixture
def unredacted() -> Iterator[None]:
    """botocore's loggers without any filter, as they are before phicrypt sees a client."""
    loggers = [logging.getLogger(name) for name in ("botocore.endpoint", "botocore.parsers")]
    kept = [list(logger.filters) for logger in loggers]
    for logger in loggers:
        logger.filters.clear()
    yield
    for logger, filters in zip(loggers, kept, strict=True):
        logger.filters[:] = filters


def doors(kms: StrictKms, arn: str, client: Any) -> dict[str, Callable[[], object]]:
    """Every place that takes a client for keys or the audit trail, or what makes one."""

    class Session:
        def client(self, *_: Any, **__: Any) -> Any:
            return client

    good = kms.client()
    return {
        "KmsKeyring": lambda: KmsKeyring(arn, client=client),
        "from_alias": lambda: KmsKeyring.from_alias("alias/notes", client=client, region=EAST),
        "discovery": lambda: KmsKeyring.discovery(
            account_ids=["111122223333"], partition="aws", regions=[EAST], client=client
        ),
        "KmsRsaKeyring": lambda: KmsRsaKeyring(arn, client=client),
        "client_factory": lambda: KmsKeyring(arn, client_factory=lambda region: client).on_encrypt(to_encrypt()),
        "session": lambda: KmsKeyring(arn, session=Session()).on_encrypt(to_encrypt()),
        "kms_client": lambda: kms_client(EAST, session=Session()),
        "BranchKeyStore": lambda: BranchKeyStore("t", "t", arn, kms_client=client, dynamodb_client=None),
        "BranchKeyStore's table": lambda: BranchKeyStore("t", "t", arn, dynamodb_client=client, kms_client=good),
        "failover": lambda: BranchKeyStore(
            "t",
            "t",
            arn,
            kms_client=good,
            multi_region=True,
            failover=[FailoverRegion("us-west-2", kms_client=client)],
        ),
        "Signer": lambda: Signer(arn, client=client),
        "Mac": lambda: Mac(arn, client=client),
        "AnchoredSink": lambda: AnchoredSink(JsonlSink("audit.jsonl"), arn, client=client),
        "S3SegmentSink": lambda: S3SegmentSink("bucket", client=client),
        "CloudWatchLogsSink": lambda: CloudWatchLogsSink("group", client=client),
        "assume_role": lambda: assume_role("role", actor="dr-4711", client=client),
    }


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a log is opened where a sink is made


@every_foreign_client
def test_rule_33_what_is_no_client_of_botocore_is_refused_by_name_everywhere(kms: StrictKms, kind: str) -> None:
    make, says = FOREIGN[kind]
    arn = kms.create_key(replicas=("us-west-2",))
    for name, enter in doors(kms, arn, make(kms.client())).items():
        with pytest.raises(ConfigurationError, match=says) as caught:
            enter()
        assert caught.value.__cause__ is None, name
    assert kms.requests == []


def test_a_client_of_another_service_is_refused(kms: StrictKms) -> None:
    with pytest.raises(ConfigurationError, match="client= takes a client of kms, and one of s3 came"):
        KmsKeyring(kms.create_key(), client=kms.session().client("s3"))
    with pytest.raises(ConfigurationError, match="dynamodb_client= takes a client of dynamodb, and one of kms"):
        BranchKeyStore("t", "t", kms.create_key(), dynamodb_client=kms.client())


@every_foreign_client
def test_rule_33_the_logs_are_redacted_before_a_client_is_looked_at(
    kms: StrictKms, unredacted: None, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Its owner may go on with it: what botocore prints then holds no data key."""
    arn, client = kms.create_key(), kms.client()
    with pytest.raises(ConfigurationError):
        KmsKeyring(arn, client=FOREIGN[kind][0](client))
    caplog.set_level(logging.DEBUG)
    for name in ("botocore.endpoint", "botocore.parsers"):
        caplog.set_level(logging.DEBUG, logger=name)
    data_key = Wrapper(client).generate_data_key(KeyId=arn, NumberOfBytes=32)["Plaintext"]
    assert "Response body" in caplog.text
    assert base64.b64encode(data_key).decode() not in caplog.text


def test_tracers_that_patch_botocores_own_classes_keep_working(
    kms: StrictKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry, X-Ray and others wrap the method of the class; some replace it for good."""
    from botocore.client import BaseClient

    traced: list[str] = []

    def trace(wrapped: Any, instance: Any, arguments: Any, keywords: Any) -> Any:
        traced.append(arguments[0])
        return wrapped(*arguments, **keywords)

    monkeypatch.setattr(
        BaseClient, "_make_api_call", wrapt.FunctionWrapper(vars(BaseClient)["_make_api_call"], trace)
    )
    ring = KmsKeyring(kms.create_key(), client=kms.client())
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert traced == ["GenerateDataKey", "Decrypt"]
    assert all(request.user_agent.startswith("phicrypt/") for request in kms.requests)


def test_a_marked_double_is_used_as_it_is_and_what_stands_around_it_is_none(kms: StrictKms) -> None:
    arn = kms.create_key()
    double = mark_as_double(mock.Mock(wraps=kms.client()))
    double.meta.region_name = EAST
    ring = KmsKeyring(arn, client=double)
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert [name for name, _, _ in double.method_calls] == ["generate_data_key", "decrypt"]
    assert not any("phicrypt" in request.user_agent for request in kms.requests)
    for around in (Wrapper(double), wrapt.ObjectProxy(double), Disguised(double)):
        with pytest.raises(ConfigurationError, match="mark_as_double"):
            KmsKeyring(arn, client=around)


def test_a_marked_class_marks_its_instances_and_no_other() -> None:
    @mark_as_double
    class Fake:
        pass

    class Other:
        __slots__ = ()

    check_client(Fake())
    check_client(mark_as_double(Other()))
    with pytest.raises(ConfigurationError, match="Other came"):
        check_client(Other())


def test_a_marked_double_whose_methods_are_coroutines_is_refused_all_the_same() -> None:
    @mark_as_double
    class Fake:
        async def decrypt(self, **parameters: Any) -> Any: ...

    with pytest.raises(ConfigurationError, match="methods are coroutines"):
        check_client(Fake(), "client=")


def test_rule_41_a_client_that_botocore_made_of_coroutines_is_refused() -> None:
    class Asynchronous:
        async def _make_api_call(self, *_: object) -> None: ...

    session = boto3.Session(region_name="us-east-1")
    session.events.register(
        "creating-client-class.kms", lambda base_classes, **_: base_classes.insert(0, Asynchronous)
    )
    client = session.client("kms", aws_access_key_id="a", aws_secret_access_key="b")
    with pytest.raises(ConfigurationError, match="coroutines"):
        check_client(client)


def test_a_mark_ends_with_its_object() -> None:
    """Another object may get the same place in memory."""
    for _ in range(200):
        mark_as_double(Wrapper(None))
        gc.collect(0)
        with pytest.raises(ConfigurationError):
            check_client(Wrapper(None))


RENAMED = """
import importlib.abc, importlib.machinery, io, logging, re, sys

PRIVATE = re.compile(
    r"\\b_(endpoint|event_emitter|manager|proxy_managers|get_pool_manager_kwargs|service_model|request_signer"
    r"|client_config|emitter|handlers|lookup_cache)\\b"
)

class Renaming(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        return compile(PRIVATE.sub(r"_renamed_\\1", source), path, "exec", dont_inherit=True)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] not in ("botocore", "boto3"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = Renaming(spec.loader.name, spec.loader.path)
        return spec

sys.meta_path.insert(0, Finder())
"""
SCENARIO = """
import base64, os
from support.keyring_support import opens, to_encrypt
from phicrypt.signatures import Mac, Signer
from phicrypt.testing import StrictKms
from phicrypt.witness import AnchoredSink
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.keyring import KmsKeyring

log = io.StringIO()
logging.basicConfig(stream=log, level=logging.DEBUG)
with StrictKms() as kms:
    client = kms.client()
    print("endpoint:", hasattr(client, "_endpoint"))
    ring = KmsKeyring(kms.create_key(), client=client, application="ward-app")
    sealed = ring.on_encrypt(to_encrypt())
    opens(ring, sealed)
    said = [request.user_agent.split(" Boto3")[0] for request in kms.requests]
    print("tagged:", all(one.startswith("phicrypt/") and one.endswith("phicrypt-app/ward-app") for one in said))
    print("request ids:", sealed.origin.request_ids == (kms.requests[0].request_id,))
    print("printed:", "Response body" in log.getvalue())
    print("plaintext:", base64.b64encode(sealed.data_key.key_bytes).decode() in log.getvalue())
    client.describe_key(KeyId=ring.key_arn)
    print("the caller's own:", "phicrypt" in kms.requests[-1].user_agent)
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            opens(ring, sealed)
        except ConfigurationError as error:
            print("in the child:", "refused" if "connections of its own" in str(error) else error)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.wait()
"""


def test_with_a_botocore_whose_private_names_are_gone_calls_are_redacted_and_tagged_or_refused() -> None:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    ran = subprocess.run(
        [sys.executable, "-c", RENAMED + SCENARIO], capture_output=True, text=True, env=environment, timeout=120
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "endpoint: False",
        "tagged: True",
        "request ids: True",
        "printed: True",
        "plaintext: False",
        "the caller's own: False",
        "in the child: refused",
    ]
