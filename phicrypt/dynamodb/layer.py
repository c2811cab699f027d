"""The hooks between a botocore client and its network: one layer per client.

botocore emits, for each call::

    before-parameter-build   after boto3's resource turned Python values into attribute values (its
                             handler is registered before ours, which is last): check and seal
    before-send              for each attempt, with the bytes of the body: the last check (rule 17)
    after-call               before the resource turns values back (ours is first), and before an error
                             is raised: verify and open

A handler that raises stops the call there, so nothing is sent after a failed check, and nothing is
returned after a failed verification. Retries resend one body. State travels in the call's context.

At DEBUG, boto3's resources log the parameters of a call before they are sealed and the answer after it
was opened. A filter of the logger removes both, so every handler gets the redacted record.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from phicrypt.core.aws_clients import check_client, is_double
from phicrypt.core.backoff import back_off
from phicrypt.core.judged_clients import judge_answers
from phicrypt.dynamodb.answers import Answer
from phicrypt.dynamodb.beacon_keys import asked_hashes
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.items import Judge, OpenedItem, SealedItem, open_item, seal_item
from phicrypt.dynamodb.refused_values import hide_refused_values
from phicrypt.dynamodb.requests import Call, prepare
from phicrypt.dynamodb.shapes import Item, with_exponents, without_last_zeros
from phicrypt.dynamodb.table_checks import CheckTables, TableChecks
from phicrypt.dynamodb.tables import FOOTER, HEADER, TableBook
from phicrypt.dynamodb.tokens import TokenLedger
from phicrypt.errors import ConfigurationError, LimitExceededError, UnsupportedOperationError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from phicrypt.session import Session

_CONTEXT_NAME: Final = "phicrypt"
MAX_KEYS_PER_BATCH: Final = 100
MAX_BATCH_ATTEMPTS: Final = 10
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 30.0
_RESOURCE_LOGGER: Final = "boto3.resources.action"
_ITEM_MEMBERS: Final = frozenset({"Attributes", "Item", "Items", "Responses", "UnprocessedItems"})
_REMOVED: Final = "<removed by phicrypt>"


class _DirectCall:
    """A call of phicrypt's own through the client: low-level in and out, sealed and opened by its maker."""

    __slots__ = ("answer", "is_pending", "layer", "operation", "parameters")

    def __init__(self, layer: Layer, operation: str, parameters: Mapping[str, Any]) -> None:
        self.layer = layer
        self.operation = operation
        self.parameters = parameters
        self.answer: dict[str, Any] = {}
        self.is_pending = True

    def taken_by(self, layer: Layer, operation: str) -> bool:
        """Whether this is the call that is being built; true once."""
        taken = self.is_pending and self.layer is layer and self.operation == operation
        self.is_pending = self.is_pending and not taken
        return taken


_direct_call: ContextVar[_DirectCall | None] = ContextVar("phicrypt_dynamodb_direct_call", default=None)


class Layer:
    """Encrypts and decrypts the calls of one client.

    Attributes:
        phi_session, book: seals and opens the items of these tables.
        is_of_resource: boto3's resource makes the calls and turns the answers into Python values.
    """

    def __init__(
        self, phi_session: Session, client: DynamoDBClient, book: TableBook, check_tables: CheckTables
    ) -> None:
        self.phi_session = phi_session
        self.book = book
        self.is_of_resource = _is_of_resource(client)
        # Weak, so that the registry of layers keeps no client alive.
        self._client = ref(client)
        self._tokens = TokenLedger()
        self._checks = TableChecks(self.call, check_tables)

    def register(self, client: DynamoDBClient) -> None:
        """Hook into the client's events. The client is changed from here on."""
        hide_refused_values(client)
        events: Any = client.meta.events  # one hook answers: the stubs know of none that does
        judge_answers(events, events, is_double=is_double(client))
        events.register("provide-client-params.dynamodb", _own_parameters, unique_id="phicrypt-parameters")
        if self.is_of_resource:
            numbers = "phicrypt-numbers"
            events.register_first("before-parameter-build.dynamodb", _with_storable_numbers, unique_id=numbers)
        events.register_last("before-parameter-build.dynamodb", self._before_build, unique_id="phicrypt-seal")
        events.register_last("before-send.dynamodb", self._before_send, unique_id="phicrypt-last-check")
        events.register_first("after-call.dynamodb", self._after_call, unique_id="phicrypt-open")

    def check_all_tables(self) -> None:
        """Compare every table with its configuration now; ConfigurationError for one that does not exist."""
        for table in self.book:
            if self._checks(table.table_name, table, writes=False) is None:
                raise ConfigurationError(
                    f"the table {table.table_name!r} does not exist in this account and Region"
                )

    def check_writable(self, table: TableConfig) -> None:
        """Raise ConfigurationError or UnsupportedOperationError if the table may not be written."""
        self._checks(table.table_name, table, writes=True)

    def reads_whole_items(self, table: TableConfig, index_name: str) -> bool:
        """Whether an index is known to copy everything that is signed, so that its items can be verified."""
        facts = self._checks(table.table_name, table, writes=False, index_name=index_name)
        index = None if facts is None else facts.indexes.get(index_name)
        return index is not None and index.holds_whole_items(table)

    def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Call DynamoDB in the low-level shape, whatever the client's own shape is.

        The items are neither sealed nor opened, but the last check holds. Raises botocore's errors.
        """
        from botocore import xform_name

        direct = _DirectCall(self, operation, parameters)
        # In a copy of the context: an interrupt must not leave it behind, for a caller's call to be taken for it.
        context = copy_context()
        context.run(_direct_call.set, direct)
        context.run(getattr(self._client(), xform_name(operation)))
        return direct.answer

    def fetch(self, name_or_arn: str, keys: Sequence[Item]) -> list[Item]:
        """Whole stored items by their keys, read consistently; keys without item are left out."""
        found: list[Item] = []
        for start in range(0, len(keys), MAX_KEYS_PER_BATCH):
            pending = {
                name_or_arn: {"Keys": list(keys[start : start + MAX_KEYS_PER_BATCH]), "ConsistentRead": True}
            }
            for attempt in range(MAX_BATCH_ATTEMPTS):
                answer = self.call("BatchGetItem", {"RequestItems": pending})
                for items in answer.get("Responses", {}).values():
                    found.extend(items)
                pending = answer.get("UnprocessedKeys") or {}
                if not pending:
                    break
                back_off(attempt, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
            else:
                raise LimitExceededError(
                    "DynamoDB left keys of a batch unread again and again; ask for fewer items",
                    limit=MAX_BATCH_ATTEMPTS,
                    actual=None,
                )
        return found

    def seal(self, item: Mapping[str, Any], table: TableConfig, operation: str) -> SealedItem:
        """``operation`` is for the audit event: DynamoDB's name, or that of a function of phicrypt's own."""
        return seal_item(self.phi_session, item, table, shape="low-level", operation=_audited_name(operation))

    def open(
        self, item: Mapping[str, Any], table: TableConfig, operation: str, *, is_wanted: Judge | None = None
    ) -> OpenedItem:
        """``operation`` as of :meth:`seal`; ``is_wanted`` as of :func:`~phicrypt.dynamodb.items.open_item`."""
        opened = open_item(
            self.phi_session,
            item,
            table,
            shape="low-level",
            operation=_audited_name(operation),
            is_wanted=is_wanted,
        )
        if opened.has_unknown_beacons:
            self._checks.saw_unknown_beacons(table.table_name)
        return opened

    def _before_build(
        self, params: MutableMapping[str, Any], model: Any, context: MutableMapping[str, Any], **_: Any
    ) -> None:
        direct = _direct_call.get()
        if direct is not None and direct.taken_by(self, model.name):
            context[_CONTEXT_NAME] = direct
            _replace(params, direct.parameters)
            return
        if context.get("is_presign_request"):
            raise UnsupportedOperationError(
                f"a presigned URL for {model.name} is refused: whoever uses it would send and receive items as "
                "they are, without encryption or verification"
            )
        asked = dict(params)
        if model.name == "TransactWriteItems" and isinstance(asked.get("ClientRequestToken"), str):
            sent = self._tokens.sealed_once(asked, lambda: self._prepare(model.name, asked).sent)
            call = Call(model.name, asked, sent)
        else:
            call = self._prepare(model.name, asked)
        context[_CONTEXT_NAME] = call
        _replace(params, call.sent)

    def _prepare(self, operation: str, asked: Mapping[str, Any]) -> Call:
        audited = _audited_name(operation)
        seal = partial(seal_item, self.phi_session, shape="low-level", operation=audited)
        hashes = partial(asked_hashes, self.phi_session, operation=audited)
        return prepare(operation, asked, self.book, seal, self._checks, hashes)

    def _before_send(self, request: Any, event_name: str, **_: Any) -> None:
        check_body(event_name.rpartition(".")[2], request.body, self.book)

    def _after_call(
        self, parsed: MutableMapping[str, Any], model: Any, context: Mapping[str, Any], **_: Any
    ) -> None:
        call = context.get(_CONTEXT_NAME)
        if isinstance(call, _DirectCall):
            if "Error" not in parsed:
                call.answer = dict(parsed)
                _replace(parsed, {"ResponseMetadata": parsed.get("ResponseMetadata", {})})
            return
        if not isinstance(call, Call) or call.operation != model.name:
            parsed.clear()
            raise UnsupportedOperationError(f"the answer of {model.name} did not pass phicrypt on its way out")
        answer = Answer(call, parsed, self.book, partial(self.open, operation=model.name), self.fetch)
        try:
            answer.open()
        except Exception as error:
            if "Error" not in parsed and model.name in ("DeleteItem", "PutItem", "UpdateItem"):
                error.add_note(f"{model.name} itself was done; what it returned could not be opened")
            raise
        if self.is_of_resource:
            _replace(parsed, with_exponents(parsed))


def _is_of_resource(client: DynamoDBClient) -> bool:
    """Whether boto3's resource stands around this client, wherever the client came from.

    The resource hooks into the client's events under a name of its own, without counting; botocore refuses to
    count what was registered without.
    """
    events: Any = client.meta.events
    event, unique_id = "after-call.dynamodb", "dynamodb-attr-value-output"
    try:
        events.register(event, _nothing, unique_id=unique_id, unique_id_uses_count=True)
    except ValueError:
        return True
    events.unregister(event, _nothing, unique_id=unique_id, unique_id_uses_count=True)
    return False


def _nothing(**_: Any) -> None:
    """Registered for a moment, and never called."""


def _with_storable_numbers(params: MutableMapping[str, Any], **_: Any) -> None:
    """Before the resource turns Python values into attribute values; the parameters are a copy of its own."""
    _replace(params, without_last_zeros(dict(params)))


_layers: WeakKeyDictionary[Any, Layer] = WeakKeyDictionary()
_layers_lock = threading.Lock()


def layer_of(client: DynamoDBClient) -> Layer:
    """The layer of an encrypting client, resource or resource's table; ConfigurationError without one."""
    meta = getattr(client, "meta", None)
    layer = _layers.get(getattr(meta, "client", client))
    if layer is None:
        raise ConfigurationError(
            "this client does not encrypt: use phi.dynamodb.client(…), phi.dynamodb.resource(…) or "
            "phi.dynamodb.attach(client, …)"
        )
    return layer


def attach_layer(
    phi_session: Session, client: DynamoDBClient, book: TableBook, check_tables: CheckTables
) -> Layer:
    """Make a botocore client encrypt from now on; see :func:`phicrypt.dynamodb.client.attach`."""
    check_client(client, "phi.dynamodb", service="dynamodb")
    with _layers_lock:
        layer = _layers.get(client)
        if layer is None:
            _redact_resource_logs()
            layer = Layer(phi_session, client, book, check_tables)
            layer.register(client)
            _layers[client] = layer
        elif layer.phi_session is not phi_session or not layer.book.same_tables(book):
            raise ConfigurationError(
                "the client is attached already, with another PhiCrypt or other tables; make another client"
            )
    if check_tables == "at_start":
        layer.check_all_tables()
    return layer


@cache
def _audited_name(operation: str) -> str:
    """Such as ``dynamodb.put_item``."""
    from botocore import xform_name

    return f"dynamodb.{xform_name(operation)}"


def check_body(operation: str, body: bytes | str | None, book: TableBook) -> None:
    """The last check before send: no put to an encrypted table without header and footer (rule 17).

    Also no update without the condition on the footer (rule 18). Reads the bytes that leave, so it
    holds whatever happened to the parameters before. Raises UnsupportedOperationError.
    """
    if operation not in ("BatchWriteItem", "PutItem", "TransactWriteItems", "UpdateItem"):
        return
    try:
        puts, updates = _writes(operation, json.loads(body or b""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        puts = None
    # Not in the handler, because Python's error holds the body.
    if puts is None:
        raise UnsupportedOperationError(f"the body of {operation} could not be checked before sending")
    for name, item in puts:
        table = book.resolve(name, operation)
        if table is not None and not (_is_binary(item, HEADER) and _is_binary(item, FOOTER)):
            _check_plaintext_write(operation, table)
    for name, update in updates:
        table = book.resolve(name, operation)
        if table is not None and FOOTER not in update.get("ConditionExpression", ""):
            _check_plaintext_write(operation, table)


def _check_plaintext_write(operation: str, table: TableConfig) -> None:
    if not table.writes_plaintext():
        raise UnsupportedOperationError(
            f"{operation} was stopped before it was sent: it would have written to the encrypted table "
            f"{table.table_name!r} without {HEADER} and {FOOTER}. Another event handler may have changed the call"
        )


_Writes = list[tuple[str, dict[str, Any]]]


def _writes(operation: str, request: dict[str, Any]) -> tuple[_Writes, _Writes]:
    """The puts and updates of a body, each as table name and item (or update)."""
    if operation == "PutItem":
        return [(request["TableName"], request["Item"])], []
    if operation == "UpdateItem":
        return [], [(request["TableName"], request)]
    if operation == "BatchWriteItem":
        batch = request["RequestItems"].items()
        return [(name, w["PutRequest"]["Item"]) for name, writes in batch for w in writes if "PutRequest" in w], []
    entries = request["TransactItems"]
    puts = [(entry["Put"]["TableName"], entry["Put"]["Item"]) for entry in entries if "Put" in entry]
    return puts, [(entry["Update"]["TableName"], entry["Update"]) for entry in entries if "Update" in entry]


def _is_binary(item: Mapping[str, Any], name: str) -> bool:
    value = item.get(name)
    return isinstance(value, dict) and bool(value.get("B"))


def _own_parameters(params: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    """A dict of the call's own: libraries pass theirs, which must not end up holding ciphertext."""
    return dict(params)


def _replace(target: MutableMapping[str, Any], source: Mapping[str, Any]) -> None:
    fresh = dict(source)
    target.clear()
    target.update(fresh)


class _ItemFilter(logging.Filter):
    """Removes parameters and answers of DynamoDB calls from log records; drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 3 and arguments[0] == "dynamodb":
            record.args = (*arguments[:2], _REMOVED)
        # Logging's form for one mapping, which is an answer.
        elif isinstance(arguments, Mapping) and _ITEM_MEMBERS.intersection(arguments):
            record.args = (_REMOVED,)
        return True


def _redact_resource_logs() -> None:
    """Install the filter for the whole process; it is there at most once."""
    logger = logging.getLogger(_RESOURCE_LOGGER)
    if not any(isinstance(present, _ItemFilter) for present in logger.filters):
        logger.addFilter(_ItemFilter())
