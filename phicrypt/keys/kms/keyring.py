"""``KmsKeyring``: data keys generated, wrapped and opened by AWS KMS.

``framework/aws-kms/aws-kms-keyring.md``, ``aws-kms-mrk-keyring.md`` (multi-Region keys) and
``aws-kms-mrk-discovery-keyring.md``. Its encrypted data keys are::

    provider id     "aws-kms"
    provider info   the key's ARN, as KMS answered it
    ciphertext      KMS's CiphertextBlob (after the sealed data key, for DB-ESDK suites: ``wrapping``)

The encryption context goes to KMS with every call and stands in CloudTrail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack, cast

from phicrypt.core.deadlines import DEADLINE_SECONDS
from phicrypt.core.key_origin import KMS_PROVIDER_ID, joined_origin
from phicrypt.core.kms_arn import KmsArn, configured_key_arn, key_arn_of_message, parse_kms_arn
from phicrypt.core.kms_calls import KmsAnswer, combined_refusal, origin_of, refused_calls
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import KmsRequest, SteppedKeyring, Steps
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.kms.answers import (
    MAX_CIPHERTEXT_LENGTH_BYTES,
    check_key,
    ciphertext_of,
    plaintext_of,
    unexpected_answer,
)
from phicrypt.keys.kms.clients import KmsClients, KmsClientsSettings, key_arn_of_alias
from phicrypt.keys.kms.verification import MadeKey, verified
from phicrypt.keys.wrapping import ciphertext_to_unwrap, key_to_wrap, unwrapped_data_key, wrapped_data_key

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from botocore.config import Config
    from mypy_boto3_kms.client import KMSClient

_ABOUT_THE_CIPHERTEXT: Final = frozenset(
    ("InvalidCiphertextException", "IncorrectKeyException", "UnexpectedAnswer")
)
"""Refusals that say nothing about the key or the permission: another encrypted data key may open."""


class KmsKeyringSettings(KmsClientsSettings, total=False):
    """Keywords of :class:`KmsKeyring`."""

    decrypt_key_arns: Iterable[str]
    grant_tokens: Iterable[str]
    failover_regions: Iterable[str]
    verify_data_keys: bool


class _DiscoveryFilter(NamedTuple):
    partition: str
    account_ids: frozenset[str]
    regions: tuple[str, ...]


class KmsKeyring(SteppedKeyring):
    """Data keys under one KMS key; decrypts under that key and any others that are named.

    Args:
        key_arn: the key ARN that generates and wraps; aliases and bare ids are refused.
        decrypt_key_arns: more key ARNs whose encrypted data keys are opened, never written.
        client: a boto3 KMS client of the key's Region; it is not changed (see ``tagging``).
        client_factory: ``Region -> client``, for keys in several Regions.
        grant_tokens: sent with every call.
        failover_regions: Regions with replicas of the multi-Region keys above, tried in this order
            on decrypt when a Region gives no answer or a 5xx (rule 13). A refusal ends the
            search: revoking a multi-Region key means disabling every replica. Clients made here
            then give up after about 7 seconds instead of 30.
        verify_data_keys: open each new data key once, by a Decrypt call, before it seals anything (rule 28): one
            changed answer would otherwise seal what nobody opens. The writer then needs kms:Decrypt too.
        use_fips_endpoint, endpoint_url, session, application, config: for clients made here; see
            :func:`phicrypt.keys.kms.calls.kms_client`. ``endpoint_url`` serves every Region.
        deadline_seconds: how long a call of yours waits for a key, whatever the client's own timeouts are;
            then KeyAccessError says ``DeadlineExceeded``, and an answer that still comes serves later calls.

    An encrypted data key is sent to KMS only if its ARN is one of those configured (or, for a
    multi-Region key, a replica of one), and always with the configured ARN as ``KeyId``.

    Raises ConfigurationError for anything that is not a key ARN, for a client of another Region,
    for a plain http endpoint that is not on loopback.
    """

    __slots__ = ("_clients", "_discovery", "_failover_regions", "_grant_tokens", "_identity", "_keys", "_verifies")

    def __init__(
        self,
        key_arn: str,
        *,
        decrypt_key_arns: Iterable[str] = (),
        client: KMSClient | None = None,
        client_factory: Callable[[str], KMSClient] | None = None,
        grant_tokens: Iterable[str] = (),
        failover_regions: Iterable[str] = (),
        verify_data_keys: bool = False,
        use_fips_endpoint: bool = False,
        endpoint_url: str | None = None,
        session: Boto3Session | None = None,
        application: str | None = None,
        config: Config | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        clients = KmsClients(
            client=client,
            client_factory=client_factory,
            session=session,
            endpoint_url=endpoint_url,
            use_fips_endpoint=use_fips_endpoint,
            application=application,
            config=config,
            deadline_seconds=deadline_seconds,
        )
        more = _texts(decrypt_key_arns, "decrypt_key_arns")
        keys = tuple(dict.fromkeys(configured_key_arn(text) for text in (key_arn, *more)))
        failover = _texts(failover_regions, "failover_regions")
        if failover and not any(key.is_multi_region for key in keys):
            raise ConfigurationError("failover_regions needs a multi-Region key (its id begins with mrk-)")
        self._configure(clients, keys, failover, None, _texts(grant_tokens, "grant_tokens"), verify_data_keys)

    def _configure(
        self,
        clients: KmsClients,
        keys: tuple[KmsArn, ...],
        failover_regions: tuple[str, ...],
        discovery: _DiscoveryFilter | None,
        grant_tokens: tuple[str, ...],
        verifies: bool = False,
    ) -> None:
        self._clients = clients
        self._verifies = verifies
        self._keys = keys
        self._failover_regions = failover_regions
        self._discovery = discovery
        self._grant_tokens = grant_tokens
        spare_regions = (*failover_regions, *(discovery.regions[1:] if discovery else ()))
        if spare_regions:
            clients.give_up_early()
        for region in (
            *(key.region for key in keys),
            *(discovery.regions[:1] if discovery else ()),
            *spare_regions,
        ):
            clients.check_region(region)
        self._identity = (
            KMS_PROVIDER_ID,
            tuple(str(key) for key in keys),
            failover_regions,
            discovery,
            clients.authority,
            tuple(hashlib.sha256(token.encode()).digest() for token in grant_tokens),
            verifies,  # a kept key of a keyring that verifies nothing is not one that was verified
        )

    @classmethod
    def from_alias(
        cls,
        alias: str,
        *,
        region: str | None = None,
        **settings: Unpack[KmsKeyringSettings],
    ) -> KmsKeyring:
        """A keyring for the key that an alias names now; one DescribeKey call, then the ARN is pinned.

        Args:
            alias: ``"alias/name"`` (with ``region=`` or ``client=``) or an alias ARN.
            settings: the remaining arguments of :class:`KmsKeyring`.

        Raises ConfigurationError for anything but an alias, KeyAccessError if KMS refuses.
        """
        names = KmsClientsSettings.__annotations__
        clients = cast(KmsClientsSettings, {name: one for name, one in settings.items() if name in names})
        return cls(key_arn_of_alias(KmsClients(**clients), alias, region), **settings)

    @classmethod
    def discovery(
        cls,
        *,
        account_ids: Iterable[str],
        partition: str,
        regions: Iterable[str] = (),
        grant_tokens: Iterable[str] = (),
        **clients: Unpack[KmsClientsSettings],
    ) -> KmsKeyring:
        """A keyring that only decrypts, under whatever key of these accounts a message names.

        Args:
            account_ids: accounts whose keys may be asked; at least one.
            partition: ``"aws"``, ``"aws-us-gov"`` or ``"aws-cn"``.
            regions: Regions that may be asked, in order of failover for multi-Region keys; by
                default the client's own.
            clients: ``client``, ``client_factory``, ``use_fips_endpoint``, ``endpoint_url``,
                ``session``, ``application``, ``config``, ``deadline_seconds`` as of :class:`KmsKeyring`.
        """
        made = KmsClients(**clients)
        asked = _texts(regions, "regions") or ((made.handed_region,) if made.handed_region else ())
        accounts = _texts(account_ids, "account_ids")
        if not accounts or not partition or not asked:
            raise ConfigurationError(
                "discovery needs an explicit filter: account_ids=, partition= and regions= (or a client of one "
                "Region); without it, any key that a message names would be asked"
            )
        keyring = cls.__new__(cls)
        found = _DiscoveryFilter(partition, frozenset(accounts), asked)
        keyring._configure(made, (), (), found, _texts(grant_tokens, "grant_tokens"))
        return keyring

    def __repr__(self) -> str:
        if self._discovery is not None:
            return f"<KmsKeyring discovery in {', '.join(self._discovery.regions)}>"
        return f"<KmsKeyring {', '.join(str(key) for key in self._keys)}>"

    @property
    def key_arn(self) -> str | None:
        """The ARN of the key that generates and wraps; None for discovery."""
        return str(self._keys[0]) if self._keys else None

    @property
    def kms_clients(self) -> KmsClients:
        """The AWS side of this keyring: client, session, endpoint and application, for others to use."""
        return self._clients

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        """Let ``client_factory`` make the clients that these encrypted data keys need."""
        targets: list[KmsArn] = list(self._keys[:1])
        if encrypted_data_keys:
            ours = (one for one in encrypted_data_keys if one.provider_id == KMS_PROVIDER_ID)
            # An invalid ARN fails in on_decrypt, where another child of a MultiKeyring may still succeed.
            stored = (parse_kms_arn(one.provider_info.decode("ascii", "replace")) for one in ours)
            targets = [target for arn in stored if arn is not None for target in self._targets(arn)]
        self._clients.prepare({target.region for target in targets})

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        if not self._keys:
            raise ConfigurationError("a discovery keyring only decrypts: encrypt under a named key ARN")
        key = self._keys[0]
        made = yield from self._verified(key, materials) if self._verifies else self._made(key, materials)
        wrapped = wrapped_data_key(materials, made.plaintext_key, made.ciphertext)
        return materials.with_recipient(
            EncryptedDataKey(KMS_PROVIDER_ID, str(key).encode(), wrapped.ciphertext),
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, made.origin),
        )

    def _made(self, key: KmsArn, materials: EncryptionMaterials) -> Steps[MadeKey]:
        """A new key of KMS's, or the one at hand, wrapped by it."""
        plaintext_key = key_to_wrap(materials)
        if plaintext_key is None:
            operation, length_bytes = "GenerateDataKey", materials.suite.data_key_length_bytes
            answer = yield from self._ask(operation, key, materials, NumberOfBytes=length_bytes)
            plaintext_key = plaintext_of(answer, operation, key, length_bytes)
        else:
            operation = "Encrypt"
            answer = yield from self._ask(operation, key, materials, Plaintext=plaintext_key)
        return MadeKey(plaintext_key, ciphertext_of(answer, operation, key), origin_of(answer, operation, key))

    def _verified(self, key: KmsArn, materials: EncryptionMaterials) -> Steps[MadeKey]:
        return verified(
            key,
            lambda: self._made(key, materials),
            lambda ciphertext: self._ask("Decrypt", key, materials, CiphertextBlob=ciphertext),
        )

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        if materials.data_key is not None:
            raise ValueError("these decryption materials already hold a data key")
        refusals: list[KeyAccessError] = []
        refused_keys: list[KmsArn] = []
        malformed: FormatError | None = None
        for index, encrypted_data_key in enumerate(encrypted_data_keys):
            if encrypted_data_key.provider_id != KMS_PROVIDER_ID:
                continue
            try:
                stored = key_arn_of_message(encrypted_data_key.provider_info)
            except FormatError as error:
                malformed = error  # another recipient's: it must not keep this one from reading
                continue
            for target in self._targets(stored):
                if any(key != target and key.is_same_key_as(target) for key in refused_keys):
                    break  # a replica of this key has refused: its answer holds for every Region (rule 13)
                try:
                    return (yield from self._open(materials, index, encrypted_data_key, target, refusals))
                except KeyAccessError as refusal:
                    refusals.append(refusal)
                    if refusal.another_region_may_serve:
                        continue
                    if refusal.code not in _ABOUT_THE_CIPHERTEXT:
                        refused_keys.append(target)
                    break
        if not refusals:
            raise malformed or self._no_match(encrypted_data_keys)
        raise combined_refusal(refusals)

    def _targets(self, stored: KmsArn) -> list[KmsArn]:
        """The ARNs under which an encrypted data key may be sent, in order; none if it is not ours."""
        if self._discovery is not None:
            partition, account_ids, regions = self._discovery
            if stored.partition != partition or stored.account not in account_ids:
                return []
            if not stored.is_multi_region:
                return [stored] if stored.region in regions else []
            # The Region that wrote it surely has the key, so it goes first.
            ordered = sorted(regions, key=lambda region: region != stored.region)
            return [stored.in_region(region) for region in ordered]
        matches = [key for key in self._keys if key.is_same_key_as(stored)]
        if matches and stored.is_multi_region:
            matches += [stored.in_region(region) for region in self._failover_regions]
        return list(dict.fromkeys(matches))

    def _open(
        self,
        materials: DecryptionMaterials,
        index: int,
        encrypted_data_key: EncryptedDataKey,
        target: KmsArn,
        refusals: Sequence[KeyAccessError],
    ) -> Steps[DecryptionMaterials]:
        asked: tuple[KmsAnswer, ...] = ()
        try:
            wrapped_key = ciphertext_to_unwrap(materials, encrypted_data_key.ciphertext)
            if not 0 < len(wrapped_key) <= MAX_CIPHERTEXT_LENGTH_BYTES:
                raise unexpected_answer(
                    "Decrypt", target, "the encrypted data key has not the length of a KMS ciphertext"
                )
            answer = yield from self._ask("Decrypt", target, materials, CiphertextBlob=wrapped_key)
            asked = (answer,)
            plaintext_key = plaintext_of(answer, "Decrypt", target, materials.suite.data_key_length_bytes)
            unwrapped = unwrapped_data_key(materials, encrypted_data_key.ciphertext, plaintext_key)
        except AuthenticationError:
            raise unexpected_answer(
                "Decrypt", target, "the encrypted data key does not verify under the key that KMS opened", *asked
            ) from None
        return materials.with_data_key(
            unwrapped.data_key,
            recipient_index=index,
            origin=origin_of(answer, "Decrypt", target, other_calls=refused_calls(refusals)),
            symmetric_signing_key=unwrapped.symmetric_signing_key,
        )

    def _ask(
        self, operation: str, key: KmsArn, materials: EncryptionMaterials | DecryptionMaterials, **parameters: Any
    ) -> Steps[KmsAnswer]:
        common = {
            "KeyId": str(key),
            "EncryptionContext": dict(materials.context),
            "GrantTokens": list(self._grant_tokens),
        }
        answer: KmsAnswer = yield KmsRequest(key.region, operation, {**common, **parameters}, self._clients)
        check_key(answer, operation, key)
        return answer

    def _no_match(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> KeyAccessError:
        theirs = [
            one.provider_info.decode() for one in encrypted_data_keys if one.provider_id == KMS_PROVIDER_ID
        ] or ["none of KMS"]
        ours = repr(self).strip("<>")
        return KeyAccessError(
            f"the message is for other keys ({', '.join(theirs)}) than {ours} may ask; name the message's key "
            "in decrypt_key_arns=, if it is to be trusted",
            operation="Decrypt",
            code="NoMatchingDataKey",
            key_arn=self.key_arn,
        )


def _texts(values: Iterable[str], name: str) -> tuple[str, ...]:
    texts = () if isinstance(values, str) else tuple(values)
    if isinstance(values, str) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(f"{name}= takes a sequence of non-empty texts")
    return texts
