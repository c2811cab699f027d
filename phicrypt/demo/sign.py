"""The demo's chapter on signatures: a report signed by KMS, verified without it; a manifest that names changes."""

from __future__ import annotations

import json

from phicrypt.demo.stage import Stage
from phicrypt.errors import AuthenticationError
from phicrypt.formats.manifests import ManifestMismatchError
from phicrypt.signatures.mac import Mac
from phicrypt.signatures.signer import Signer, Verifier

_NAMED = {"resource": "reports/5f2e9c.pdf", "purpose": "lab-result-release"}


def tell(stage: Stage) -> None:
    stage.chapter("Signed by KMS, verified by anyone")
    kms = stage.aws.client("kms")
    key_arn = stage.aws.create_kms_key(KeySpec="ECC_NIST_P384", KeyUsage="SIGN_VERIFY")
    signer = Signer(key_arn, client=kms)
    _sign_report(stage, signer)
    _sign_manifest(stage, signer)
    _make_tokens(stage, Mac(stage.aws.kms_key_arn, client=kms))


def _sign_report(stage: Stage, signer: Signer) -> None:
    stage.say("A laboratory signs a report. KMS signs the digest, the report's name and the purpose together:")
    report = b"potassium 4.1 mmol/L" * 10_000
    envelope = signer.sign(report, **_NAMED)
    stage.show("signature file", f"DSSE envelope, {len(envelope)} bytes, for {len(report):,} bytes of report")
    offline = Verifier(signer.key_arn, signer.public_key_der())
    calls_before = stage.kms_calls()
    statement = offline.verify(report, envelope, **_NAMED)
    stage.check(stage.kms_calls() == calls_before, "the public key alone verifies it: no KMS, no network")
    signer.verify(report, envelope, by_kms=True, **_NAMED)
    stage.check(True, f"KMS verifies it as well: {statement.algorithm}, signed at {statement.signed_at}")
    for what, source, named in (
        ("a changed byte", report[:-1] + b"!", _NAMED),
        ("another report's name", report, {**_NAMED, "resource": "reports/000000.pdf"}),
        ("another purpose", report, {**_NAMED, "purpose": "billing"}),
    ):
        stage.check(_fails(offline, source, envelope, named), f"{what} is refused")


def _fails(verifier: Verifier, source: bytes, envelope: bytes, named: dict[str, str]) -> bool:
    try:
        verifier.verify(source, envelope, **named)
    except AuthenticationError:
        return True
    return False


def _sign_manifest(stage: Stage, signer: Signer) -> None:
    stage.say("One signature for a thousand images, listed in a manifest:")
    images = [(f"slice-{number:04}.dcm", b"pixels %d" % number) for number in range(1_000)]
    name, purpose = "study-12", "archive"
    manifest, envelope = signer.sign_manifest(images, resource=name, purpose=purpose)
    signer.verify_manifest(manifest, envelope, images, resource=name, purpose=purpose)
    changed = [*images[:7], ("slice-0007.dcm", b"Pixels 7"), *images[9:], images[8]]
    try:
        signer.verify_manifest(manifest, envelope, changed, resource=name, purpose=purpose)
        differences = {}
    except ManifestMismatchError as mismatch:
        differences = {difference.name: difference.kind for difference in mismatch.differences}
    stage.show("found", json.dumps(differences))
    stage.check(
        differences == {"slice-0007.dcm": "bytes", "slice-0008.dcm": "order"},
        "the changed image and the one out of order are named",
    )


def _make_tokens(stage: Stage, mac: Mac) -> None:
    stage.say("Search tokens at memory speed, under a local key that KMS envelopes:")
    tokens = mac.local([mac.new_local_key("search-tokens")], purpose="search-tokens")
    calls_before = stage.kms_calls()
    made = [tokens.generate(b"encounter-%d" % number, resource="encounter") for number in range(1_000)]
    tokens.verify(b"encounter-7", made[7], resource="encounter")
    stage.check(stage.kms_calls() == calls_before, f"{len(set(made)):,} tokens, no KMS call for any of them")
