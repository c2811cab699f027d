"""Options that several ``phicrypt audit`` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LogOption = Annotated[Path, typer.Option("--log", metavar="FILE", help="The local audit log.")]
TrailOption = Annotated[
    str,
    typer.Option(
        "--trail",
        metavar="SOURCE",
        help="CloudTrail's side: a log file, a folder of them, s3://bucket/prefix, or 'lookup' (last 90 days).",
    ),
]
MaybeTrailOption = Annotated[
    str | None,
    typer.Option("--trail", metavar="SOURCE", help="Also say what CloudTrail shows of each use's KMS call."),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="2026-01-31, 2026-01-31T12:00Z, or 90m, 24h, 7d ago.")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="The same forms as --since.")]
PrincipalOption = Annotated[
    list[str] | None,
    typer.Option(
        "--principal", metavar="ARN", help="Role or user of the application; for logs that do not name it."
    ),
]
AnchorKeyOption = Annotated[
    str | None, typer.Option("--anchor-key", metavar="ARN", help="Believe anchors of this KMS key only.")
]
NoDigestsOption = Annotated[
    bool, typer.Option("--no-digests", help="Do not look at CloudTrail's digests; the verdict says so.")
]
TokenKeysOption = Annotated[
    Path | None, typer.Option("--token-keys", metavar="FILE", help="The sealed keys of resource tokens.")
]
