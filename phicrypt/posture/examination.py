"""``check``: reads what was declared, in bounded parallelism, and applies every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from phicrypt.errors import ConfigurationError
from phicrypt.posture.declaration import Declaration
from phicrypt.posture.reading.account_wide import read_account, read_trails
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.reading.config_results import read_config_findings
from phicrypt.posture.reading.resources import read_backup_selections, read_bucket, read_key, read_table
from phicrypt.posture.report import Report
from phicrypt.posture.rules import cloudtrail, dynamodb, iam, kms, s3
from phicrypt.posture.rules.findings import RECOVERY, Finding, Outcome, Rule, Severity, Unread, apply_rule

Progress = Callable[[int, int], None]
"""Called with (resources done, resources in all)."""

ACCOUNT_RULES = (*cloudtrail.ACCOUNT_RULES, *s3.ACCOUNT_RULES, *iam.ACCOUNT_RULES)


def check(
    account: AwsAccount,
    declaration: Declaration,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Report:
    """Read the settings of everything declared and judge them. Reads only, never writes.

    A setting that may not be read gives "could not check: needs X". A resource that is missing, or
    is deleted while it is being read, gives one finding that says so.

    Args:
        account: the reader.
        declaration: what to check.
        progress: called from this thread as resources are done.
        clock: the time that the report carries.

    Raises ConfigurationError if nothing is declared, or the caller's account cannot be read.
    """
    if not (declaration.keys or declaration.buckets or declaration.tables or declaration.trails):
        raise ConfigurationError("nothing is declared: name the keys, buckets, tables or trails to check")
    account_id = account.account_id()
    tasks = _tasks(account, declaration, account_id)
    findings: list[Finding] = []
    with ThreadPoolExecutor(account.workers, thread_name_prefix="phicrypt-doctor") as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                findings += future.result()
                if progress is not None:
                    progress(done, len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    findings.sort(key=lambda finding: (finding.resource, finding.rule_id))
    return Report(account_id, declaration.region, clock(), tuple(findings))


def _tasks(account: AwsAccount, declaration: Declaration, account_id: str) -> list[Callable[[], list[Finding]]]:
    home = declaration.region
    table_regions = {table.region or home for table in declaration.tables}
    selections = {region: read_backup_selections(account, region) for region in sorted(table_regions)}

    def of_key(declared: Any) -> list[Finding]:
        return judge(read_key(account, declared), "kms", kms.RULES)

    def of_bucket(declared: Any) -> list[Finding]:
        return judge(read_bucket(account, declared, home_region=home), "s3", s3.RULES)

    def of_table(declared: Any) -> list[Finding]:
        chosen = selections[declared.region or home]
        settings = read_table(account, declared, account_id, chosen, home_region=home)
        return judge(settings, "dynamodb", dynamodb.RULES)

    def of_account() -> list[Finding]:
        trails = read_trails(account, declaration)
        settings = read_account(account, declaration, account_id, trails)
        found = _apply(ACCOUNT_RULES, settings)
        for trail in () if isinstance(trails, Unread) else trails:
            found += judge(trail, "cloudtrail", cloudtrail.RULES)
        return found

    def of_config(region: str) -> list[Finding]:
        return read_config_findings(account, declaration, account_id, region)

    return [
        of_account,
        *(lambda region=region: of_config(region) for region in regions_of(declaration)),
        *(lambda declared=declared: of_key(declared) for declared in declaration.keys),
        *(lambda declared=declared: of_table(declared) for declared in declaration.tables),
        *(lambda declared=declared: of_bucket(declared) for declared in declaration.buckets),
    ]


def regions_of(declaration: Declaration) -> list[str]:
    """The Regions that AWS Config is asked in: home, and those of keys and tables."""
    home = declaration.region
    tables = {table.region or home for table in declaration.tables}
    return sorted({home, *(key.region for key in declaration.keys), *tables})


def task_count(declaration: Declaration) -> int:
    """How many tasks :func:`check` reports as progress."""
    resources = len(declaration.keys) + len(declaration.buckets) + len(declaration.tables)
    return 1 + len(regions_of(declaration)) + resources


def judge(settings: Any, kind: str, rules: Iterable[Rule[Any]]) -> list[Finding]:
    """Every finding for one resource; only that it is missing, if it is.

    Whether it is there comes first: the absence of a bucket must not look like ten absent settings,
    and a resource deleted between two reads has no settings worth judging.
    """
    answers = (getattr(settings, entry.name) for entry in fields(settings))
    is_gone = any(isinstance(answer, Unread) and answer.is_gone for answer in answers)
    existence = Finding(
        rule_id=f"{kind}-exists",
        title="The declared resource is there",
        severity=Severity.CRITICAL,
        outcome=Outcome.FAILED if is_gone else Outcome.PASSED,
        resource=settings.resource,
        region=settings.region,
        expected="a resource of that name in the account and Region",
        found="it does not exist, or was deleted while it was being checked" if is_gone else "as expected",
        fix="phicrypt doctor --declaration FILE  # after correcting the declaration or restoring the resource"
        if is_gone
        else "",
        hipaa=(RECOVERY,),
    )
    return [existence] if is_gone else [existence, *_apply(rules, settings)]


def _apply(rules: Iterable[Rule[Any]], settings: Any) -> list[Finding]:
    return [finding for rule in rules if (finding := apply_rule(rule, settings)) is not None]
