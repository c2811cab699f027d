"""Where the ``phicrypt audit`` commands read from: times, logs, CloudTrail, and names of resources."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from phicrypt.audit.events import AuditEvent, parse_time
from phicrypt.audit.trail import AuditTrail
from phicrypt.cli.console import progress
from phicrypt.cli.options import AwsAccess
from phicrypt.core.kms_arn import parse_kms_arn
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.join import Joined, join, log_events, trail_source
from phicrypt.evidence.log_lines import LogReading
from phicrypt.witness.token_keys import ResourceTokens

Thing = TypeVar("Thing")

_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a join is asked: a time, further keys and principals, whose anchors count, and whether digests do."""

    since: str | None = None
    until: str | None = None
    keys: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    anchor_key: str | None = None
    no_digests: bool = False


@contextmanager
def open_join(log: Path, trail: str, aws: AwsAccess, asked: Asked) -> Iterator[Joined]:
    for option, arn in (*(("--key", arn) for arn in asked.keys), ("--anchor-key", asked.anchor_key)):
        if arn is not None:
            check_key_arn(option, arn)
    read, check_digests = trail_source(trail, client=aws.client)
    since_ns = None if asked.since is None else parse_moment(asked.since)
    until_ns = None if asked.until is None else parse_moment(asked.until)
    digests = None if asked.no_digests else check_digests(since_ns, until_ns)
    with join(
        log,
        lambda early, late, reading: counted(read(early, late, reading)),
        since_ns=since_ns,
        until_ns=until_ns,
        key_arns=asked.keys,
        principals=asked.principals,
        digests=digests,
        digests_were_asked=not asked.no_digests,
        anchor_key_arn=asked.anchor_key,
    ) as joined:
        yield joined


def check_key_arn(option: str, arn: str) -> None:
    """Raise ConfigurationError for what would watch, or believe, no key at all."""
    found = parse_kms_arn(arn)
    if found is None or found.resource_type != "key":
        raise ConfigurationError(f"{option} is a key's own ARN, arn:aws:kms:REGION:ACCOUNT:key/ID")


def counted(things: Iterable[Thing], what: str = "Events") -> Iterator[Thing]:
    """The things, and how many there were so far on a terminal."""
    with progress(what, None) as advance:
        for number, thing in enumerate(things, 1):
            if number % 1_000 == 0:
                advance(1_000)
            yield thing


def events_between(log: Path, since: str | None, until: str | None, reading: LogReading) -> Iterator[AuditEvent]:
    since_ns = None if since is None else parse_moment(since)
    until_ns = None if until is None else parse_moment(until)
    for event in counted(log_events(log, reading)):
        if (since_ns is None or event.time_ns >= since_ns) and (until_ns is None or event.time_ns <= until_ns):
            yield event


def parse_moment(text: str) -> int:
    """Nanoseconds since 1970 of a date, a time, or a duration before now. Raises ConfigurationError."""
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if ago is not None:
        return time.time_ns() - int(ago[1]) * _SECONDS[ago[2]] * 10**9
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        text += "T00:00:00Z"
    with suppress(ValueError):
        return parse_time(text)
    raise ConfigurationError(
        "a time is 2026-01-31, 2026-01-31T12:00:00Z (with its zone), or 90m, 24h, 7d, 2w before now"
    )


def tokens_of(
    resource: str, token_keys: Path | None, key: str | None, aws: AwsAccess, trail: AuditTrail | None = None
) -> list[str]:
    if resource.startswith("rt1-"):
        return [resource]
    if token_keys is None or key is None:
        raise ConfigurationError("to find a resource by name, give --token-keys FILE and its --key ARN")
    tokens = ResourceTokens.load(token_keys, aws.kms_keyring(key), trail=trail)
    scheme, _, rest = resource.partition("://")
    place, _, name = rest.partition("/")
    if scheme in ("s3", "branch-key") and place and name:
        return tokens.all_tokens((scheme, place, name))
    if scheme == "dynamodb" and place and name:
        from phicrypt.formats.dbesdk.attributes import serialize

        return tokens.all_tokens(
            ("dynamodb", place, *(b"".join(serialize({"S": part})) for part in name.split("/", 1)))
        )
    raise ConfigurationError(
        "a resource is s3://bucket/key, dynamodb://table/partition[/sort] (text keys), "
        "branch-key://logical-name/id, or a token"
    )
