#!/usr/bin/env python3
"""Writes the tables of docs/performance.md from the records in benchmarks/results; with --check it only says whether they agree."""

import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results: scripts/results.py -->", "<!-- end of results -->"
TARGETS = ["embedded", "embedded-3", "kafka-1", "kafka-3"]


def number(value):
    """Three digits that count, and all of a whole number."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values, factor=1.0):
    """Median, and the least and the most when there are several."""
    values = [value * factor for value in values]
    if len(values) == 1 or min(values) == max(values):
        return number(values[0])
    return f"{number(statistics.median(values))} [{number(min(values))}–{number(max(values))}]"


def load():
    records = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        if path.name.startswith("peers-"):
            continue
        record = json.loads(path.read_text())
        if not record["verified"]:
            sys.exit(f"{path.name}: its results were not right; a figure of it is none")
        record["file"] = path.stem
        records.append(record)
    if not records:
        sys.exit("benchmarks/results has no record")
    records.sort(key=lambda it: (it["scenario"], it["parked_before"] or 0, TARGETS.index(it["target"]) if it["target"] in TARGETS else 9))
    return records


def phases(record):
    """Phases of one name over all runs, in order."""
    grouped = {}
    for phase in record["phases"]:
        grouped.setdefault(phase["key"], []).append(phase)
    return grouped.items()


def loops(records):
    yield "| | target | loop | executions/s | p50 ms | p99 ms | CPU µs each |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for record in records:
        beside = f", beside {record['parked_before']:,} parked" if record["parked_before"] else ""
        keyed = ", with keys" if record.get("keyed") else ""
        for key, runs in phases(record):
            values = [[run[name] for run in runs] for name in ("executions_per_s", "p50_ms", "p99_ms", "cpu_us_per_execution_total")]
            cells = " | ".join(spread(value) for value in values)
            yield f"| {record['scenario'].upper()}{keyed}{beside} | `{record['target']}` | {key} | {cells} |"


def figures(records):
    yield "| | target | figure | |"
    yield "| --- | --- | --- | --- |"
    for record in records:
        name = record["file"].removesuffix("-" + record["target"]).upper()
        for figure in record["figures"]:
            values = [figure["least"], figure["median"], figure["most"]][: 3 if figure["runs"] > 1 else 1]
            yield f"| {name} | `{record['target']}` | {figure['name']} | {spread(values)} {figure['unit']} |"


def peers():
    """The newest comparison with other engines: medians of its rounds, S1 at the better number in flight."""
    files = sorted((ROOT / "benchmarks" / "results").glob("peers-*.json"))
    if not files:
        return
    record = json.loads(files[-1].read_text())
    rows = {}
    for it in record["measurements"]:
        rows.setdefault((it["system"], it["form"]), {}).setdefault((it["scenario"], it["in_flight"]), []).append(it)
    yield f"Other engines beside it, in one run of `make bench-peers` ({record['date'][:10]}, commit {record['commit']}; each with its durable defaults):"
    yield ""
    yield "| | steps | S1 executions/s | CPU µs each | S2 p50 ms | p99 ms | S3 s | S4 s |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for (system, form), cells in rows.items():
        def of(scenario, field, factor=1.0):
            found = [runs for (name, _), runs in cells.items() if name == scenario]
            best = max(found, key=lambda runs: statistics.median(run["executions_per_s"] for run in runs), default=None)
            return spread([run[field] for run in best], factor) if best else "–"

        columns = [
            of("s1", "executions_per_s"), of("s1", "cpu_us_per_execution_total"), of("s2", "p50_ms"), of("s2", "p99_ms"),
            of("s3", "seconds"), of("s4", "p50_ms", 1e-3),
        ]
        version = record["systems"][system]["version"].split(";")[0]
        yield f"| `{system}`, {version} | {form} | {' | '.join(columns)} |"


def tables():
    records = load()
    machines = sorted({f"{it['machine']['cores']} cores {it['machine']['cpu']}, {it['machine']['file_system']}" for it in records})
    syncs = [it["machine"]["fdatasync_p50_us"] for it in records]
    commits = sorted({it["commit"] for it in records})
    yield f"Machine: {'; '.join(machines)}, `fdatasync` of 4 KiB {spread(syncs)} µs. Commit: {', '.join(commits)}. Median, least and most of the runs of a record."
    yield ""
    yield from loops([it for it in records if it["scenario"] in ("s1", "s2", "s5")])
    yield ""
    yield from figures([it for it in records if it["scenario"] not in ("s1", "s2")])
    yield ""
    yield from peers()


def main():
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + "\n\n" + "\n".join(tables()) + "\n\n" + END + after
    if "--check" in sys.argv:
        if new != text:
            sys.exit("docs/performance.md does not show the records in benchmarks/results: run scripts/results.py")
    else:
        PAGE.write_text(new)


main()
