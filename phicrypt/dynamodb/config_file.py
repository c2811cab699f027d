"""Table configurations in files, for the command line: TOML or JSON.

::

    [table]
    partition_key = "patient_id"
    sort_key = "visit"
    unsigned_attributes = ["note"]

    [table.actions]
    patient_id = "SIGN_ONLY"
    visit = "SIGN_ONLY"
    name = "ENCRYPT_AND_SIGN"
    note = "DO_NOTHING"

    [[search.standard]]                  # what the table is searched by, see docs/search.md
    name = "mrn"
    bits = 15

    [keyring]
    branch_key_store = "keys"            # with logical_name, branch_key_id and kms_key_arn: hierarchical
    logical_name = "keys"
    branch_key_id = "tenant-7"
    kms_key_arn = "arn:aws:kms:…"        # alone: a KMS key

    [legacy]                             # for a migration: the DynamoDB Encryption Client that wrote the items
    kms_key_arn = "arn:aws:kms:…"
    actions = { note = "SIGN_ONLY" }     # what it did, where that differs from [table.actions]
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phicrypt.core.strict_json import parse_document
from phicrypt.dynamodb.config import Action, PlaintextPolicy, TableConfig
from phicrypt.dynamodb.search import SearchConfig
from phicrypt.dynamodb.search_file import SearchSection
from phicrypt.errors import ConfigurationError, FormatError

if TYPE_CHECKING:
    from phicrypt.dynamodb.legacy import LegacyItems
    from phicrypt.keys.kms.clients import KmsClients

_MAX_FILE_BYTES: Final = 1 << 20


class KeyringSection(BaseModel):
    """Which keys the command uses: a KMS key, or a branch key of a key store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kms_key_arn: str
    branch_key_store: str | None = None
    logical_name: str | None = None
    branch_key_id: str | None = None


class TableSection(BaseModel):
    """The fields of :class:`TableConfig`, without the physical table's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition_key: str
    sort_key: str | None = None
    actions: dict[str, str]
    logical_table_name: str | None = None
    unsigned_attributes: tuple[str, ...] = ()
    unsigned_prefix: str | None = None
    plaintext_policy: PlaintextPolicy = PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ
    plaintext_reads_until: date | None = None
    signed: bool = False
    require_signed: bool = False

    def for_table(self, table_name: str, search: SearchConfig | None = None) -> TableConfig:
        """The configuration of the physical table of that name."""
        fields = self.model_dump() | {
            "actions": {name: _action(name, text) for name, text in self.actions.items()},
            "logical_table_name": self.logical_table_name or table_name,
        }
        return TableConfig(table_name=table_name, search=search, **fields)


class LegacySection(BaseModel):
    """The DynamoDB Encryption Client that wrote the table: see :class:`~phicrypt.dynamodb.legacy.LegacyItems`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kms_key_arn: str
    table_name: str | None = None
    default_action: str = Action.ENCRYPT_AND_SIGN.value
    actions: dict[str, str] = Field(default_factory=dict)

    def items(self, clients: KmsClients) -> LegacyItems:
        """What opens them. Raises ConfigurationError."""
        from phicrypt.dynamodb.legacy import LegacyItems

        return LegacyItems.under_kms(
            self.kms_key_arn,
            clients=clients,
            actions={name: _action(name, text) for name, text in self.actions.items()},
            default_action=_action("default_action", self.default_action),
            table_name=self.table_name,
        )


class ConfigFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: TableSection
    keyring: KeyringSection | None = None
    legacy: LegacySection | None = None
    search: SearchSection | None = None

    def for_table(self, table_name: str) -> TableConfig:
        """The configuration of the physical table of that name, with its search. Raises ConfigurationError."""
        return self.table.for_table(table_name, None if self.search is None else self.search.config())


def read_config_file(path: Path) -> ConfigFile:
    """The checked content of a ``.toml`` or ``.json`` file; ConfigurationError for anything else."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigurationError(
                f"{path} is larger than {_MAX_FILE_BYTES} bytes; is it a table configuration?"
            )
        members = parse_document(content, is_json=path.suffix == ".json", field="table configuration")
        return ConfigFile.model_validate(members)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
    except FormatError as error:
        raise ConfigurationError(f"{path} is neither TOML nor JSON: {error}") from None
    raise ConfigurationError(f"{path}: {faults}")


def make_keyring(section: KeyringSection, clients: Mapping[str, Any]) -> Any:
    """The keyring that the file names; ``clients`` has the boto3 clients ``dynamodb`` and ``kms``.

    Raises ConfigurationError.
    """
    named = (section.branch_key_store, section.logical_name, section.branch_key_id)
    if not any(named):
        from phicrypt.keys.kms.keyring import KmsKeyring

        return KmsKeyring(section.kms_key_arn, client=clients["kms"])
    if not all(named):
        raise ConfigurationError(
            "a branch key needs branch_key_store, logical_name, branch_key_id and kms_key_arn"
        )
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.keys.branch_keys.store import BranchKeyStore

    store = BranchKeyStore(
        str(section.branch_key_store),
        str(section.logical_name),
        section.kms_key_arn,
        dynamodb_client=clients["dynamodb"],
        kms_client=clients["kms"],
    )
    return HierarchicalKeyring(store, branch_key_id=str(section.branch_key_id))


def _action(attribute: str, text: str) -> Action:
    if text in Action.__members__:
        return Action[text]
    if text not in [action.value for action in Action]:
        raise ConfigurationError(f"the action of {attribute!r} is one of {', '.join(Action.__members__)}")
    return Action(text)
