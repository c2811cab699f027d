"""Every KMS call of every part of phicrypt says so in its user agent, with a correlation id of its own."""

from __future__ import annotations

import re
from pathlib import Path

from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.testing import local_aws
from phicrypt.witness import AnchoredSink, ResourceTokens


def test_every_kms_call_is_tagged_and_keeps_actor_and_purpose_to_itself(tmp_path: Path) -> None:
    with local_aws() as aws:
        kms, key_arn = aws.client("kms"), aws.kms_key_arn
        signing_key = aws.create_kms_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P384")
        mac_key = aws.create_kms_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")
        aws.kms_requests.clear()
        sink = AnchoredSink(JsonlSink(tmp_path / "audit.jsonl"), key_arn, client=kms, every_seconds=600)
        phi = PhiCrypt(KmsKeyring(key_arn, client=kms, application="portal"), audit=[sink])
        with phi.acting_as("dr-4711", "treatment"):
            message = phi.encrypt(b"x", context={"tenant": "clinic-7"})
            phi.decrypt(message, context={"tenant": "clinic-7"})
            signer = phi.signer(signing_key, client=kms)
            signature = signer.sign(b"x", resource="r", purpose="p")
            signer.verify(b"x", signature, resource="r", purpose="p")
            mac = phi.mac(mac_key, client=kms)
            mac.verify(b"x", mac.generate(b"x", resource="r", purpose="p"), resource="r", purpose="p")
        ResourceTokens.create(tmp_path / "tokens.json", KmsKeyring(key_arn, client=kms))
        store = BranchKeyStore("keys", "keys", key_arn, dynamodb_client=aws.client("dynamodb"), kms_client=kms)
        store.create_table()
        branch_key_id = store.create_key(branch_key_id="tenant-7", context={"kind": "tenant"})
        tenant = PhiCrypt(HierarchicalKeyring(store, branch_key_id=branch_key_id), cache=None)
        tenant.decrypt(tenant.encrypt(b"x", context={"tenant": "7"}), context={"tenant": "7"})
        phi.close()
        requests = list(aws.kms_requests)
    operations = {request["operation"] for request in requests}
    assert {"GenerateDataKey", "Decrypt", "Sign", "GenerateMac", "GenerateDataKeyWithoutPlaintext"} <= operations
    correlation_ids = []
    for request in requests:
        found = re.match(r"phicrypt/\S+ phicrypt-id/([0-9a-f]{32})( |$)", request["user_agent"])
        assert found is not None, request["operation"]
        correlation_ids.append(found[1])
        assert "dr-4711" not in str(request)
        assert "treatment" not in str(request)
    assert len(set(correlation_ids)) == len(correlation_ids)
    assert any("phicrypt-app/portal" in request["user_agent"] for request in requests)


def test_rule_20_actor_and_purpose_never_enter_the_context() -> None:
    events: list[AuditEvent] = []

    class Sink:
        def write(self, batch: list[AuditEvent]) -> None:
            events.extend(batch)

        def close(self) -> None:
            pass

    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)), audit=[Sink()])
    with phi.acting_as("dr-4711", "treatment"):
        message = phi.encrypt(b"x", context={"tenant": "clinic-7"})
    assert phi.inspect(message).context_names == ("tenant",)
    assert phi.decrypt(message, context={"tenant": "clinic-7"}) == b"x"
    phi.close()
    assert events[0].actor == "dr-4711"
    assert events[0].context == {"tenant": "clinic-7"}
