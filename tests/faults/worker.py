"""A worker: makes calls one after the other, and judges each when the proxy has said what was done to it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from phicrypt.audit import acting_as
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    KeyAccessError,
    PhiCryptError,
    UnsupportedOperationError,
)

from .calls import CALLS, Call
from .contents import Content
from .exchange import Event
from .ledger import Ledger, Place
from .stage import CAN_VERIFY_DATA_KEYS, Desk, Stage

OWN_ERRORS: Final = (PhiCryptError, ClientError, BotoCoreError, Boto3Error)
LOOKS_AT_KEYS: Final = ("GetPublicKey", "DescribeKey")
"""Calls of KMS that use no key."""
LEFT_ALONE: Final = "EndpointLeftAlone"
"""Not asked, because other calls of the same credentials got no answer."""
_KEPT_MESSAGES: Final = 24
Kept = tuple[str, bytes, Content, dict[str, str]]


class Worker:
    """One thread of the mix, with clients, places and a ledger of its own."""

    def __init__(self, stage: Stage, number: int, seed: int) -> None:
        self.tag = f"w{number}"
        self.chance = random.Random(f"{seed} worker {number}")
        self.ledger = Ledger()
        self.desk = Desk(stage, self.tag, f"tenant-{self.tag}")
        stage.store().create_key(f"tenant-{self.tag}")
        self.signer = self.desk.under_kms.signer(stage.signing_key_arn)
        self.mac = self.desk.under_kms.mac(stage.mac_key_arn)
        self.enveloping_mac = self.desk.under_kms.mac(stage.key_arn)
        self.signed: list[tuple[bytes, bytes]] = []
        self.macs: list[tuple[bytes, Any]] = []
        self.envelopes: list[tuple[bytes, str | None]] = []
        self.messages: list[Kept] = []
        self.is_poisoned = self.has_forged_data_key = self.has_believed_a_lie = False
        self._made = 0
        self._numbers = number * 10**9
        self._reads: list[tuple[Place, Any]] = []
        self._writes: list[tuple[Place, Any]] = []
        self._new_messages: list[Kept] = []
        self._rotations_before = (0, False)

    # --- what calls ask for -----------------------------------------------------------------------

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def new_content(self, sizes: tuple[int, ...]) -> Content:
        return Content(self.next_number(), self.chance.choice(sizes))

    def either_client(self) -> str:
        return self.chance.choice(("under_kms", "under_branch_key"))

    def keep_message(self, under: str, message: bytes, content: Content, context: dict[str, str]) -> None:
        self._new_messages.append((under, message, content, context))

    def some_message(self) -> Kept | None:
        return self.chance.choice(self.messages) if self.messages else None

    def known(self, place: Place) -> set[Any]:
        return place.possible | set(place.earlier)

    @contextmanager
    def writing(self, place: Place, value: Any) -> Iterator[None]:
        """What is written within may stand there, and stands there if nothing is raised."""
        place.may_become(value)
        yield
        self.wrote(place, value)

    def wrote(self, place: Place, value: Any) -> None:
        self._writes.append((place, value))

    def saw(self, place: Place, value: Any) -> None:
        self._reads.append((place, value))

    def saw_absence(self, place: Place, error: ClientError, *codes: str) -> None:
        from .ledger import ABSENT

        if error.response["Error"]["Code"] in codes:
            self.saw(place, ABSENT)

    def expect(self, is_so: bool, kind: str, what: str) -> None:
        if not is_so:
            self.ledger.violated(kind, f"{self.tag}-{self._made}: {what}")

    def rotate(self) -> None:
        """Another version for this worker; it discards what every other one is fetching."""
        stage = self.desk.stage
        stage.rotations.append("begun")
        try:
            self.desk.store.rotate(self.desk.branch_key_id)
        finally:
            stage.rotations.append("ended")

    def _rotations(self) -> tuple[int, bool]:
        rotations = self.desk.stage.rotations
        return len(rotations), rotations.count("begun") != rotations.count("ended")

    # --- the run ----------------------------------------------------------------------------------

    def make_call(self, name: str | None = None) -> None:
        if name is None:
            name = self.chance.choices(list(CALLS), [call.weight for call in CALLS.values()])[0]
        call = CALLS[name]
        self._made += 1
        actor = f"{self.tag}-{self._made}"
        self.desk.stage.proxy.take_events(self.tag)
        self._rotations_before = (len(self.desk.stage.rotations), False)
        self._reads, self._writes, self._new_messages = [], [], []
        error: Exception | None = None
        with acting_as(actor=actor):
            try:
                call.make(self)
            except Exception as caught:
                error = caught
        events = self.desk.stage.proxy.take_events(self.tag)
        self._judge(name, call, actor, events, error)

    def _judge(self, name: str, call: Call, actor: str, events: list[Event], error: Exception | None) -> None:
        ledger = self.ledger
        ledger.counts["calls"] += 1
        ledger.counts[f"call {name}: {'refused' if error else 'done'}"] += 1
        was_lied_to = any(event.is_whole_lie for event in events)
        for place, value in self._reads:
            ledger.judge_read(place, value, was_lied_to=was_lied_to)
        for place, value in self._writes:
            ledger.judge_write(place, value, was_lied_to=was_lied_to)
        self.has_believed_a_lie |= was_lied_to and bool(self._writes)
        forged = {event.operation for event in events if event.kind == "forged"}
        self.is_poisoned |= bool(forged)
        self.has_forged_data_key |= "GenerateDataKey" in forged and not CAN_VERIFY_DATA_KEYS
        self._keep_messages()
        if error is not None:
            if timed_out(error) and not any(event.kind in ("transport", "server") for event in events):
                # The machine was too busy for the clients' short time-outs: what the proxy delivered came late.
                ledger.counts["time-outs that no fault made"] += 1
                events = [*events, Event(self.tag, "kms", "", "late", "transport")]
            self._judge_error(name, events, error)
        self._judge_uses(name, call, actor, events, error)

    def _keep_messages(self) -> None:
        for kept in self._new_messages:
            if self.has_forged_data_key and kept[0] == "under_kms":
                self.ledger.counts["apart: sealed under a data key of a forged answer"] += 1
                continue
            self.messages = [*self.messages, kept][-_KEPT_MESSAGES:]
            self.ledger.counts["write: acknowledged"] += 1

    def _judge_error(self, name: str, events: list[Event], error: Exception) -> None:
        ledger = self.ledger
        ledger.counts[f"error {_shown(error)}"] += 1
        if not isinstance(error, OWN_ERRORS):
            text = "".join(traceback.format_exception(error)[-4:])
            ledger.violated("foreign exception", f"{name}: {_kinds(events)}: {text}")
        was_forged = any(event.kind == "forged" for event in events)  # such as another usage of a key
        if isinstance(error, ConfigurationError | UnsupportedOperationError) and not was_forged:
            ledger.violated("blames the caller", f"{name}: {error}; {_kinds(events)}")
        if isinstance(error, KeyAccessError):
            wrong = wrong_label(error, events)
            if wrong:
                ledger.violated("label", f"{name}: {error.code}: {wrong}; {_kinds(events)}")
        if self.has_believed_a_lie and getattr(error, "code", "") == "BranchKeyRolledBack":
            # The process remembers a creation that a whole answer acknowledged and nobody stored.
            ledger.counts["apart: refused, since a whole answer acknowledged a creation"] += 1
            return
        if not any(event.kind for event in events) and not self._is_expected(error):
            ledger.violated("refused without a fault", f"{name}: {_shown(error)}: {error}")

    def _is_expected(self, error: Exception) -> bool:
        if self._reads and isinstance(error, ClientError | KeyAccessError):
            return True  # it said that nothing is there, and that was judged
        if isinstance(error, KeyAccessError) and error.code == LEFT_ALONE:
            return True  # for what was done to other calls
        return self.is_poisoned and isinstance(error, PhiCryptError)  # by a key that a forged answer gave

    def _judge_uses(self, name: str, call: Call, actor: str, events: list[Event], error: Exception | None) -> None:
        uses = self.desk.stage.uses.take(actor)
        ledger = self.ledger
        ledger.counts["audit: uses"] += sum(uses.ended.values())
        if uses.open or uses.strays:
            ledger.violated("audit", f"{name}: {len(uses.open)} uses without an end, {len(uses.strays)} strays")
        for operation, count in call.uses:
            found = uses.succeeded(operation) if error is None else uses.of(operation)
            if found != count if error is None else found > count:
                ledger.violated("audit", f"{name}: {found} of {count} uses of {operation}: {dict(uses.ended)}")
        uses_of_keys = [event for event in events if event.request_id and event.operation not in LOOKS_AT_KEYS]
        unnamed = {event.request_id for event in uses_of_keys} - uses.request_ids
        if len(unnamed) <= uses.unanswered:  # they came too late for the client's time-out
            return
        if self._rotations() != self._rotations_before:
            ledger.counts["apart: calls of a flight that a rotation discarded"] += 1
        elif isinstance(error, AuthenticationError):
            ledger.counts["apart: calls of a use that did not authenticate"] += 1
        else:
            asked = sorted(event.operation for event in events if event.request_id in unnamed)
            ledger.violated(
                "audit", f"{name}: no event names the KMS calls {asked}; {_kinds(events)}; {error!r}; {uses}"
            )

    def close(self) -> None:
        self.desk.close()


def wrong_label(error: KeyAccessError, events: list[Event]) -> str:
    """What is wrong with an error's labels, given what was done to the call's exchanges with KMS and the store."""
    if error.code == LEFT_ALONE:
        return "" if error.is_outage and error.is_retryable else "an outage that is not called one"
    kinds = {event.kind for event in events if event.service != "s3"} - {"", "delay", "twice"}
    if error.is_outage and not error.is_retryable:
        return "an outage that is not retryable"
    if error.code == "NoAnswer" and "forged" in kinds:
        return ""  # of what was changed nothing was left that was asked for
    if error.is_outage and not kinds & {"transport", "server"}:
        return "called an outage, and nothing was down"
    if error.is_retryable and not kinds & {"transport", "server", "throttling"}:
        return "called retryable, and nothing was down or throttled"
    if kinds and kinds <= {"transport", "server"} and _is_of_the_wire(error) and not error.is_outage:
        return "an outage that is not called one"
    if kinds == {"throttling"} and _is_of_the_wire(error) and not (error.is_retryable and not error.is_outage):
        return "throttling is retryable and no outage"
    return ""


def timed_out(error: Exception) -> bool:
    """Whether nobody answered in time, as botocore or phicrypt says it."""
    codes = ("ReadTimeoutError", "ConnectTimeoutError", "DeadlineExceeded", "EndpointLeftAlone")
    return type(error).__name__ in codes or getattr(error, "code", "") in codes


def _is_of_the_wire(error: KeyAccessError) -> bool:
    """Not a refusal that a write met because its first attempt had arrived, nor one of what was asked."""
    own = (
        "BranchKeyExists",
        "BranchKeyChanged",
        "BranchKeyNotFound",
        "TransactionConflict",
        "BranchKeyRolledBack",
    )
    return error.code not in own


def _kinds(events: list[Event]) -> str:
    return ", ".join(f"{event.operation}:{event.fault}" for event in events if event.fault) or "no fault"


def _shown(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = getattr(error, "code", None) or (response["Error"].get("Code") if isinstance(response, dict) else "")
    return f"{type(error).__name__} {code or ''}".strip()
