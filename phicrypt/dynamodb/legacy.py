"""Items of the DynamoDB Encryption Client, the format before this one, opened with AWS's own library.

::

    legacy = LegacyItems.under_kms("arn:aws:kms:us-east-1:111122223333:key/…")
    report = migrate_table(client, "patients", legacy=legacy)
    item = legacy.open(stored, config)      # what a fallback for reads does, until the table is migrated

Needs the extra ``legacy`` (``dynamodb-encryption-sdk``), which AWS no longer develops. Nothing is written in that
format. docs/from-dynamodb-encryption-client.md says how a table leaves it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.dynamodb.config import Action, TableConfig
from phicrypt.dynamodb.items import is_legacy
from phicrypt.dynamodb.legacy_kms import library, pinned_provider
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.survey import LEGACY_ATTRIBUTES
from phicrypt.dynamodb.tables import plain_table_name
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError, NotEncryptedError

if TYPE_CHECKING:
    from phicrypt.keys.kms.clients import KmsClients

_MODE_NAME: Final = "amzn-ddb-map-sym-mode"
_MODE: Final = "/CBC/PKCS5Padding"
_DESCRIPTION, _ = LEGACY_ATTRIBUTES
_ABOUT_THE_CIPHERTEXT: Final = frozenset(("IncorrectKeyException", "InvalidCiphertextException"))


class LegacyItems:
    """Opens items of the DynamoDB Encryption Client for Python or Java.

    Args:
        materials_provider: a ``CryptographicMaterialsProvider`` of AWS's library, as the application had it; for a
            KMS key see :meth:`under_kms`.
        actions: what the application did with each attribute, where that is another thing than the table's
            configuration says. Whether a stored item verifies depends on it: a wrong one is refused.
        default_action: of attributes that neither ``actions`` nor the table's configuration name.
        table_name: the table's name when its items were written; None if the table has it still.

    An attribute that was ``DO_NOTHING`` is covered by no signature: whoever could write the table chose its value,
    and the new item vouches for it as for any other. Name such attributes here only if you accept that.
    Raises ConfigurationError without the library, and for actions under which nothing would be verified.
    """

    def __init__(
        self,
        materials_provider: Any,
        *,
        actions: Mapping[str, Action] | None = None,
        default_action: Action = Action.ENCRYPT_AND_SIGN,
        table_name: str | None = None,
    ) -> None:
        provider_class = library("material_providers").CryptographicMaterialsProvider
        if not isinstance(materials_provider, provider_class):
            raise ConfigurationError(
                "a materials provider of dynamodb_encryption_sdk was expected, "
                f"{type(materials_provider).__name__} came"
            )
        self._provider = materials_provider
        self._actions = {name: Action(action) for name, action in (actions or {}).items()}
        self._default_action = Action(default_action)
        self._table_name = table_name

    @classmethod
    def under_kms(
        cls,
        key_arn: str,
        *,
        client: Any = None,
        clients: KmsClients | None = None,
        actions: Mapping[str, Action] | None = None,
        default_action: Action = Action.ENCRYPT_AND_SIGN,
        table_name: str | None = None,
    ) -> Self:
        """For items of ``AwsKmsCryptographicMaterialsProvider`` (Java: ``DirectKmsMaterialsProvider``).

        Args:
            key_arn: the KMS key that wrapped their keys. KMS is asked under this key alone, where the former
                library opened under whatever key an item was wrapped with.
            client, clients: a boto3 KMS client, or a keyring's ``kms_clients``; phicrypt's own otherwise.

        The rest as for the class. One call of KMS per item.
        """
        from phicrypt.keys.kms.clients import KmsClients

        key = parse_kms_arn(key_arn)
        if key is None or key.resource_type != "key":
            raise ConfigurationError(f"{key_arn!r} is not the ARN of a KMS key")
        provider = pinned_provider(key, clients if clients is not None else KmsClients(client=client))
        return cls(provider, actions=actions, default_action=default_action, table_name=table_name)

    def __repr__(self) -> str:
        return f"<LegacyItems of {type(self._provider).__name__}>"

    def open(self, stored: Mapping[str, Any], table: TableConfig) -> Item:
        """The plaintext item, low-level shape, after its signature was verified.

        Raises NotEncryptedError for an item of another format, AuthenticationError for one that does not verify,
        ConfigurationError for actions that do not fit the table, KeyAccessError where KMS refuses.
        """
        return self.open_with_origin(stored, table)[0]

    def open_with_origin(self, stored: Mapping[str, Any], table: TableConfig) -> tuple[Item, KeyOrigin | None]:
        """As :meth:`open`; and the call of KMS that opened it, for the audit trail."""
        if not is_legacy(stored):
            raise NotEncryptedError("the item was not written by the DynamoDB Encryption Client")
        actions = self._actions_of(stored, table)
        refusal: KeyAccessError | None = None
        opened: Item | None = None
        try:
            opened = self._opened(stored, table, actions)
        except KeyAccessError as error:
            if error.code not in _ABOUT_THE_CIPHERTEXT:
                raise
        except Exception as error:  # noqa: BLE001  (the library's own, and whatever forged bytes provoke in it)
            refusal = _refusal_behind(error)
        # Not in the handlers: the library's errors show what they refused.
        if refusal is not None:
            raise refusal
        if opened is None:
            raise AuthenticationError("legacy item")
        return opened, self._provider.last_call() if hasattr(self._provider, "last_call") else None

    def _opened(self, stored: Mapping[str, Any], table: TableConfig, actions: Mapping[str, Action]) -> Item:
        encrypted, structures = library("encrypted"), library("structures")
        item = copy.deepcopy(dict(stored))  # the library takes attributes out of what it gets
        if _mode_of(item) not in (None, _MODE):
            raise ValueError
        crypto_actions = library("identifiers").CryptoAction
        config = encrypted.CryptoConfig(
            materials_provider=self._provider,
            encryption_context=structures.EncryptionContext(
                table_name=self._table_name or plain_table_name(table.table_name),
                partition_key_name=table.partition_key,
                sort_key_name=table.sort_key,
                attributes={name: value for name, value in item.items() if name not in LEGACY_ATTRIBUTES},
            ),
            attribute_actions=structures.AttributeActions(
                default_action=crypto_actions.ENCRYPT_AND_SIGN,
                attribute_actions={name: crypto_actions[action.name] for name, action in actions.items()},
            ),
        )
        opened: Mapping[str, Any] = library("encrypted.item").decrypt_dynamodb_item(item, config)
        return {name: _plain(value) for name, value in opened.items()}

    def _actions_of(self, stored: Mapping[str, Any], table: TableConfig) -> dict[str, Action]:
        """What was done with each attribute of this item; the library's own default never decides."""
        actions: dict[str, Action] = {}
        for name in stored:
            if name in LEGACY_ATTRIBUTES:
                continue
            action = self._actions.get(name) or _action_in(table, name) or self._default_action
            actions[name] = Action.SIGN_ONLY if action is Action.SIGN_AND_INCLUDE_IN_CONTEXT else action
            if name in table.key_names and actions[name] is not Action.SIGN_ONLY:
                raise ConfigurationError(
                    f"the key attribute {name!r} was SIGN_ONLY, or nothing binds an item to its key"
                )
            if actions[name] is Action.ENCRYPT_AND_SIGN and table.is_unsigned(name):
                raise ConfigurationError(
                    f"the attribute {name!r} was encrypted and is to be DO_NOTHING: a migration would leave it as "
                    "it is. Sign or encrypt it in the table's configuration"
                )
        return actions


def _plain(value: Any) -> Any:
    """Attribute values as boto3's client gives them: the library makes binaries of boto3's resource."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return bytes(value.value) if hasattr(value, "value") else value


def _action_in(table: TableConfig, name: str) -> Action | None:
    if name in table.actions:
        return table.actions[name]
    return Action.DO_NOTHING if table.is_unsigned(name) else None


def _mode_of(item: Mapping[str, Any]) -> str | None:
    """The cipher mode that the item names. No signature covers it, so it is not the item's to choose."""
    if _DESCRIPTION not in item:
        return None
    read = library("internal.formatting.material_description").deserialize
    mode: str | None = read(item[_DESCRIPTION]).get(_MODE_NAME)
    return mode


def _refusal_behind(error: BaseException) -> KeyAccessError | None:
    """The refusal of AWS that stands behind an error of the library, unless it is about the item itself."""
    from botocore.exceptions import BotoCoreError, ClientError

    for cause in _chain(error):
        if isinstance(cause, KeyAccessError):
            return None if cause.code in _ABOUT_THE_CIPHERTEXT else cause
        if isinstance(cause, ClientError | BotoCoreError):
            code = type(cause).__name__
            if isinstance(cause, ClientError):
                code = str(cause.response.get("Error", {}).get("Code", "Unknown"))
            if code in _ABOUT_THE_CIPHERTEXT:
                return None
            return KeyAccessError(
                f"the materials provider of the DynamoDB Encryption Client got no key: {code}",
                operation="Decrypt",
                code=code,
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
