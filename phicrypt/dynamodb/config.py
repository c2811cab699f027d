"""What happens to each attribute of a table: the configuration that both sides of a table share.

It follows ``dynamodb-encryption-client/ddb-table-encryption-config.md`` of AWS's database encryption
specification; :class:`Action` and :class:`PlaintextPolicy` carry its names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from types import MappingProxyType
from typing import Final

from phicrypt.core.suites import (
    DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384,
    DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384,
    AlgorithmSuite,
)
from phicrypt.dynamodb.search import SearchConfig
from phicrypt.dynamodb.search_plans import SearchPlan, plan_of
from phicrypt.errors import ConfigurationError

RESERVED_ATTRIBUTE_PREFIX: Final = "aws_dbe_"
"""Attribute names that belong to the format."""


class Action(Enum):
    """What is done with one attribute. The values are AWS's names."""

    ENCRYPT_AND_SIGN = "ENCRYPT_AND_SIGN"
    """Value encrypted; value, name and type signed."""
    SIGN_ONLY = "SIGN_ONLY"
    """Readable by whoever reads the table; signed."""
    SIGN_AND_INCLUDE_IN_CONTEXT = "SIGN_AND_INCLUDE_IN_ENCRYPTION_CONTEXT"
    """As SIGN_ONLY, and part of the encryption context (KMS and branch-key suppliers see it)."""
    DO_NOTHING = "DO_NOTHING"
    """Neither encrypted nor signed: whoever writes the table may change it unseen."""


class PlaintextPolicy(Enum):
    """Whether items without encryption may be written or read. The values are AWS's names."""

    FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ = "FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ"
    """Write plaintext, read both: the first stage of a migration, while old readers remain."""
    FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ = "FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ"
    """Write encrypted, read both: while the backfill runs."""
    FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ = "FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ"
    """Write and read encrypted items only."""


class PhiKeyNameWarning(UserWarning):
    """A key or context attribute's name suggests that its readable values identify a patient."""


class KmsContextWarning(UserWarning):
    """Values of key and context attributes go to KMS with every item, and stand in CloudTrail."""


@dataclass(frozen=True, slots=True, eq=False)
class TableConfig:
    """How one table's items are encrypted. Immutable; checked when it is made.

    Attributes:
        table_name: the physical table.
        partition_key, sort_key: names of the key attributes. They stay readable: DynamoDB needs them.
        actions: one action for each attribute that items may have. Key attributes are SIGN_ONLY, or
            SIGN_AND_INCLUDE_IN_CONTEXT where any attribute is. Kept for good once used, except that
            an attribute may change between the signed actions: the reader follows the item's header.
        logical_table_name: the name that is bound to every item; the table name unless given. Keep
            it when a backup is restored under another table name.
        unsigned_attributes, unsigned_prefix: the attributes that are neither encrypted nor signed,
            by name and by the beginning of the name. Grow the set before data is written with it,
            never shrink it.
        plaintext_policy: default: forbid writing and reading plaintext. AWS's name as text will do.
        plaintext_reads_until: the last day (UTC) on which a policy that allows plaintext applies;
            required with such a policy. After that day plaintext items are refused (rule 19).
        signed: write suite 0x6701, which adds an ECDSA P-384 signature, instead of 0x6700.
        require_signed: refuse to read items of suite 0x6700 (rule 7).
        search: what the table can be searched by; see :class:`phicrypt.dynamodb.search.SearchConfig`.
        context_attributes: the attributes whose action is SIGN_AND_INCLUDE_IN_CONTEXT.
        search_plan: the same, checked, with every name found.

    Raises ConfigurationError for anything inconsistent.
    """

    table_name: str
    partition_key: str
    sort_key: str | None = None
    actions: Mapping[str, Action] = field(default_factory=dict)
    logical_table_name: str = ""
    unsigned_attributes: tuple[str, ...] = ()
    unsigned_prefix: str | None = None
    plaintext_policy: PlaintextPolicy = PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ
    plaintext_reads_until: date | None = None
    signed: bool = False
    require_signed: bool = False
    search: SearchConfig | None = None
    context_attributes: tuple[str, ...] = field(init=False, repr=False)
    search_plan: SearchPlan | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Of a changed copy (dataclasses.replace): what the caller gave, without what the search added to it.
        given = self.actions.given if isinstance(self.actions, _WithSignedBeacons) else self.actions
        object.__setattr__(self, "actions", MappingProxyType(dict(given)))
        object.__setattr__(self, "logical_table_name", self.logical_table_name or self.table_name)
        object.__setattr__(self, "unsigned_attributes", _names(self.unsigned_attributes))
        included = (name for name, action in self.actions.items() if action is Action.SIGN_AND_INCLUDE_IN_CONTEXT)
        object.__setattr__(self, "context_attributes", tuple(included))
        self._check_names()
        self._plan_search()
        self._check_actions()
        self._check_plaintext_policy()
        self._warn_of_phi_key_names()

    @property
    def version(self) -> int:
        """The header version that is written: 2 if any action includes in the context, otherwise 1."""
        return 2 if self.context_attributes else 1

    @property
    def suite(self) -> AlgorithmSuite:
        """The algorithm suite that is written."""
        return DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384 if self.signed else DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384

    @property
    def key_names(self) -> tuple[str, ...]:
        """The key attributes: partition key, then sort key if there is one."""
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)

    def is_unsigned(self, attribute: str) -> bool:
        """Whether the attribute is outside the signature. ``aws_dbe_*`` counts as signed (rule 18)."""
        if attribute.startswith(RESERVED_ATTRIBUTE_PREFIX):
            return False
        return attribute in self.unsigned_attributes or (
            self.unsigned_prefix is not None and attribute.startswith(self.unsigned_prefix)
        )

    def action_of(self, attribute: str) -> Action:
        """The action for one attribute on write; ConfigurationError where none is configured."""
        action = self.actions.get(attribute)
        if action is not None:
            return action
        if self.is_unsigned(attribute):
            return Action.DO_NOTHING
        if attribute.startswith(RESERVED_ATTRIBUTE_PREFIX):
            raise reserved_name_error(attribute)
        raise ConfigurationError(
            f"the attribute {attribute!r} of table {self.table_name!r} has no action; "
            "add it to TableConfig.actions, or to unsigned_attributes if nobody needs its integrity"
        )

    def writes_plaintext(self, today: date | None = None) -> bool:
        """Whether the policy forces plaintext writes; ConfigurationError once its last day is over."""
        if self.plaintext_policy is not PlaintextPolicy.FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ:
            return False
        if not self.allows_plaintext_read(today):
            raise ConfigurationError(
                f"table {self.table_name!r}: the plaintext policy {self.plaintext_policy.value} ended on "
                f"{self.plaintext_reads_until}; nothing is written in plaintext after that day"
            )
        return True

    def allows_plaintext_read(self, today: date | None = None) -> bool:
        """Whether plaintext items may be read on this day (UTC; today unless given)."""
        if self.plaintext_reads_until is None:
            return False
        return (today or datetime.now(UTC).date()) <= self.plaintext_reads_until

    def _check_names(self) -> None:
        for what, name in (
            ("table_name", self.table_name),
            ("logical_table_name", self.logical_table_name),
            ("partition_key", self.partition_key),
            ("sort_key", self.sort_key),
        ):
            if name is not None and (not isinstance(name, str) or not name):
                raise ConfigurationError(f"TableConfig.{what} is a non-empty text")
        if self.sort_key == self.partition_key:
            raise ConfigurationError("the partition key and the sort key are the same attribute")
        if self.unsigned_prefix is not None and not self.unsigned_prefix:
            raise ConfigurationError("an empty unsigned_prefix would leave every attribute unsigned; use None")
        for name in (*self.actions, *self.unsigned_attributes):
            if not isinstance(name, str) or not name:
                raise ConfigurationError("attribute names are non-empty text")
            if name.startswith((RESERVED_ATTRIBUTE_PREFIX, "aws-crypto-")):
                raise ConfigurationError(f"the attribute name {name!r} is reserved and may not be configured")

    def _plan_search(self) -> None:
        plan = None
        if self.search is not None:
            if not isinstance(self.search, SearchConfig):
                raise ConfigurationError("TableConfig.search is a SearchConfig")
            plan = plan_of(self.search, self)
            signed = {compound.name: Action.SIGN_ONLY for compound in plan.signed_beacons}
            if signed:
                object.__setattr__(self, "actions", _WithSignedBeacons(self.actions, signed))
        object.__setattr__(self, "search_plan", plan)

    def _check_actions(self) -> None:
        for attribute, action in self.actions.items():
            if not isinstance(action, Action):
                raise ConfigurationError(f"the action of {attribute!r} is not an Action")
            if (action is Action.DO_NOTHING) != self.is_unsigned(attribute):
                raise ConfigurationError(
                    f"the attribute {attribute!r} is {action.value}: an attribute is DO_NOTHING exactly when it "
                    "is in unsigned_attributes or begins with unsigned_prefix, so that readers with other "
                    "actions agree on what is signed"
                )
        key_action = Action.SIGN_AND_INCLUDE_IN_CONTEXT if self.version == 2 else Action.SIGN_ONLY
        for name in self.key_names:
            if self.actions.get(name) is not key_action:
                raise ConfigurationError(
                    f"the action of the key attribute {name!r} must be {key_action.value}: SIGN_ONLY, or "
                    "SIGN_AND_INCLUDE_IN_CONTEXT where any attribute is"
                )

    def _check_plaintext_policy(self) -> None:
        given: object = self.plaintext_policy
        if not isinstance(given, PlaintextPolicy):
            names = [policy.value for policy in PlaintextPolicy]
            if given not in names:
                raise ConfigurationError(f"plaintext_policy is one of {', '.join(names)}")
            object.__setattr__(self, "plaintext_policy", PlaintextPolicy(given))
        forbids = self.plaintext_policy is PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ
        if forbids and self.plaintext_reads_until is not None:
            raise ConfigurationError("plaintext_reads_until belongs to a policy that allows plaintext")
        if not forbids and (
            not isinstance(self.plaintext_reads_until, date) or isinstance(self.plaintext_reads_until, datetime)
        ):
            raise ConfigurationError(
                f"the plaintext policy {self.plaintext_policy.value} needs plaintext_reads_until: "
                "the last day (a date, UTC) on which it applies"
            )

    def _warn_of_phi_key_names(self) -> None:
        readable = dict.fromkeys((*self.key_names, *self.context_attributes))
        names = [name for name in readable if looks_like_phi_name(name)]
        if names:
            warnings.warn(
                f"table {self.table_name!r}: {', '.join(map(repr, names))} looks like protected health "
                "information, but key and context attributes stay readable in the table, its indexes and logs; "
                "use an opaque identifier",
                PhiKeyNameWarning,
                stacklevel=4,
            )


class _WithSignedBeacons(Mapping[str, Action]):
    """A caller's actions, and those of the signed beacons that the search adds; read-only."""

    def __init__(self, given: Mapping[str, Action], added: Mapping[str, Action]) -> None:
        self.given = given
        self._all = {**given, **added}

    def __getitem__(self, attribute: str) -> Action:
        return self._all[attribute]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def reserved_name_error(attribute: str) -> ConfigurationError:
    return ConfigurationError(
        f"the attribute name {attribute!r} is reserved: names beginning with {RESERVED_ATTRIBUTE_PREFIX!r} "
        "are written by the format itself"
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ConfigurationError("unsigned_attributes is a tuple of attribute names, not one text")
    return tuple(names)


_PHI_TOKENS: Final = frozenset(
    {"ssn", "mrn", "dob", "phone", "fax", "mail", "email", "birthday", "surname", "nhs"}
)
_PHI_WORDS: Final = (
    "socialsecurity",
    "medicalrecord",
    "dateofbirth",
    "birthdate",
    "email",
    "phonenumber",
    "firstname",
    "lastname",
    "fullname",
    "patientname",
)


def looks_like_phi_name(attribute: str) -> bool:
    """Whether an attribute's name suggests values that identify a person (ssn, mrn, email, dob, …)."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", attribute)
    tokens = {word.lower() for word in words}
    joined = "".join(words).lower()
    return not tokens.isdisjoint(_PHI_TOKENS) or any(word in joined for word in _PHI_WORDS)
