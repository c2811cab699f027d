"""A run as Markdown, and beside an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

Run = Mapping[str, Any]

_DRIFT: Final = 0.2
"""Between two runs, a difference under 20% is nothing."""


def bars_table(run: Run) -> str:
    """Every bar of the run, with what was measured and whether it holds."""
    rows = [
        (
            bar["claim"],
            _bar(bar, bar["limit"]),
            _bar(bar, bar["reach"]),
            _figure(bar),
            _verdict(bar),
        )
        for case in run["cases"]
        for bar in case["bars"]
    ]
    return _table(("claim", "bar", "reach for", "measured (quartiles)", "met"), rows)


def markdown(run: Run) -> str:
    """The whole report: machine, bars, every case with its contenders."""
    machine = run["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        f"# Benchmarks: {run['profile']} run",
        f"{machine['time']}, revision {machine['revision']}, {run['seconds']} s.",
        (
            f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_flags'])}), "
            f"{machine['memory_gib']} GiB, {machine['kernel']}; {machine['python']}, "
            f"{machine['openssl_of_cryptography']}; {packages}. "
            f"Load average before {run['load_before']}, after {run['load_after']}."
        ),
        (
            "Contenders take turns within each round. Ratios are computed per round; their median is judged. "
            "Trust ratios, and treat a difference under 20% as nothing."
        ),
        "## Bars",
        bars_table(run),
        "## Cases",
        *(_case(case) for case in run["cases"]),
        *(("## Parts", _PARTS_NOTE, _parts_table(run["parts"])) if run.get("parts") else ()),
    ]
    return "\n\n".join(parts) + "\n"


_PARTS_NOTE: Final = (
    "What operations are made of, measured by pyperf in processes of its own. Parts are measured alone and "
    "over and over, so together they take a little less than the whole."
)


def _parts_table(parts: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for name, figures in parts.items():
        operation, _, _ = name.partition(" / ")
        whole = parts.get(f"{operation} / whole")
        share = f"{figures['median'] / whole['median']:.0%}" if whole else ""
        rows.append((name, quantity(figures["best"], "s"), quantity(figures["median"], "s"), share))
    return _table(("operation / part", "best", "median", "of the whole"), rows)


def comparison(old: Run, new: Run) -> str:
    """What changed against an earlier run, by the ratio to the other contenders of the same run."""
    before = {(case, name): ratio for case, name, ratio in _ratios(old)}
    rows = []
    for case, name, ratio in _ratios(new):
        earlier = before.get((case, name))
        if earlier and abs(ratio / earlier - 1) > _DRIFT:
            # The ratio is the peer's time over phicrypt's: a smaller one means phicrypt got slower.
            rows.append((case, name, f"{earlier:.2f}", f"{ratio:.2f}", "slower" if ratio < earlier else "faster"))
    if not rows:
        return "No ratio moved by more than 20%."
    return _table(("case", "against", "ratio before", "ratio now", "phicrypt is"), rows)


def beside_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Each bar of a comparison with another checkout: how much longer this one takes, and how sure that is."""
    rows = []
    for one in records:
        for claim in one["claims"]:
            name = (claim, f"{one['case']}: {one['subject']}")
            if one["ratio"] is None:
                rows.append((*name, "not measured", "", f"< {one['limit']:.2f}", one["failure"]))
                continue
            interval = f"{one['low']:.3f} to {one['high']:.3f}"
            verdict = "yes" if one["is_below"] else "**no**"
            rows.append((*name, f"{one['ratio']:.3f}", interval, f"< {one['limit']:.2f}", verdict))
    return _table(("claim", "measured", "this / other", "95% interval of the median", "limit", "below"), rows)


def _ratios(run: Run) -> Iterator[tuple[str, str, float]]:
    for case in run["cases"]:
        for name, contender in list(case["contenders"].items())[1:]:
            if contender.get("ratio_to_first"):
                yield case["name"], name, contender["ratio_to_first"]["median"]


def _case(case: Mapping[str, Any]) -> str:
    rows = []
    for name, contender in case["contenders"].items():
        summary = contender["summary"]
        ratio = contender.get("ratio_to_first")
        rows.append(
            (
                name,
                quantity(summary["best"], case["unit"]),
                quantity(summary["median"], case["unit"]),
                f"{summary['spread']:.0%}",
                f"{ratio['median']:.2f}" if ratio else "",
                _rate(case, summary["median"]),
            )
        )
    text = f"### {case['name']}\n\n{case['title']}\n\n"
    text += _table(("contender", "best", "median", "spread", "times the first", "rate"), rows) if rows else ""
    notes = [f"- {name} was not measured: {reason}" for name, reason in case["skipped"].items()]
    notes += [f"- Nothing was measured: {case['failure']}"] if case["failure"] else []
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def quantity(value: float, unit: str) -> str:
    """A figure with a readable unit: seconds become µs, ms or s."""
    if unit != "s":
        return f"{value:,.1f} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or name == "µs":
            return f"{value * factor:,.2f} {name}"
    raise AssertionError("unreachable")


def _rate(case: Mapping[str, Any], seconds: float) -> str:
    if case["unit"] != "s" or case["payload_bytes"] < 65_536 or seconds <= 0:
        return ""
    return f"{case['payload_bytes'] / seconds / 1e6:,.0f} MB/s"


def _bar(bar: Mapping[str, Any], limit: float) -> str:
    return f"{'≥' if bar['measure'] == 'speedup' else '≤'} {limit:g}"


def _figure(bar: Mapping[str, Any]) -> str:
    if bar["figure"] is None:
        return "not measured"
    return f"{bar['figure']:.3g} ({bar['first_quartile']:.3g} to {bar['third_quartile']:.3g})"


def _verdict(bar: Mapping[str, Any]) -> str:
    if bar["is_met"] is None:
        return "?"
    return "reached" if bar["is_reached"] else "yes" if bar["is_met"] else "**no**"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
