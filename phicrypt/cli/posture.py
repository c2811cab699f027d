"""``phicrypt doctor`` and ``phicrypt policy``: check settings, print and lint policies. Reads, never writes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from phicrypt.cli.commands import Commands
from phicrypt.cli.console import (
    CHECK_EXIT_CODE,
    EXIT_CODES_EPILOG,
    complain,
    fail,
    print_json,
    print_table,
    printable,
    progress,
)
from phicrypt.cli.options import (
    AwsAccess,
    AwsWithoutFips,
    JsonOption,
    parse_pairs,
)
from phicrypt.cli.shipped_log import shipped_finding
from phicrypt.posture.conformance import conformance_pack
from phicrypt.posture.declaration import Declaration, KeyDeclaration
from phicrypt.posture.examination import check, task_count
from phicrypt.posture.policies import least_privilege as policies
from phicrypt.posture.policies.lint import lint_policy
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.reading.own_tls import without_post_quantum
from phicrypt.posture.report import Change, Report
from phicrypt.posture.report_formats import to_html, to_sarif
from phicrypt.posture.rules.findings import Severity

app = Commands(no_args_is_help=True)
policy_app = Commands(no_args_is_help=True, help="Print and lint least-privilege policies.")
app.add_typer(policy_app, name="policy")

DeclarationOption = Annotated[
    Path | None,
    typer.Option(
        "--declaration", "-d", metavar="FILE", help="TOML or JSON: keys, buckets, tables, trails, roles."
    ),
]
KeyArns = Annotated[list[str] | None, typer.Option("--key", metavar="ARN", help="KMS key; repeatable.")]
Buckets = Annotated[list[str] | None, typer.Option("--bucket", metavar="NAME", help="S3 bucket; repeatable.")]
Tables = Annotated[list[str] | None, typer.Option("--table", metavar="NAME", help="DynamoDB table; repeatable.")]
Trails = Annotated[list[str] | None, typer.Option("--trail", metavar="NAME", help="CloudTrail trail; repeatable.")]
FORMATS = ("table", "json", "sarif", "html")


@app.command(epilog=EXIT_CODES_EPILOG)
def doctor(
    declaration: DeclarationOption = None,
    keys: KeyArns = None,
    buckets: Buckets = None,
    tables: Tables = None,
    trails: Trails = None,
    output: Annotated[str, typer.Option("--output", "-o", help=f"One of {', '.join(FORMATS)}.")] = "table",
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit 1 from this severity on: low, medium, high or critical.")
    ] = "low",
    diff: Annotated[
        Path | None, typer.Option("--diff", metavar="FILE", help="An earlier --output json: show what changed.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show passed rules too.")] = False,
    workers: Annotated[int, typer.Option(help="Questions at a time, at most 32.")] = 16,
    shipped_log: Annotated[
        Path | None,
        typer.Option(
            "--shipped-log",
            metavar="FILE",
            help="The local audit log: are its copies in the buckets declared as audit whole and locked?",
        ),
    ] = None,
    shipped_prefix: Annotated[
        str, typer.Option("--shipped-prefix", metavar="PREFIX", help="Where S3SegmentSink wrote them.")
    ] = "phicrypt-audit/",
    emit_conformance_pack: Annotated[
        bool, typer.Option("--emit-conformance-pack", help="Print an AWS Config conformance pack (YAML) and stop.")
    ] = False,
    *,
    aws: AwsWithoutFips,
) -> None:
    """Check the AWS settings around your keys, buckets, tables and trails.

    Reads only. A setting that may not be read is reported as "could not check: needs X" and counts
    like a failure of its rule.
    """
    if emit_conformance_pack:
        print(conformance_pack(), end="")
        return
    if output not in FORMATS:
        fail(f"--output is one of {', '.join(FORMATS)}")
    threshold = Severity.named(fail_on)
    declared = _declared(declaration, aws.region, keys=keys, buckets=buckets, tables=tables, trails=trails)
    earlier = Report.from_json(diff.read_bytes()) if diff is not None else None
    account = AwsAccount(
        replace(aws, region=declared.region).session,
        region=declared.region,
        endpoint_url=aws.endpoint_url,
        workers=workers,
    )
    audit_buckets = [bucket for bucket in declared.buckets if bucket.audit]
    if shipped_log is not None and not audit_buckets:
        fail("--shipped-log needs a bucket that is declared with audit = true")
    with progress("checking", task_count(declared)) as advance:
        report = check(account, declared, progress=lambda done, total: advance(1))
    if shipped_log is not None:
        s3_client = replace(aws, region=declared.region).client("s3")
        findings = [
            shipped_finding(s3_client, bucket, shipped_prefix, shipped_log, region=declared.region)
            for bucket in audit_buckets
        ]
        report = replace(report, findings=(*report.findings, *findings))
    _print(report, output, everything, report.changes_since(earlier) if earlier else None)
    if output == "table" and (lacking := without_post_quantum()):
        print(f"Beside the account's settings: {lacking}.")
    if report.at_or_above(threshold):
        raise typer.Exit(CHECK_EXIT_CODE)


def _declared(path: Path | None, region: str | None, **lists: list[str] | None) -> Declaration:
    """The file's declaration, with what the options add to it."""
    members: dict[str, Any] = Declaration.load(path).model_dump(by_alias=True) if path is not None else {}
    for name, more in lists.items():
        members[name] = [*members.get(name, ()), *(more or ())]
    if region is not None:
        members["region"] = region
    return Declaration.of(members)


def _print(report: Report, output: str, everything: bool, changes: tuple[Change, ...] | None) -> None:
    if output == "sarif":
        print(to_sarif(report))
    elif output == "html":
        print(to_html(report), end="")
    elif output == "json" and changes is not None:
        print_json({**report.as_dict(), "changes": [_change(change) for change in changes]})
    elif output == "json":
        print(report.to_json())
    else:
        _print_table(report, everything, changes)


def _change(change: Change) -> dict[str, str]:
    finding = change.finding
    return {"kind": change.kind, "rule_id": finding.rule_id, "resource": finding.resource}


def _print_table(report: Report, everything: bool, changes: tuple[Change, ...] | None) -> None:
    columns = ["Severity", "Rule", "Resource", "Found", "Serves 45 CFR (guidance)"]
    shown = report.findings if everything else report.problems
    kinds = {(c.finding.rule_id, c.finding.resource): c.kind for c in changes or ()}
    rows = [
        (
            f.severity.name.lower(),
            f.rule_id,
            f.resource,
            f.found + (f" [{kinds.get((f.rule_id, f.resource), '')}]" if changes is not None else ""),
            ", ".join(f.hipaa),
        )
        for f in shown
    ]
    if rows:
        print_table(f"Account {report.account_id}", columns, rows)
    for change in changes or ():
        if change.kind in ("fixed", "gone"):
            print(f"{change.kind}: {change.finding.rule_id} {change.finding.resource}")
    fixes = list(dict.fromkeys(finding.fix for finding in report.problems if finding.fix))
    if fixes:
        print("To repair:")
        for fix in fixes:
            print(f"  {printable(fix)}")
    print(", ".join(f"{count} {outcome}" for outcome, count in report.counts().items()))


# ---- policies

ContextPairs = Annotated[
    list[str] | None,
    typer.Option("--context", "-c", metavar="NAME=VALUE", help="Pair that must be in the encryption context."),
]
OneKey = Annotated[
    str | None, typer.Option("--key", metavar="ARN", help="The KMS key; default: the first declared one.")
]
VerifyDataKeys = Annotated[
    bool,
    typer.Option(
        "--verify-data-keys", help="kms:Decrypt for the writer too: KmsKeyring(verify_data_keys=True) needs it."
    ),
]
RoleArn = Annotated[str | None, typer.Option(metavar="ARN", help="Role of the account.")]


def _of_one_key(
    path: Path | None, arn: str | None, context: list[str] | None, roles: dict[str, str | None] | None = None
) -> tuple[Declaration, KeyDeclaration]:
    members: dict[str, Any] = Declaration.load(path).model_dump(by_alias=True) if path is not None else {}
    members["context"] = {**members.get("context", {}), **parse_pairs(context, "--context")}
    given = {name: role for name, role in (roles or {}).items() if role is not None}
    members["roles"] = {**members.get("roles", {}), **given}
    if arn is not None:
        members["keys"] = [{"arn": arn}]
    declaration = Declaration.of(members)
    if not declaration.keys:
        fail("name a KMS key: --key ARN, or a declaration with one")
    return declaration, declaration.keys[0]


def _print_policy(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))


@policy_app.command("key")
def policy_key(
    declaration: DeclarationOption = None,
    key: OneKey = None,
    context: ContextPairs = None,
    administrator: RoleArn = None,
    writer: RoleArn = None,
    reader: RoleArn = None,
    auditor: RoleArn = None,
    break_glass: RoleArn = None,
    verify_data_keys: VerifyDataKeys = False,
) -> None:
    """The key policy: administration apart from use, use bound to the encryption context."""
    roles = {
        "administrator": administrator,
        "writer": writer,
        "reader": reader,
        "auditor": auditor,
        "break-glass": break_glass,
    }
    of_key = _of_one_key(declaration, key, context, roles)
    _print_policy(policies.key_policy(*of_key, verify_data_keys=verify_data_keys))


@policy_app.command("writer")
def policy_writer(
    declaration: DeclarationOption = None,
    key: OneKey = None,
    context: ContextPairs = None,
    verify_data_keys: VerifyDataKeys = False,
) -> None:
    """IAM policy of those who encrypt: kms:GenerateDataKey under the declared context."""
    of_key = _of_one_key(declaration, key, context)
    _print_policy(policies.writer_policy(*of_key, verify_data_keys=verify_data_keys))


@policy_app.command("reader")
def policy_reader(declaration: DeclarationOption = None, key: OneKey = None, context: ContextPairs = None) -> None:
    """IAM policy of those who decrypt: kms:Decrypt under the declared context."""
    _print_policy(policies.reader_policy(*_of_one_key(declaration, key, context)))


@policy_app.command("auditor")
def policy_auditor(declaration: DeclarationOption = None, key: OneKey = None) -> None:
    """IAM policy of phicrypt doctor: reads settings, uses no key."""
    _print_policy(policies.auditor_policy(*_of_one_key(declaration, key, None)))


@policy_app.command("break-glass")
def policy_break_glass(
    declaration: DeclarationOption = None,
    key: OneKey = None,
    context: ContextPairs = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339, such as 2030-01-31T00:00:00Z.")
    ] = None,
) -> None:
    """IAM policy of an emergency role: kms:Decrypt with a recent second factor, until a date."""
    try:
        expires_at = datetime.fromisoformat(expires) if expires is not None else None
    except ValueError:
        fail("--expires is a time such as 2030-01-31T00:00:00Z")
    _print_policy(policies.break_glass_policy(*_of_one_key(declaration, key, context), expires_at=expires_at))


@policy_app.command("lint")
def policy_lint_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A key or IAM policy, or - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a key or IAM policy allows that it should not; exit 1 if there is anything."""
    findings = lint_policy(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    if as_json:
        print_json(
            [
                {"id": f.lint_id, "severity": f.severity.name.lower(), "place": f.place, "text": f.text}
                for f in findings
            ]
        )
    elif findings:
        rows = [(f.severity.name.lower(), f.lint_id, f.place, f.text) for f in findings]
        print_table("", ["Severity", "Id", "Where", "What"], rows)
    if findings:
        complain(f"{len(findings)} thing(s) to repair")
        raise typer.Exit(CHECK_EXIT_CODE)


@policy_app.command("test", epilog=EXIT_CODES_EPILOG)
def policy_test(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML or JSON: roles, tenants, contexts, allowances.")
    ],
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Show what is as expected, too.")] = False,
    *,
    aws: AwsAccess,
) -> None:
    """Ask KMS who can do what, by dry runs that use no key; exit 1 if anything is not as the file expects.

    Each role is assumed (sts:AssumeRole; "current" is yourself) and asked for kms:GenerateDataKey and
    kms:Decrypt of every tenant's key under every context. What the file does not allow must be denied.
    """
    from phicrypt.posture.permission_matrix import PermissionMatrix, clients_of_roles, try_permissions

    matrix = PermissionMatrix.load(file)
    with progress("asking KMS", len(list(matrix.cells()))) as advance:
        client_of = clients_of_roles(
            matrix, aws.session, endpoint_url=aws.endpoint_url, use_fips_endpoint=aws.use_fips_endpoint
        )
        trials = try_permissions(matrix, client_of, on_progress=advance)
    wrong = [trial for trial in trials if not trial.is_as_expected]
    words = {True: "allowed", False: "denied", None: "not proven"}
    shown = trials if everything or as_json else wrong
    rows = [
        (t.cell.role, t.cell.tenant, t.cell.context, t.cell.operation, words[t.expected], words[t.found], t.reason)
        for t in shown
    ]
    columns = ["Role", "Tenant", "Context", "Operation", "Expected", "Found", "Why"]
    if as_json:
        named = [dict(zip((name.lower() for name in columns), row, strict=True)) for row in rows]
        print_json({"trials": named, "as_expected": len(trials) - len(wrong), "not_as_expected": len(wrong)})
    else:
        if rows:
            print_table("", columns, rows)
        print(f"{len(trials) - len(wrong)} of {len(trials)} as expected")
    if wrong:
        raise typer.Exit(CHECK_EXIT_CODE)
