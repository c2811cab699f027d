"""IAM policy documents, read as JSON: statements, wildcards, and who is meant by "everyone".

Pure: text in, answers out. Shared by the write guard, the posture rules and ``phicrypt policy lint``.
What counts as public follows AWS's description of a public policy: a statement that allows everyone
is not public when a condition pins the caller to fixed accounts, organizations, networks or
principals.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from phicrypt.core.strict_json import parse_json
from phicrypt.errors import FormatError, LimitExceededError

MAX_POLICY_LENGTH_BYTES: Final = 64 * 1024
"""Twice the largest policy that AWS stores (a key policy holds 32 KiB)."""

_MEMBERS: Final = frozenset(
    ("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition")
)
_WRAPPERS: Final = ("Policy", "PolicyDocument", "AssumeRolePolicyDocument", "Document", "PolicyVersion", "Role")
"""Members under which the answers of AWS's command line hold a policy, as an object or as text."""
_PINNING_KEYS: Final = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceip",
        "aws:sourceorgid",
        "aws:sourceorgpaths",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
        "kms:calleraccount",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
    }
)
_PINNING_OPERATORS: Final = frozenset(
    {"stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike", "ipaddress"}
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, with every one-or-many field as a tuple of text.

    ``conditions`` maps operator to condition key to values, spelled as the document has them.
    ``principals`` maps kind (``"AWS"``, ``"Service"``, …) to names; the bare ``"*"`` is
    ``{"*": ("*",)}``. ``unknown_members`` are those that IAM does not know.
    """

    effect: str
    sid: str = ""
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] = ()
    principals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_principals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    unknown_members: tuple[str, ...] = ()

    @property
    def is_allow(self) -> bool:
        return self.effect == "Allow"

    @property
    def names_everyone(self) -> bool:
        """Whether the principal is ``"*"``, every one of a kind (``{"AWS": "*"}``), or everyone but some."""
        return bool(self.not_principals) or any(
            "*" in self.principals.get(kind, ()) for kind in ("*", "AWS", "CanonicalUser", "Federated", "Service")
        )

    @property
    def is_public(self) -> bool:
        """Whether it allows everyone without pinning who that is."""
        return self.is_allow and self.names_everyone and not _pins_the_caller(self.conditions)

    def covers_action(self, action: str) -> bool:
        """Whether its actions take in ``action``, such as ``"kms:Decrypt"``."""
        if self.not_actions:
            return not any(wildcard_match(pattern, action) for pattern in self.not_actions)
        return any(wildcard_match(pattern, action) for pattern in self.actions)

    def covers_resource(self, resource: str) -> bool:
        """Whether its resources take in this ARN."""
        if self.not_resources:
            return not any(wildcard_match(p, resource, ignore_case=False) for p in self.not_resources)
        return any(wildcard_match(p, resource, ignore_case=False) for p in self.resources)

    def condition_keys(self) -> Iterable[tuple[str, str, tuple[str, ...]]]:
        """(operator, condition key, values) of every condition."""
        for operator, pairs in self.conditions.items():
            for name, values in pairs.items():
                yield operator, name, values


def read_policy(document: bytes | str) -> Mapping[str, Any]:
    """The policy that a text holds, also inside an answer of AWS's command line. Raises like parse_policy."""
    if len(document) > MAX_POLICY_LENGTH_BYTES:
        raise LimitExceededError(
            "the policy document is too long in bytes", limit=MAX_POLICY_LENGTH_BYTES, actual=len(document)
        )
    if isinstance(document, bytes):
        document = document.removeprefix(b"\xef\xbb\xbf")
    found: object = parse_json(
        document.removeprefix("\ufeff") if isinstance(document, str) else document, field="policy"
    )
    for _ in _WRAPPERS:
        if not isinstance(found, Mapping) or "Statement" in found:
            break
        found = next((found[name] for name in _WRAPPERS if name in found), None)
        if isinstance(found, str):
            found = parse_json(found, field="policy")
    if not isinstance(found, Mapping) or "Statement" not in found:
        raise FormatError("an object with the member Statement was expected", field="policy")
    return found


def parse_policy(document: bytes | str | Mapping[str, Any]) -> tuple[Statement, ...]:
    """The statements of a policy, as JSON in UTF-8 or an already parsed object.

    Raises FormatError (field ``policy``) for anything that is not a policy document, and
    LimitExceededError for more than :data:`MAX_POLICY_LENGTH_BYTES` of text.
    """
    if isinstance(document, bytes | str):
        document = read_policy(document)
    if not isinstance(document, Mapping) or "Statement" not in document:
        raise FormatError("an object with the member Statement was expected", field="policy")
    statements = document["Statement"]
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list):
        raise FormatError("an object or a list was expected", field="Statement")
    return tuple(_statement(entry, index) for index, entry in enumerate(statements))


def wildcard_match(pattern: str, text: str, *, ignore_case: bool = True) -> bool:
    """IAM's wildcards: ``*`` is any text, ``?`` any one character.

    At most pattern times text steps: a policy full of stars cannot stall its reader.
    """
    if ignore_case:
        pattern, text = pattern.lower(), text.lower()
    at_pattern = at_text = 0
    star, resume = -1, 0
    while at_text < len(text):
        if at_pattern < len(pattern) and pattern[at_pattern] == "*":
            star, resume = at_pattern, at_text
            at_pattern += 1
        elif at_pattern < len(pattern) and pattern[at_pattern] in ("?", text[at_text]):
            at_pattern += 1
            at_text += 1
        elif star >= 0:
            resume += 1
            at_pattern, at_text = star + 1, resume
        else:
            return False
    return not pattern[at_pattern:].strip("*")


def requires_tls(statements: Iterable[Statement], bucket: str, *, partition: str = "aws") -> bool:
    """Whether one statement denies everyone every action without TLS, on the bucket and its objects.

    Only the plain form counts: any further condition, a list of some actions, or ``NotPrincipal``
    leaves a way in without TLS. ``s3:TlsVersion`` alone does not count, because a request over
    plain HTTP has no TLS version to compare.
    """
    bucket_arn = f"arn:{partition}:s3:::{bucket}"
    covers_bucket = covers_objects = False
    for statement in statements:
        if statement.effect != "Deny" or not _names_literally_everyone(statement):
            continue
        if not {"*", "s3:*"} & {action.lower() for action in statement.actions}:
            continue
        if not _is_plain_http_condition(statement.conditions):
            continue
        for pattern in statement.resources:
            covers_bucket |= wildcard_match(pattern, bucket_arn, ignore_case=False)
            # Every object: a final star, and what stands before it matches the empty object key.
            covers_objects |= pattern.endswith("*") and wildcard_match(
                pattern, f"{bucket_arn}/", ignore_case=False
            )
    return covers_bucket and covers_objects


def _names_literally_everyone(statement: Statement) -> bool:
    return any("*" in statement.principals.get(kind, ()) for kind in ("*", "AWS"))


def _is_plain_http_condition(conditions: Mapping[str, Mapping[str, tuple[str, ...]]]) -> bool:
    flat = [
        (operator.lower(), name.lower(), values)
        for operator, pairs in conditions.items()
        for name, values in pairs.items()
    ]
    if len(flat) != 1:
        return False
    operator, name, values = flat[0]
    return (
        operator in ("bool", "boolifexists")
        and name == "aws:securetransport"
        and [value.lower() for value in values] == ["false"]
    )


def _pins_the_caller(conditions: Mapping[str, Mapping[str, tuple[str, ...]]]) -> bool:
    """Whether a condition limits the caller to fixed values.

    ``…IfExists`` operators pass when the key is absent, ``ForAllValues:`` passes on an empty set and
    negated operators name everyone else: none of these pins anybody.
    """
    return any(
        operator.lower().removeprefix("foranyvalue:") in _PINNING_OPERATORS
        and name.lower() in _PINNING_KEYS
        and bool(values)
        and all(_is_fixed(name.lower(), value) for value in values)
        for operator, pairs in conditions.items()
        for name, values in pairs.items()
    )


def _is_fixed(name: str, value: str) -> bool:
    if name == "aws:sourceip":
        try:
            # AWS calls a range wider than /8 (IPv4) or /32 (IPv6) public.
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return False
        return network.prefixlen >= (8 if network.version == 4 else 32)
    if name in ("aws:principalarn", "aws:sourcearn", "s3:dataaccesspointarn"):
        # An ARN pins somebody once its account (the fifth part) is fixed, or for S3 its bucket.
        parts = value.split(":", 5)
        return len(parts) == 6 and "*" not in (parts[4] or parts[5]) and (parts[4] or parts[5]) != ""
    if name in ("aws:principalorgpaths", "aws:sourceorgpaths"):
        value = value.partition("/")[0]  # o-…/r-…/ou-…/*: the first part is the organization
    return value != "" and "*" not in value and "?" not in value


def _statement(entry: object, index: int) -> Statement:
    place = f"Statement[{index}]"
    if not isinstance(entry, Mapping):
        raise FormatError("an object was expected", field=place)
    effect = entry.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise FormatError("Allow or Deny was expected", field=f"{place}.Effect")
    conditions = entry.get("Condition", {})
    if not isinstance(conditions, Mapping) or not all(isinstance(pairs, Mapping) for pairs in conditions.values()):
        raise FormatError("an object of operators, each an object, was expected", field=f"{place}.Condition")
    return Statement(
        effect=effect,
        sid=str(entry.get("Sid", "")),
        actions=_texts(entry.get("Action"), f"{place}.Action"),
        not_actions=_texts(entry.get("NotAction"), f"{place}.NotAction"),
        resources=_texts(entry.get("Resource"), f"{place}.Resource"),
        not_resources=_texts(entry.get("NotResource"), f"{place}.NotResource"),
        principals=_principals(entry.get("Principal"), f"{place}.Principal"),
        not_principals=_principals(entry.get("NotPrincipal"), f"{place}.NotPrincipal"),
        conditions={
            operator: {name: _texts(values, f"{place}.Condition") for name, values in pairs.items()}
            for operator, pairs in conditions.items()
        },
        unknown_members=tuple(str(member) for member in entry if member not in _MEMBERS),
    )


def _texts(value: object, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    texts = []
    for entry in entries:
        if isinstance(entry, bool):
            entry = "true" if entry else "false"
        if isinstance(entry, int | float):
            entry = str(entry)
        if not isinstance(entry, str):
            raise FormatError("text or a list of text was expected", field=place)
        texts.append(entry)
    return tuple(texts)


def _principals(value: object, place: str) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if value == "*":
        return {"*": ("*",)}
    if not isinstance(value, Mapping):
        raise FormatError('"*" or an object was expected', field=place)
    return {str(kind): _texts(names, place) for kind, names in value.items()}
