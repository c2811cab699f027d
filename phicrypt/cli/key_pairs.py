"""Options of the command line for RSA and ECDH key pairs: offline recovery, and other organizations.

::

    with audit.client(pairs.keyring(aws, key)) as phi:
        …
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from phicrypt.cli.commands import OptionGroup
from phicrypt.cli.console import complain
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from phicrypt.cli.options import AwsAccess
    from phicrypt.core.materials import Keyring

_PANEL = "Key pairs"
_File = Path | None
Read = TypeVar("Read")


def _option(name: str, metavar: str, words: str) -> Any:
    return typer.Option(name, metavar=metavar, help=words, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class KeyPairs(OptionGroup):
    """The RSA and ECDH keys that a command's options name."""

    rsa_public_key: Annotated[
        _File,
        _option(
            "--rsa-public-key",
            "FILE",
            "Write for this RSA key too: PEM or DER. Whoever has its private key opens.",
        ),
    ] = None
    rsa_private_key: Annotated[
        _File, _option("--rsa-private-key", "FILE", "Open with this RSA key: PEM or DER, encrypted or not.")
    ] = None
    rsa_name: Annotated[
        str | None,
        _option("--rsa-name", "NAMESPACE/NAME", "How both sides call the RSA key; it stands in the message."),
    ] = None
    rsa_padding: Annotated[
        str,
        _option(
            "--rsa-padding", "NAME", "oaep-sha1, oaep-sha256, oaep-sha384, oaep-sha512, or pkcs1 for old messages."
        ),
    ] = "oaep-sha256"
    ecdh_public_key: Annotated[
        _File,
        _option("--ecdh-public-key", "FILE", "The other organization's key on P-256, P-384 or P-521: PEM or DER."),
    ] = None
    ecdh_private_key: Annotated[
        _File, _option("--ecdh-private-key", "FILE", "Your own key on that curve: PEM or DER, encrypted or not.")
    ] = None
    ecdh_key: Annotated[
        str | None, _option("--ecdh-key", "ARN", "Your own key on that curve, in KMS (KeyUsage KEY_AGREEMENT).")
    ] = None
    password_file: Annotated[
        _File,
        _option("--password-file", "FILE", "Its first line opens an encrypted private key. Default: asked for."),
    ] = None

    def keyring(
        self, aws: AwsAccess, key: str | None, *, writes: bool = False, decrypt_keys: Sequence[str] = ()
    ) -> Keyring:
        """One keyring of all that the options name; ``key`` is that of ``--key``, and generates.

        Raises ConfigurationError where nothing is named, or what does not go together.
        """
        from phicrypt.keys.multi import MultiKeyring

        named = list(self.keyrings(aws, writes=writes))
        if key is not None:
            named.insert(0, aws.kms_keyring(key, decrypt_keys=decrypt_keys))
        if not named:
            raise ConfigurationError(
                "name a key: --key ARN (or PHICRYPT_KEY), or one of the key pairs that --help lists"
            )
        return named[0] if len(named) == 1 else MultiKeyring(*named)

    def keyrings(self, aws: AwsAccess, *, writes: bool = False) -> Iterator[Keyring]:
        """The keyring of each key pair that is named."""
        rsa = (self.rsa_public_key or self.rsa_private_key) is not None
        if rsa != (self.rsa_name is not None):
            raise ConfigurationError("--rsa-public-key and --rsa-private-key go with --rsa-name NAMESPACE/NAME")
        if self.password_file is not None and (self.rsa_private_key or self.ecdh_private_key) is None:
            raise ConfigurationError("--password-file goes with --rsa-private-key or --ecdh-private-key")
        if rsa:
            yield self._rsa()
        if (self.ecdh_public_key or self.ecdh_private_key or self.ecdh_key) is not None:
            yield self._ecdh(aws, writes)

    def _rsa(self) -> Keyring:
        from phicrypt.core.key_pairs import RSA_PADDINGS, RsaPrivateKey, RsaPublicKey
        from phicrypt.keys.raw_rsa import RawRsaKeyring

        namespace, _, name = (self.rsa_name or "").partition("/")
        if not namespace or not name or namespace.startswith("aws-kms"):
            raise ConfigurationError(
                "--rsa-name takes NAMESPACE/NAME, such as clinic/recovery-2026; the namespace does not begin with "
                "aws-kms"
            )
        if self.rsa_padding not in RSA_PADDINGS:
            raise ConfigurationError(f"--rsa-padding is one of {', '.join(RSA_PADDINGS)}")
        public_key: Any = None
        if self.rsa_public_key is not None:
            public_key = RsaPublicKey(
                self.rsa_public_key.read_bytes(), _named("--rsa-public-key", self.rsa_public_key)
            )
        # Read here, so that errors name the option.
        private_key = self._private("--rsa-private-key", self.rsa_private_key, RsaPrivateKey)
        padding: Any = self.rsa_padding
        return RawRsaKeyring(namespace, name, public_key=public_key, private_key=private_key, padding=padding)

    def _ecdh(self, aws: AwsAccess, writes: bool) -> Keyring:
        from phicrypt.core.key_pairs import EcPrivateKey, EcPublicKey
        from phicrypt.keys.kms.ecdh_keyring import KmsEcdhKeyring
        from phicrypt.keys.raw_ecdh import RawEcdhKeyring

        if self.ecdh_private_key is not None and self.ecdh_key is not None:
            raise ConfigurationError(
                "your own key is in --ecdh-private-key FILE or in --ecdh-key ARN, not in both"
            )
        if writes and self.ecdh_public_key is None:
            raise ConfigurationError("to write for another organization, name its key with --ecdh-public-key FILE")
        if not writes and self.ecdh_private_key is None and self.ecdh_key is None:
            raise ConfigurationError("to open, name your own key: --ecdh-private-key FILE or --ecdh-key ARN")
        theirs: Any = self.ecdh_public_key and EcPublicKey(
            self.ecdh_public_key.read_bytes(), _named("--ecdh-public-key", self.ecdh_public_key)
        )
        ours: Any = self._private("--ecdh-private-key", self.ecdh_private_key, EcPrivateKey)
        if theirs is not None and ours is not None and theirs.curve is not ours.public_key.curve:
            raise ConfigurationError(
                f"--ecdh-private-key is on {ours.public_key.curve.name} and --ecdh-public-key on "
                f"{theirs.curve.name}: both sides' keys are on one curve"
            )
        if self.ecdh_key is not None:
            return KmsEcdhKeyring(
                self.ecdh_key,
                recipient_public_key=theirs,
                session=aws.session,
                endpoint_url=aws.endpoint_url,
                use_fips_endpoint=aws.use_fips_endpoint,
                application="phicrypt-cli",
            )
        if ours is None:
            return RawEcdhKeyring.ephemeral(recipient_public_key=theirs)
        if theirs is None:
            return RawEcdhKeyring.discovery(private_key=ours)
        return RawEcdhKeyring.static(private_key=ours, recipient_public_key=theirs)

    def _private(self, option: str, file: Path | None, kind: type[Read]) -> Read | None:
        """The private key of a file, with its password where it has one."""
        from phicrypt.core.key_pairs import needs_password

        if file is None:
            return None
        encoded, password = file.read_bytes(), None
        if os.name == "posix" and file.stat().st_mode & 0o077 and file.is_file():
            complain(f"{file} can be read by others: chmod 600 it")
        if needs_password(encoded):
            password = self._password(file)
        return kind(encoded, password=password, parameter=_named(option, file))  # type: ignore[call-arg]

    def _password(self, file: Path) -> str:
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
        if not sys.stdin.isatty():
            raise ConfigurationError(f"{file} is encrypted: name its password with --password-file FILE")
        from getpass import getpass

        return getpass(f"Password of {file}: ")


def _named(option: str, file: Path) -> str:
    return f"{option} {file}"
