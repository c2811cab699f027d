"""The walk over a whole table: a scan in parallel segments, with a checkpoint after each page."""

from __future__ import annotations

import contextvars
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.layer import Layer, layer_of
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.survey import Checkpoint, Tally
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MAX_SEGMENTS: Final = 64
Progress = Callable[[int], None]
"""Told how many more items are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkOptions:
    """How a table is walked.

    Attributes:
        segments: parallel workers, 1 to 64.
        items_per_second: upper bound on items written (migration) or opened (verification); None for none.
        page_size: items per page of the scan; None leaves it to DynamoDB (1 MB). A kill costs at most a page.
        checkpoint_file: where the position is kept, to go on after a kill; None keeps none.
        problems_file: where the keys of items that need attention are written (mode 0600); None for nowhere.
    """

    segments: int = 4
    items_per_second: float | None = None
    page_size: int | None = None
    checkpoint_file: Path | None = None
    problems_file: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.segments <= MAX_SEGMENTS:
            raise ConfigurationError(f"segments is 1 to {MAX_SEGMENTS}")
        if self.page_size is not None and self.page_size < 1:
            raise ConfigurationError("page_size is at least 1")


DEFAULT_WALK: Final = WalkOptions()


class Walk:
    """A scan in parallel segments with a checkpoint after each page."""

    def __init__(
        self,
        layer: Layer,
        table_name: str,
        options: WalkOptions,
        checkpoint: Checkpoint,
        tally: Tally,
        on_progress: Progress | None,
    ) -> None:
        self._layer, self._table_name, self._options = layer, table_name, options
        self._checkpoint, self._tally, self._on_progress = checkpoint, tally, on_progress
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, visit: Callable[[Item], None]) -> None:
        """Visit every item; the first error stops all segments and is raised."""
        with ThreadPoolExecutor(self._options.segments, thread_name_prefix="phicrypt-walk") as pool:
            # Each worker gets a copy of the caller's context: the audit trail's actor goes along (rule 20).
            futures = [
                pool.submit(contextvars.copy_context().run, self._segment, segment, visit)
                for segment in range(self._options.segments)
            ]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()
        for future in futures:
            future.result()

    def _segment(self, segment: int, visit: Callable[[Item], None]) -> None:
        position, finished = self._checkpoint.position(segment)
        while not finished and not self._stop.is_set():
            page = self._layer.call("Scan", self._page_parameters(segment, position))
            for stored in self._tally.placed(segment, page.get("Items", ())):
                if self._stop.is_set():
                    return
                visit(stored)
            finished = not (position := page.get("LastEvaluatedKey"))
            with self._lock:
                self._tally.page_done()
                self._checkpoint.save(segment, position or None, self._tally)
                if self._on_progress is not None:
                    self._on_progress(len(page.get("Items", ())))

    def _page_parameters(self, segment: int, position: Item | None) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "TableName": self._table_name,
            "Segment": segment,
            "TotalSegments": self._options.segments,
            "ConsistentRead": True,
        }
        if self._options.page_size is not None:
            parameters["Limit"] = self._options.page_size
        if position is not None:
            parameters["ExclusiveStartKey"] = position
        return parameters


def walked_table(client: DynamoDBClient, table_name: str) -> tuple[Layer, TableConfig]:
    """The layer of an encrypting client, and the configuration of one of its tables. Raises ConfigurationError."""
    layer = layer_of(client)
    table = layer.book.resolve(table_name, "The walk over the table")
    if table is None:
        raise ConfigurationError(f"the table {table_name!r} is in plaintext_tables; give it a TableConfig")
    return layer, table


def table_identity(layer: Layer, table: TableConfig, table_name: str) -> dict[str, str]:
    """What a checkpoint belongs to: this very table and this configuration."""
    description = layer.call("DescribeTable", {"TableName": table_name})["Table"]
    said = [str(getattr(table, part)) for part in ("partition_key", "sort_key", "unsigned_prefix", "signed")]
    said += [table.logical_table_name, *sorted(table.unsigned_attributes)]
    said += sorted(f"{name}={action.value}" for name, action in table.actions.items())
    if table.search_plan is not None:
        said += sorted(f"{one.beacon.name}:{one.beacon.bits}" for one in table.search_plan.standard.values())
        said += sorted(table.search_plan.stored_names)
    return {
        "table": str(description.get("TableArn", table_name)),
        "created": str(description.get("TableId") or description.get("CreationDateTime")),
        "config": hashlib.sha256("\n".join(said).encode()).hexdigest(),
    }
