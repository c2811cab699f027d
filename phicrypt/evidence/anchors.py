"""The anchors of audit chains among CloudTrail's records, see :mod:`phicrypt.witness.anchors`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.evidence.trail_events import TrailEvent, same_key_everywhere
from phicrypt.witness.anchors import ANCHOR_OPERATION, CHAIN_NAME, HEAD_NAME, SEQUENCE_NAME

_ANCHOR: Final = re.compile(r"[0-9a-f]{32} [0-9]{1,18} [0-9a-f]{64}")


def anchors_in(records: Iterable[TrailEvent], *, key_arn: str | None = None) -> Iterator[ChainHead]:
    """The anchors among CloudTrail's records, of one key or of any.

    Refused calls are no anchors. Name the anchors' key if others may call KMS with contexts of their
    choice: a made-up anchor cannot hide anything, but it makes an honest log look rewritten.
    """
    for record in records:
        anchor = anchor_of(record, key_arn)
        if anchor is not None:
            yield anchor


def anchor_of(record: TrailEvent, key_arn: str | None = None) -> ChainHead | None:
    """The anchor that a record shows, if it is one."""
    if record.name != ANCHOR_OPERATION or record.error_code or record.is_network:
        return None
    if key_arn is not None and same_key_everywhere(record.key_arn) != same_key_everywhere(key_arn):
        return None
    chain_id, sequence, sha256 = (record.context.get(name, "") for name in (CHAIN_NAME, SEQUENCE_NAME, HEAD_NAME))
    if _ANCHOR.fullmatch(f"{chain_id} {sequence} {sha256}") is None:
        return None
    return ChainHead(chain_id, int(sequence), sha256)
