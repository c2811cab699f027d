"""Keeps plaintext items out of boto3's debug logs.

At DEBUG, boto3's resources log the parameters of a call before they are sealed and the answer after it
was opened. The filter removes both; it acts on the logger itself, so every handler gets the redacted record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

_LOGGER: Final = "boto3.resources.action"
_ITEM_MEMBERS: Final = frozenset({"Attributes", "Item", "Items", "Responses", "UnprocessedItems"})
_REMOVED: Final = "<removed by phicrypt>"


class ItemFilter(logging.Filter):
    """Removes parameters and answers of DynamoDB calls from log records; drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 3 and arguments[0] == "dynamodb":
            record.args = (*arguments[:2], _REMOVED)
        # Logging's form for one mapping, which is an answer.
        elif isinstance(arguments, Mapping) and _ITEM_MEMBERS.intersection(arguments):
            record.args = (_REMOVED,)
        return True


def redact_resource_logs() -> None:
    """Install the filter for the whole process; it is there at most once."""
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(present, ItemFilter) for present in logger.filters):
        logger.addFilter(ItemFilter())
