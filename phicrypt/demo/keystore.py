"""The demo's chapter on branch keys: two tenants, a rotation, and one tenant shredded."""

from __future__ import annotations

from collections.abc import Mapping

from phicrypt.audit import AuditTrail, JsonlSink
from phicrypt.client import PhiCrypt
from phicrypt.demo.stage import Stage, Stopwatch
from phicrypt.errors import KeyAccessError
from phicrypt.evidence.join import log_events, whole_uses
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.keys.branch_keys.store import BranchKeyStore

_TENANTS = ("clinic-7", "clinic-8")
_MESSAGES = 1_000
_SECRET_CONTEXT_VALUE = "encounter-5f2e9c"  # noqa: S105  (a context value, to look for in KMS requests)


def tell(stage: Stage) -> None:
    stage.chapter("A key per tenant, and KMS called for tenants, not messages")
    store = BranchKeyStore(
        "phicrypt-demo-keys",
        "demo-keys",
        stage.aws.kms_key_arn,
        dynamodb_client=stage.aws.client("dynamodb"),
        kms_client=stage.aws.client("kms"),
        trail=AuditTrail([JsonlSink(stage.folder / "branch-keys.jsonl")]),
    )
    store.create_table()
    for tenant in _TENANTS:
        store.create_key(tenant)
    phi = PhiCrypt(HierarchicalKeyring(store, branch_key_id=_tenant_of))
    messages = _write(stage, phi)
    _rotate(stage, phi, store, messages)
    _shred(stage, phi, store, messages)
    _show_log(stage)


def _tenant_of(context: Mapping[str, str]) -> str:
    """The branch key supplier: a message belongs to the tenant that its context names."""
    return context["tenant"]


def _write(stage: Stage, phi: PhiCrypt) -> dict[str, list[bytes]]:
    stage.say(f"{_MESSAGES:,} messages for each of two clinics, each under its clinic's branch key:")
    calls_before = stage.kms_calls()
    with Stopwatch() as watch:
        messages = {
            tenant: [
                phi.encrypt(
                    b"potassium 4.%d mmol/L" % (number % 10),
                    context={"tenant": tenant, "encounter": _SECRET_CONTEXT_VALUE},
                )
                for number in range(_MESSAGES)
            ]
            for tenant in _TENANTS
        }
    made = stage.aws.kms_requests[calls_before:]
    stage.show("encrypted", f"{len(_TENANTS) * _MESSAGES / watch.seconds:,.0f} messages a second")
    stage.show("KMS calls", f"{len(made)} {made[0]['operation']} for {len(_TENANTS)} clinics")
    stage.check(
        len(made) == 2 * len(_TENANTS),
        "two KMS calls for each clinic, since a key that seals is opened twice, and none for each message",
    )
    stage.check(
        all(_SECRET_CONTEXT_VALUE not in str(call["parameters"]) for call in stage.aws.kms_requests),
        "the messages' contexts were never shown to KMS, so CloudTrail does not hold them",
    )
    return messages


def _rotate(stage: Stage, phi: PhiCrypt, store: BranchKeyStore, messages: dict[str, list[bytes]]) -> None:
    tenant = _TENANTS[0]
    before = store.fetch_active(tenant).version
    after = store.rotate(tenant)
    stage.say(f"The branch key of {tenant} is rotated:")
    stage.show("version before", before)
    stage.show("version now", after)
    messages[tenant].append(phi.encrypt(b"potassium 4.4 mmol/L", context={"tenant": tenant}))
    old, new = messages[tenant][0], messages[tenant][-1]
    opened = [phi.decrypt(message, context={"tenant": tenant}) for message in (old, new)]
    stage.check(
        opened == [b"potassium 4.0 mmol/L", b"potassium 4.4 mmol/L"] and before != after,
        "messages of the old and of the new version open",
    )


def _shred(stage: Stage, phi: PhiCrypt, store: BranchKeyStore, messages: dict[str, list[bytes]]) -> None:
    gone, kept = _TENANTS
    stage.say(f"{gone} leaves, and its branch key is shredded:")
    certificate = store.shred(gone)
    stage.show("certificate", certificate.statement)
    stage.show("not examined", "; ".join(certificate.not_examined))
    refusals = []
    for message in (messages[gone][0], messages[gone][-1]):
        try:
            phi.decrypt(message, context={"tenant": gone})
        except KeyAccessError as refusal:
            refusals.append(refusal)
    stage.show(f"a message of {gone}", refusals[0] if refusals else "opened")
    stage.check(len(refusals) == 2, f"nothing of {gone} opens any more, in either version")
    opened = sum(bool(phi.decrypt(message, context={"tenant": kept})) for message in messages[kept])
    stage.check(opened == _MESSAGES, f"all {_MESSAGES:,} messages of {kept} open")


def _show_log(stage: Stage) -> None:
    uses = [use for use in whole_uses(log_events(stage.folder / "branch-keys.jsonl")) if use.kind == "end"]
    calls = [[call.operation for call in (*use.origin.other_calls, use.origin)] for use in uses if use.origin]
    stage.say("What was done with the branch keys stands in the audit log, with the KMS calls behind it:")
    for use, made in zip(uses, calls, strict=True):
        stage.show(use.operation, ", ".join(filter(None, made)) or "no KMS call")
    stage.check(
        [use.operation.partition("-")[0] for use in uses] == ["create", "create", "fetch", "rotate", "shred"],
        "each creation, fetch, rotation and shred left one use",
    )
