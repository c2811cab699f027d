"""``phicrypt audit verify``, ``checkpoint``, ``checkpoint-key``, ``prove`` and ``check-proof``: the whole log."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.cli.audit_options import AnchorKeyOption, NoDigestsOption
from phicrypt.cli.audit_sources import check_key_arn, counted
from phicrypt.cli.audit_tables import end_with, print_verification, tell_problems, verification_as_dict
from phicrypt.cli.console import print_json, printable
from phicrypt.cli.options import (
    AuditOptions,
    AwsAccess,
    AwsWithoutFips,
    ForceOption,
    JsonOption,
)
from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.anchors import anchor_of
from phicrypt.evidence.cloudtrail import Reading
from phicrypt.evidence.digests import compare_reading
from phicrypt.evidence.join import trail_source
from phicrypt.evidence.log_lines import Place
from phicrypt.evidence.proofs import MAX_PROOF_LENGTH_BYTES, check_proof, prove
from phicrypt.evidence.tree_heads import AnchoredTree, CheckpointReading, anchored_tree_of, read_checkpoint
from phicrypt.evidence.verdict import verdict_of_chain
from phicrypt.evidence.verify import Fault, verify
from phicrypt.formats.notes import VerifierKey
from phicrypt.witness.checkpoints import Checkpoints, checkpoint_path
from phicrypt.witness.cosigning import Witness
from phicrypt.witness.note_keys import ALGORITHMS, KmsNoteKey, LocalNoteKey, NoteKey

CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="A checkpoint that was kept; else LOG.checkpoint."),
]
CheckpointKeyOption = Annotated[
    list[str] | None,
    typer.Option("--checkpoint-key", metavar="VKEY", help="Verifier key of the log; repeatable."),
]
WitnessKeyOption = Annotated[
    list[str] | None,
    typer.Option("--witness-key", metavar="VKEY", help="Verifier key of a witness that must have cosigned."),
]
OriginOption = Annotated[
    str,
    typer.Option("--origin", metavar="NAME", help="The log's name, such as clinic.example/audit/portal."),
]
SigningKeyOption = Annotated[
    Path | None, typer.Option("--signing-key", metavar="FILE", help="Private key that signs, in PEM.")
]
KmsKeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="ARN", help="KMS key that signs: ECC_NIST_EDWARDS25519 or ML_DSA_44."),
]


def verify_log(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The local audit log, or a folder of S3 segments.")],
    trail: Annotated[
        str | None,
        typer.Option("--trail", metavar="SOURCE", help="CloudTrail, to compare the log with its anchors."),
    ] = None,
    anchor_key: AnchorKeyOption = None,
    other_chains: Annotated[
        bool,
        typer.Option(
            "--other-chains",
            help="Of anchored chains that this log does not hold, take it that they are other logs' (listed).",
        ),
    ] = False,
    all_chains: Annotated[bool, typer.Option("--all-chains", hidden=True)] = False,
    no_digests: NoDigestsOption = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="A checkpoint that was kept; by default LOG.checkpoint."
        ),
    ] = None,
    checkpoint_key: CheckpointKeyOption = None,
    witness_key: WitnessKeyOption = None,
    *,
    aws: AwsWithoutFips,
    as_json: JsonOption = False,
) -> None:
    """Check the log's hash chains, and name the first record that was changed, removed or moved.

    Compares the log with its checkpoint, where there is one, and with anchors. Says what the result proves,
    and what not. The exit code is the verdict's, see docs/audit.md.
    """
    signed = _signed(log, checkpoint, _keys(checkpoint_key), _keys(witness_key))
    reading = digests = None
    if anchor_key is not None:
        check_key_arn("--anchor-key", anchor_key)
    anchors: list[ChainHead] | None = None
    trees: list[AnchoredTree] = []
    if trail is not None:
        read, check_digests = trail_source(trail, client=aws.client)
        digests = None if no_digests else check_digests(None, None)
        named = digests.hashes if digests is not None and digests.digests else None
        reading, anchors = Reading(named_hashes=named), []
        for record in counted(read(None, None, reading)):
            anchors += filter(None, (anchor_of(record, anchor_key),))
            trees += filter(None, (anchored_tree_of(record, anchor_key),))
        if digests is not None:
            compare_reading(digests, reading)
        tell_problems(reading)
    result = verify(
        log,
        anchors=anchors,
        expect_all_chains=not other_chains,
        tree_heads=filter(None, (signed.head,)),
        anchored_trees=trees,
    )
    for what in signed.faults:
        result.add(Fault(Place("checkpoint", 0), None, None, what))
    verdict = verdict_of_chain(result, trail=reading, digests=digests, digests_were_asked=not no_digests)
    verdict = replace(verdict, remarks=(*signed.remarks, *verdict.remarks))
    if as_json:
        print_json({**verification_as_dict(result), **verdict.as_dict()})
    else:
        print_verification(result, verdict)
    end_with(verdict, told=True)


def make_checkpoint(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The local audit log.")],
    origin: OriginOption,
    signing_key: SigningKeyOption = None,
    key: KmsKeyOption = None,
    earlier_key: Annotated[
        list[str] | None,
        typer.Option("--earlier-key", metavar="VKEY", help="Verifier key that signed before a change of keys."),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", metavar="URL", help="A witness that cosigns; each with its --witness-key."),
    ] = None,
    witness_key: Annotated[
        list[str] | None,
        typer.Option("--witness-key", metavar="VKEY", help="Verifier key of the witness, in the same order."),
    ] = None,
    *,
    audit: AuditOptions,
    aws: AwsAccess,
) -> None:
    """Sign the root over all lines of the log into LOG.checkpoint.

    Nothing is signed that contradicts the checkpoint before: a log that was cut or changed ends with code 8.
    """
    if len(witness or ()) != len(witness_key or ()):
        raise ConfigurationError("each --witness URL goes with a --witness-key VKEY, in the same order")
    witnesses = [Witness(url, vkey) for url, vkey in zip(witness or (), witness_key or (), strict=True)]
    with audit.trail() as trail:
        note_key = _note_key(origin, signing_key, key, aws)
        checkpoints = Checkpoints(log, note_key, earlier_keys=_keys(earlier_key), witnesses=witnesses)
        opened = checkpoints.checkpoint(trail=trail)
    cosigned = f", cosigned by {', '.join(one.key.name for one in witnesses)}" if witnesses else ""
    typer.echo(f"{opened.checkpoint.size:,} lines under root {opened.checkpoint.root.hex()}{cosigned}")


def checkpoint_key(
    origin: OriginOption,
    signing_key: SigningKeyOption = None,
    key: KmsKeyOption = None,
    create: Annotated[bool, typer.Option("--create", help="Make the file of --signing-key, mode 0600.")] = False,
    algorithm: Annotated[
        str, typer.Option("--algorithm", metavar="NAME", help=f"Of a new key: {' or '.join(ALGORITHMS)}.")
    ] = ALGORITHMS[0],
    *,
    aws: AwsAccess,
) -> None:
    """Print the verifier key of a log's checkpoints, for auditors and witnesses; --create makes a key."""
    if create:
        if signing_key is None:
            raise ConfigurationError("--create makes the file of --signing-key; keys in KMS are made there")
        made: NoteKey = LocalNoteKey.create(origin, signing_key, algorithm=algorithm)
    else:
        made = _note_key(origin, signing_key, key, aws)
    typer.echo(str(made.verifier_key))


def prove_record(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="CHAIN:SEQUENCE of a record, or its use id.")],
    log: Annotated[Path, typer.Option("--log", metavar="FILE", help="The local audit log.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the proof goes; else standard output.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="A checkpoint that was kept; by default LOG.checkpoint."
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """One record, the proof that it stands in the log, and the checkpoint, in one file (C2SP tlog-proof).

    Whoever has the file and the log's verifier key checks it with check-proof, without the log.
    """
    proof = prove(log, record, checkpoint=checkpoint)
    if out is None:
        sys.stdout.buffer.write(proof)
        return
    descriptor = os.open(
        out, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL) | os.O_CLOEXEC, 0o600
    )
    with open(descriptor, "wb") as file:
        file.write(proof)


def check_record(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="A file that prove made.")],
    checkpoint_key: Annotated[
        list[str],
        typer.Option("--checkpoint-key", metavar="VKEY", help="Verifier key of the log; repeatable."),
    ],
    witness_key: WitnessKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a proof offline, without the log, and print the record.

    Take the verifier keys from the log's owner and the witnesses, not from whoever brought the proof.
    """
    with proof.open("rb") as file:
        content = file.read(MAX_PROOF_LENGTH_BYTES + 1)
    proven = check_proof(content, log_keys=_keys(checkpoint_key), witness_keys=_keys(witness_key))
    fields, head = proven.fields(), proven.checkpoint
    cosigned = [{"witness": name, "posix_seconds": seconds} for name, seconds in proven.cosigned]
    if as_json:
        print_json(
            {
                "proven": True,
                "line": proven.leaf_index,
                "lines": head.size,
                "origin": head.origin,
                "cosigned": cosigned,
                "event": fields,
            }
        )
        return
    typer.echo(f"proven: line {proven.leaf_index:,} of the {head.size:,} that {head.origin} signed")
    for one in cosigned:
        typer.echo(f"cosigned by {one['witness']} at {one['posix_seconds']} (POSIX seconds)")
    for name, value in fields.items():
        typer.echo(printable(f"{name}: {value}"))


COMMANDS: Final = {
    "verify": verify_log,
    "checkpoint": make_checkpoint,
    "checkpoint-key": checkpoint_key,
    "prove": prove_record,
    "check-proof": check_record,
}
"""What ``phicrypt audit`` takes from here, by name."""


def _signed(
    log: Path, checkpoint: Path | None, log_keys: Sequence[VerifierKey], witness_keys: Sequence[VerifierKey]
) -> CheckpointReading:
    """The checkpoint to compare with: the one that was named, or the one beside the log if there is one."""
    if log.is_dir():
        if checkpoint or log_keys or witness_keys:
            raise ConfigurationError("a folder of segments has no checkpoint; name the log's file")
        return CheckpointReading()
    if witness_keys and not log_keys:
        raise ConfigurationError("--witness-key goes with --checkpoint-key: a cosignature alone names no log")
    file = checkpoint or checkpoint_path(log)
    if not file.exists() and checkpoint is None:
        if log_keys:
            raise ConfigurationError(
                f"{file.name} is not beside the log; name a checkpoint that was kept: --checkpoint"
            )
        return CheckpointReading()
    return read_checkpoint(file, log_keys=log_keys, witness_keys=witness_keys)


def _keys(texts: Sequence[str] | None) -> list[VerifierKey]:
    return [VerifierKey.parse(text) for text in texts or ()]


def _note_key(origin: str, signing_key: Path | None, key: str | None, aws: AwsAccess) -> NoteKey:
    if (signing_key is None) == (key is None):
        raise ConfigurationError("name one key that signs: --signing-key FILE, or --key ARN of KMS")
    if signing_key is not None:
        return LocalNoteKey.load(origin, signing_key)
    assert key is not None
    region = aws.region or configured_key_arn(key).region
    return KmsNoteKey(origin, key, client=aws.client("kms", region=region))
