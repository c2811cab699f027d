"""A private key that never leaves its PKCS #11 token opens: SoftHSM, by python-pkcs11."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.keyring_support import opens, to_decrypt, to_encrypt

from phicrypt import MultiKeyring, PhiCrypt, RawAesKeyring, RawRsaKeyring
from phicrypt.errors import AuthenticationError, KeyAccessError

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
TOOL = shutil.which("softhsm2-util")
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
LIBRARY = next((path for path in LIBRARIES if Path(path).exists()), None)
if TOOL is None or LIBRARY is None:
    pytest.skip("SoftHSM is not installed (apt: softhsm2)", allow_module_level=True)
PIN = "1234"


class TokenKey:
    """A private key in a token; a session of PKCS #11 serves one call at a time."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.asked: list[str] = []

    def decrypt(self, ciphertext: bytes, padding: Any) -> Any:
        self.asked.append(padding)
        mechanisms = {
            "oaep-sha1": (pkcs11.Mechanism.RSA_PKCS_OAEP, (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None)),
            "pkcs1": (pkcs11.Mechanism.RSA_PKCS, None),
        }
        mechanism, parameters = mechanisms[padding]
        with self.lock:
            return self.key.decrypt(ciphertext, mechanism=mechanism, mechanism_param=parameters)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TokenKey, bytes]]:
    """The key in the token, and its public half in DER."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(configuration))
        initialize = [TOOL, "--init-token", "--free", "--label", "safe", "--pin", PIN, "--so-pin", PIN]
        subprocess.run(initialize, check=True, capture_output=True)
        with pkcs11.lib(LIBRARY).get_token(token_label="safe").open(user_pin=PIN, rw=True) as session:
            public_key, private_key = session.generate_keypair(pkcs11.KeyType.RSA, 2048)
            from pkcs11.util.rsa import encode_rsa_public_key

            yield TokenKey(private_key), encode_rsa_public_key(public_key)


@pytest.mark.parametrize("padding", ["oaep-sha1", "pkcs1"])
def test_a_key_in_a_token_opens_what_was_written_for_it(token: tuple[TokenKey, bytes], padding: Any) -> None:
    key, public_key = token
    writer = RawRsaKeyring("clinic", "safe", public_key=public_key, padding=padding)
    opens(RawRsaKeyring("clinic", "safe", private_key=key, padding=padding), writer.on_encrypt(to_encrypt()))
    assert key.asked[-1] == padding


def test_recovery_with_the_token_alone(token: tuple[TokenKey, bytes]) -> None:
    key, public_key = token
    recovery = RawRsaKeyring("clinic", "safe", public_key=public_key, padding="oaep-sha1")
    daily = RawAesKeyring("clinic", "daily", bytes(32))
    message = PhiCrypt(MultiKeyring(daily, recovery)).encrypt(b"note", context={"tenant": "clinic-7"})
    opener = PhiCrypt(RawRsaKeyring("clinic", "safe", private_key=key, padding="oaep-sha1"))
    assert opener.decrypt(message, context={"tenant": "clinic-7"}) == b"note"


@pytest.mark.parametrize("padding", ["oaep-sha1", "pkcs1"])
def test_what_the_token_refuses_is_one_error(token: tuple[TokenKey, bytes], padding: Any) -> None:
    key, public_key = token
    phi = PhiCrypt(RawRsaKeyring("clinic", "safe", public_key=public_key, private_key=key, padding=padding))
    message = phi.encrypt(b"note", context={"tenant": "clinic-7"})
    place = message.index(b"safe") + len("safe") + 2
    seen = set()
    for ciphertext in (bytes(255) + b"\x01", b"\x55" * 256, message[place + 1 : place + 257]):
        forged = message[:place] + ciphertext + message[place + 256 :]
        with pytest.raises((AuthenticationError, KeyAccessError)) as caught:
            phi.decrypt(forged, context={"tenant": "clinic-7"})
        seen.add(str(caught.value))
    assert len(seen) == 1


def test_a_token_is_asked_from_many_threads(token: tuple[TokenKey, bytes]) -> None:
    key, public_key = token
    ring = RawRsaKeyring("clinic", "safe", public_key=public_key, private_key=key, padding="oaep-sha1")
    sealed = [ring.on_encrypt(to_encrypt()) for _ in range(8)]
    failures: list[BaseException] = []

    def open_one(one: Any) -> None:
        try:
            opened = ring.on_decrypt(to_decrypt(), one.encrypted_data_keys)
            assert opened.data_key is not None and opened.data_key.key_bytes == one.data_key.key_bytes
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_one, args=(one,)) for one in sealed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
