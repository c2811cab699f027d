"""Rule 35: pairs that a message is bound to and does not store."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from aws_encryption_sdk.identifiers import AlgorithmSuite
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.keys_fakes import CountingKeyring
from support.messages import CONTEXT, WRAPPING_KEY, raw_client
from support.official_vectors import load_bytes, load_vectors

from phicrypt import ANY_CONTEXT, HierarchicalKeyring, MultiKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink
from phicrypt.core.context import serialize_context
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, EncryptedDataKey
from phicrypt.errors import AuthenticationError, ConfigurationError, ContextMismatchError, PhiInContextError
from phicrypt.esdk import PhiCryptMaterialsManager
from phicrypt.formats.esdk.derivation import derive_keys
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.guard import PhiGuard
from phicrypt.testing import StaticBranchKeyStore, StaticKeyring

PATIENT = {"patient": "p-20391-canary"}
WHOLE = {**CONTEXT, **PATIENT}
NAMES = ("patient",)
PLAINTEXT = b"hemoglobin 13.5 g/dL" * 40


def written_by_encrypt(phi: PhiCrypt, **options: Any) -> bytes:
    return phi.encrypt(PLAINTEXT, **options)


def written_by_encrypt_into(phi: PhiCrypt, **options: Any) -> bytes:
    buffer = bytearray(4_096)
    return bytes(buffer[: phi.encrypt_into(PLAINTEXT, buffer, **options)])


def written_by_encrypt_stream(phi: PhiCrypt, **options: Any) -> bytes:
    sink = io.BytesIO()
    phi.encrypt_stream(io.BytesIO(PLAINTEXT), sink, **options)
    return sink.getvalue()


def written_by_encrypting_reader(phi: PhiCrypt, **options: Any) -> bytes:
    return phi.encrypting_reader(io.BytesIO(PLAINTEXT), **options).read()


def read_by_decrypt(phi: PhiCrypt, message: bytes, **options: Any) -> bytes:
    return phi.decrypt(message, **options)


def read_by_decrypt_into(phi: PhiCrypt, message: bytes, **options: Any) -> bytes:
    buffer = bytearray(4_096)
    return bytes(buffer[: phi.decrypt_into(message, buffer, **options)])


def read_by_decrypt_stream(phi: PhiCrypt, message: bytes, **options: Any) -> bytes:
    sink = io.BytesIO()
    phi.decrypt_stream(io.BytesIO(message), sink, **options)
    return sink.getvalue()


def read_by_decrypting_reader(phi: PhiCrypt, message: bytes, **options: Any) -> bytes:
    with phi.decrypting_reader(io.BytesIO(message), **options) as reader:
        return reader.read()


def read_by_break_glass(phi: PhiCrypt, message: bytes, **options: Any) -> bytes:
    keyring = RawAesKeyring("clinic", "key-1", WRAPPING_KEY)
    with phi.break_glass(
        actor="dr-1", reason="an emergency on ward 7", expires_in_seconds=60, keyring=keyring
    ) as grant:
        return grant.decrypt(message, **options)


WRITERS = (
    written_by_encrypt,
    written_by_encrypt_into,
    written_by_encrypt_stream,
    written_by_encrypting_reader,
)
READERS = (read_by_decrypt, read_by_decrypt_into, read_by_decrypt_stream, read_by_decrypting_reader)
Write = Callable[..., bytes]
Read = Callable[..., bytes]
by_reader = pytest.mark.parametrize("read", READERS)


def client(**options: Any) -> PhiCrypt:
    return raw_client(required_context=NAMES, **options)


# ---- what is written


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_rule_35_the_message_stores_no_required_pair_and_its_tag_covers_it(write: Write, signed: bool) -> None:
    message = write(client(), context=WHOLE, signed=signed)
    assert PATIENT["patient"].encode() not in message
    assert b"patient" not in message
    header = parse_header(ByteReader(message), ReadLimits())
    assert {name for name in header.context if not name.startswith("aws-")} == {"tenant"}
    data_key = data_key_of(header)
    message_key, _ = derive_keys(header.suite, DataKey(data_key), header.message_id)
    # The specification's words: header body, then the serialization of the required pairs alone.
    AESGCM(message_key).decrypt(header.iv, header.tag, header.body + serialize_context(PATIENT))


def data_key_of(header: Any) -> bytes:
    """The data key, opened by hand: wrapped under the whole context (``raw-aes-keyring.md``)."""
    (wrapped,) = header.encrypted_data_keys
    whole = serialize_context({**header.context, **PATIENT})
    return AESGCM(WRAPPING_KEY).decrypt(wrapped.provider_info[-12:], wrapped.ciphertext, whole)


def test_rule_35_without_required_pairs_the_tag_covers_the_header_alone() -> None:
    header = parse_header(ByteReader(client().encrypt(b"x", context=CONTEXT, required_context=())), ReadLimits())
    (wrapped,) = header.encrypted_data_keys
    data_key = AESGCM(WRAPPING_KEY).decrypt(wrapped.provider_info[-12:], wrapped.ciphertext, header.context_bytes)
    message_key, _ = derive_keys(header.suite, DataKey(data_key), header.message_id)
    AESGCM(message_key).decrypt(header.iv, header.tag, header.body)


@pytest.mark.parametrize(("write", "read"), list(product(WRITERS, (*READERS, read_by_break_glass))))
def test_rule_35_every_writer_is_read_by_every_reader(write: Write, read: Read) -> None:
    phi = client(audit=[RecordingSink()])
    assert read(phi, write(phi, context=WHOLE), context=WHOLE) == PLAINTEXT


@by_reader
def test_a_context_may_be_required_as_a_whole(read: Read) -> None:
    phi = raw_client(required_context=("tenant", "patient"))
    message = phi.encrypt(PLAINTEXT, context=WHOLE)
    assert parse_header(ByteReader(message), ReadLimits()).context_bytes == b""
    assert read(phi, message, context=WHOLE) == PLAINTEXT


@by_reader
def test_the_keyword_of_a_call_overrides_the_clients(read: Read) -> None:
    phi = client()
    plain = phi.encrypt(PLAINTEXT, context=WHOLE, required_context=())
    assert b"p-20391-canary" in plain
    assert read(phi, plain, context=WHOLE, required_context=()) == PLAINTEXT
    other = phi.encrypt(PLAINTEXT, context=WHOLE, required_context=(name for name in ("tenant",)))
    assert read(phi, other, context=WHOLE, required_context={"tenant"}) == PLAINTEXT
    assert b"clinic-7" not in other


# ---- what is refused


@by_reader
def test_rule_35_another_value_opens_nothing(read: Read) -> None:
    message = client().encrypt(PLAINTEXT, context=WHOLE)
    with pytest.raises(AuthenticationError):
        read(client(), message, context={**CONTEXT, "patient": "p-2"})


class UnboundKeyring(CountingKeyring):
    """Wraps data keys without their context, as raw RSA keyrings do, and lets them be cached."""

    def on_encrypt(self, materials: Any) -> Any:
        self.encrypts += 1
        entry = EncryptedDataKey("test", b"unbound", b"unbound")
        return materials.with_recipient(entry, data_key=DataKey(bytes(32)), origin=KeyOrigin("test", "unbound"))

    def on_decrypt(self, materials: Any, encrypted_data_keys: Any) -> Any:
        self.decrypts += 1
        return materials.with_data_key(DataKey(bytes(32)), recipient_index=0, origin=KeyOrigin("test", "unbound"))


@by_reader
def test_rule_35_the_tag_alone_refuses_another_value_where_no_keyring_binds_the_context(read: Read) -> None:
    phi = PhiCrypt(UnboundKeyring(), required_context=NAMES)
    message = phi.encrypt(PLAINTEXT, context=WHOLE)
    for wrong in ("p-20391-canarx", "p-2", "p-20391-canary\x00"):
        with pytest.raises(AuthenticationError) as caught:
            read(phi, message, context={**CONTEXT, "patient": wrong})
        assert caught.value.reason == "header tag"
    assert read(phi, message, context=WHOLE) == PLAINTEXT
    with pytest.raises(AuthenticationError):  # also after the right one was cached
        read(phi, message, context={**CONTEXT, "patient": "p-2"})


def test_rule_35_a_required_name_is_bound_as_well_as_its_value() -> None:
    phi = PhiCrypt(UnboundKeyring())
    message = phi.encrypt(b"x", context={**CONTEXT, "ward": "7"}, required_context=("ward",))
    with pytest.raises(AuthenticationError):
        phi.decrypt(message, context={**CONTEXT, "bed": "7"}, required_context=("bed",))
    with pytest.raises(AuthenticationError):
        phi.decrypt(message, context=CONTEXT)


@by_reader
def test_rule_35_an_undeclared_missing_pair_is_a_mismatch_that_says_what_to_declare(read: Read) -> None:
    keyring = CountingKeyring()
    message = PhiCrypt(keyring).encrypt(PLAINTEXT, context=WHOLE, required_context=NAMES)
    with pytest.raises(ContextMismatchError, match=r"stores no pair named 'patient'.*required_context") as caught:
        read(PhiCrypt(keyring), message, context=WHOLE)
    assert caught.value.names == ("patient",)
    assert "canary" not in str(caught.value)
    assert keyring.decrypts == 0
    # A pair that is there with another value is not told to be declared.
    with pytest.raises(ContextMismatchError) as caught:
        read(PhiCrypt(keyring), message, context={"tenant": "clinic-8"})
    assert "required_context" not in str(caught.value)


@by_reader
def test_rule_35_a_header_that_stores_a_declared_name_is_refused_before_any_key_is_used(read: Read) -> None:
    """The downgrade: by its own bytes such a message is bound to what whoever wrote it could say."""
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    message = phi.encrypt(PLAINTEXT, context=WHOLE)
    for _ in range(2):
        before = keyring.decrypts
        with pytest.raises(ContextMismatchError, match=r"stores 'patient'.*required context") as caught:
            read(phi, message, context=WHOLE, required_context=NAMES)
        assert caught.value.names == ("patient",)
        assert keyring.decrypts == before
        assert read(phi, message, context=WHOLE) == PLAINTEXT  # and again, now that the key is cached


def test_rule_08_names_are_compared_first_and_values_by_the_tag() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, required_context=NAMES)
    message = phi.encrypt(b"x", context=WHOLE)
    with pytest.raises(ContextMismatchError):
        phi.decrypt(message, context={"tenant": "clinic-8", **PATIENT})
    with pytest.raises(ContextMismatchError, match="stores no pair"):
        phi.decrypt(message, context={**WHOLE, "ward": "7"})
    assert keyring.decrypts == 0
    with pytest.raises(AuthenticationError):
        phi.decrypt(message, context={**CONTEXT, "patient": "p-2"})
    assert phi.decrypt(message, context=WHOLE) == b"x"


def test_a_declared_name_needs_its_value_on_both_ways() -> None:
    phi = client()
    message = phi.encrypt(b"x", context=WHOLE)
    for read in READERS:
        with pytest.raises(ConfigurationError, match="'patient'"):
            read(phi, message, context=CONTEXT)
        with pytest.raises(ConfigurationError, match=r"'patient'.*ANY_CONTEXT"):
            read(phi, message, context=ANY_CONTEXT)
    for write in WRITERS:
        with pytest.raises(ConfigurationError, match="'patient'"):
            write(phi, context=CONTEXT)
        with pytest.raises(ConfigurationError, match="'patient'"):
            write(phi)


@pytest.mark.parametrize(
    "names",
    ["patient", b"patient", {"patient": "p-1"}, 7, ("",), (7,), ("aws-crypto-public-key",), ("phicrypt-x",)],
)
def test_names_that_cannot_be_declared_are_refused(names: Any) -> None:
    with pytest.raises(ConfigurationError):
        raw_client(required_context=names)
    with pytest.raises(ConfigurationError):
        raw_client().encrypt(b"x", context=WHOLE, required_context=names)
    with pytest.raises(ConfigurationError):
        raw_client().decrypt(b"x", context=WHOLE, required_context=names)


def test_rule_34_required_pairs_are_written_for_all_readers() -> None:
    for value in ("", "x" * 32_768):
        with pytest.raises(ConfigurationError):
            client().encrypt(b"x", context={**CONTEXT, "patient": value})


# ---- the cache


def test_rule_11_the_caches_hold_stored_and_required_pairs_apart() -> None:
    keyring = UnboundKeyring()
    phi = PhiCrypt(keyring)
    splits = [(), ("patient",), ("tenant",), ("patient", "tenant")]
    messages = {names: phi.encrypt(PLAINTEXT, context=WHOLE, required_context=names) for names in splits}
    assert keyring.encrypts == len(splits)
    for _ in range(2):
        for names, message in messages.items():
            assert phi.decrypt(message, context=WHOLE, required_context=names) == PLAINTEXT
    assert keyring.decrypts == len(splits)
    assert phi.encrypt(b"", context=WHOLE, required_context=("patient",))
    assert keyring.encrypts == len(splits)
    # Two patients in one stored context, under the same encrypted data keys.
    other = phi.encrypt(PLAINTEXT, context={**CONTEXT, "patient": "p-2"}, required_context=NAMES)
    assert phi.decrypt(other, context={**CONTEXT, "patient": "p-2"}, required_context=NAMES) == PLAINTEXT
    assert keyring.decrypts == len(splits) + 1


def test_a_branch_key_supplier_sees_the_required_pairs_that_the_reader_tells() -> None:
    shown: list[dict[str, str]] = []

    def supplier(context: Any) -> str:
        shown.append(dict(context))
        return f"branch-{context['patient']}"

    version = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"
    store = StaticBranchKeyStore("branch-p-20391-canary", version, bytes(range(32)), bytes(32))
    phi = PhiCrypt(HierarchicalKeyring(store, supplier), required_context=NAMES)
    assert phi.decrypt(phi.encrypt(b"x", context=WHOLE), context=PATIENT) == b"x"
    assert shown == [WHOLE, PATIENT]


# ---- the guard


def test_rule_35_the_guard_judges_required_pairs_unless_every_child_binds_locally() -> None:
    phi_like = {**CONTEXT, "patient": "078-05-1120"}
    local = RawAesKeyring("clinic", "key-1", WRAPPING_KEY)
    for keyring in (local, MultiKeyring(local, RawAesKeyring("clinic", "key-2", WRAPPING_KEY))):
        phi = PhiCrypt(keyring, required_context=NAMES)
        assert phi.decrypt(phi.encrypt(b"x", context=phi_like), context=phi_like) == b"x"
        with pytest.raises(PhiInContextError):  # stored, it is judged as ever
            phi.encrypt(b"x", context=phi_like, required_context=("tenant",))
    for keyring in (CountingKeyring(), MultiKeyring(local, CountingKeyring())):
        with pytest.raises(PhiInContextError) as caught:
            PhiCrypt(keyring, required_context=NAMES).encrypt(b"x", context=phi_like)
        assert caught.value.names == ("patient",)
    # A name stands in errors and logs, whoever binds the value.
    with pytest.raises(PhiInContextError):
        PhiCrypt(local).encrypt(b"x", context={"078-05-1120": "x"}, required_context=("078-05-1120",))


def test_a_guard_that_hashes_leaves_what_nobody_is_shown() -> None:
    guard = PhiGuard("hash", hash_key=bytes(range(32)))
    phi_like = {"tenant": "clinic-7", "patient": "078-05-1120", "note": "123-45-6789"}
    local = client(guard=guard)
    message = local.encrypt(b"x", context=phi_like)
    assert local.decrypt(message, context=phi_like) == b"x"
    hashed = guard.check({"note": phi_like["note"]})
    assert client(guard=None).decrypt(message, context={**phi_like, **hashed}) == b"x"
    shown = PhiCrypt(CountingKeyring(), required_context=NAMES, guard=guard)
    message = shown.encrypt(b"x", context=phi_like)
    assert shown.decrypt(message, context=phi_like) == b"x"
    both = {**phi_like, **hashed, **guard.check({"patient": phi_like["patient"]})}
    assert PhiCrypt(CountingKeyring(), required_context=NAMES, guard=None).decrypt(message, context=both) == b"x"


def test_break_glass_opens_what_a_hashing_guard_had_bound_under_the_daily_keyrings() -> None:
    guard = PhiGuard("hash", hash_key=bytes(range(32)))
    daily = MultiKeyring(CountingKeyring("key-2"), RawAesKeyring("clinic", "key-1", WRAPPING_KEY))
    phi = PhiCrypt(daily, required_context=NAMES, guard=guard, audit=[RecordingSink()])
    phi_like = {"tenant": "clinic-7", "patient": "078-05-1120"}
    assert read_by_break_glass(phi, phi.encrypt(b"x", context=phi_like), context=phi_like) == b"x"


# ---- the trail and inspect


@pytest.mark.parametrize("read", [*READERS, read_by_break_glass])
def test_rule_35_events_name_required_pairs_and_hold_no_value(read: Read) -> None:
    sink = RecordingSink()
    phi = client(audit=[sink])
    for write in WRITERS:
        message = write(phi, context=WHOLE)
        read(phi, message, context=WHOLE)
        with pytest.raises(AuthenticationError):
            read(phi, message, context={**CONTEXT, "patient": "p-2-canary"})
        with pytest.raises(ContextMismatchError):
            read(phi, message, context=WHOLE, required_context=())
    phi.flush()
    lines = [event.to_json() for event in sink.events if not event.kind.startswith("break-glass")]
    assert lines
    for line, event in zip(lines, sink.events, strict=False):
        assert "canary" not in line
        assert "p-2" not in line, event
    named = [event for event in sink.events if event.required_context]
    assert {event.required_context for event in named} == {("patient",)}
    assert all(event.context == CONTEXT for event in named)
    assert '"required_context":["patient"]' in "".join(lines)


def test_inspect_tells_that_required_pairs_are_not_stored() -> None:
    message = client().encrypt(b"x", context=WHOLE)
    summary = client().inspect(message)
    assert summary.context_names == ("tenant",)
    assert summary.required_context_names == ("patient",)
    assert raw_client().inspect(message).required_context_names == ()
    assert client().inspect(io.BytesIO(message)).as_dict()["required_context_names"] == ("patient",)


def test_nothing_shows_a_required_value() -> None:
    phi = client()
    bound = phi.session.contexts.to_bind(WHOLE, frozenset(NAMES))
    expected = phi.session.contexts.expected(WHOLE, frozenset(NAMES))
    materials, _ = phi.provider.encryption_materials(
        parse_header(ByteReader(phi.encrypt(b"", context=WHOLE)), ReadLimits()).suite,
        bound.pairs,
        plaintext_length_bytes=0,
        required=bound.required,
    )
    for value in (phi, phi.session, bound, bound.required, expected, materials):
        assert "canary" not in repr(value)


# ---- others


SDK_SUITES = (
    AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
)
"""Unsigned and signed."""
MPL_VECTORS = ("esdk-mpl", "decrypt-manifest.json")


def test_official_messages_of_the_required_context_manager_open() -> None:
    tests = load_vectors(*MPL_VECTORS)["tests"]
    keys = load_vectors("esdk-mpl", "keys.json")["keys"]
    opened = 0
    for vector in (test["decryption-scenario"] for test in tests.values()):
        description = vector["decryptKeyDescription"]
        if description["type"] != "required-encryption-context-cmm":
            continue
        raw = description["underlying"]
        named = keys[raw["key"]]
        keyring = RawAesKeyring(raw["provider-id"], named["key-id"], base64.b64decode(named["material"]))
        message = load_bytes("esdk-mpl", vector["ciphertext"].removeprefix("file://"))
        context, names = vector["reproduced-encryption-context"], description["requiredEncryptionContextKeys"]
        phi = PhiCrypt(keyring)
        for read in (read_by_decrypt, read_by_decrypt_stream):
            plaintext = read(phi, message, context=context, required_context=names, allow_uncommitted=True)
            assert plaintext == load_bytes("esdk-mpl", vector["result"].removeprefix("file://"))
        wrong = {name: "x" if name in names else value for name, value in context.items()}
        with pytest.raises(AuthenticationError):
            phi.decrypt(message, context=wrong, required_context=names, allow_uncommitted=True)
        with pytest.raises(ContextMismatchError):
            phi.decrypt(message, context=context, allow_uncommitted=True)
        opened += 1
    assert opened >= 19


def mpl_manager() -> Any:
    """AWS's own manager of required context, over a raw AES keyring."""
    pytest.importorskip("aws_cryptographic_material_providers.mpl", reason="the MPL is not installed")
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders, models
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig

    mpl = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    keyring = mpl.create_raw_aes_keyring(
        models.CreateRawAesKeyringInput(
            key_namespace="clinic",
            key_name="key-1",
            wrapping_key=WRAPPING_KEY,
            wrapping_alg=models.AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )
    return mpl.create_required_encryption_context_cmm(
        models.CreateRequiredEncryptionContextCMMInput(
            required_encryption_context_keys=list(NAMES),
            underlying_cmm=mpl.create_default_cryptographic_materials_manager(
                models.CreateDefaultCryptographicMaterialsManagerInput(keyring=keyring)
            ),
        )
    )


@pytest.mark.parametrize("signed", [False, True])
def test_awss_manager_of_required_context_reads_ours_and_we_read_its(signed: bool) -> None:
    manager = mpl_manager()
    sdk, suite = EncryptionSDKClient(), SDK_SUITES[signed]
    ours = client().encrypt(PLAINTEXT, context=WHOLE, signed=signed, frame_length_bytes=512)
    assert sdk.decrypt(source=ours, materials_manager=manager, encryption_context=WHOLE)[0] == PLAINTEXT
    theirs, _ = sdk.encrypt(
        source=PLAINTEXT, materials_manager=manager, encryption_context=WHOLE, algorithm=suite, frame_length=512
    )
    for read in READERS:
        assert read(client(), theirs, context=WHOLE, require_signed=signed) == PLAINTEXT


@pytest.mark.parametrize("signed", [False, True])
def test_the_sdks_own_client_stores_no_required_pair_under_our_manager(signed: bool) -> None:
    sink = RecordingSink()
    phi, sdk, suite = client(audit=[sink]), EncryptionSDKClient(), SDK_SUITES[signed]
    manager = PhiCryptMaterialsManager(phi, expect=WHOLE)
    message, _ = sdk.encrypt(
        source=PLAINTEXT, materials_manager=manager, encryption_context=WHOLE, algorithm=suite
    )
    assert b"canary" not in message
    assert phi.decrypt(message, context=WHOLE, require_signed=signed) == PLAINTEXT
    ours = phi.encrypt(PLAINTEXT, context=WHOLE, signed=signed)
    for one in (message, ours):
        assert sdk.decrypt(source=one, materials_manager=manager)[0] == PLAINTEXT
    wrong = PhiCryptMaterialsManager(phi, expect={**CONTEXT, "patient": "p-2"})
    with pytest.raises(AuthenticationError):  # of the data key, which is wrapped under the whole context
        sdk.decrypt(source=ours, materials_manager=wrong)
    undeclared = PhiCryptMaterialsManager(phi, expect=WHOLE, required_context=())
    with pytest.raises(ContextMismatchError):
        sdk.decrypt(source=ours, materials_manager=undeclared)
    phi.flush()
    assert not any("canary" in event.to_json() for event in sink.events)
    assert {event.required_context for event in sink.events if event.operation.startswith("esdk.")} <= {
        ("patient",),
        None,
    }


def test_static_keyrings_that_say_nothing_are_judged() -> None:
    with pytest.raises(PhiInContextError):
        PhiCrypt(StaticKeyring(bytes(32)), required_context=NAMES).encrypt(b"", context={"patient": "078-05-1120"})
