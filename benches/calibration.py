#!/usr/bin/env python3
"""How often a probability that Barograph gives is undershot in health.

    benches/calibration.py SET --shared DIR --work DIR --barograph PATH [--json FILE]

SET is nab, service-kpi, app-server or server-machine; `scripts/calibration` calls this. Replays each
recording with `backtest --scores` and counts, over what is labelled as healthy, the rounds of a service and
the points of its metrics that were judged less probable than 10^-2, 10^-3 and 10^-4. A calibrated judge
gives a ratio of 1. Rounds are what anomalies are decided by.

Healthy is every row outside of the labelled events and of what follows them for as long as they took, an
hour at least; of NAB, every row outside of its windows, which have such room already. The training parts
have no labels and count as healthy, so that the faults they may hold count against the judge. Rows that
are only learned from have no probability and are left out and counted, and so are metrics that never move.
Standard library and numpy only.
"""
import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

SETS = ("nab", "service-kpi", "app-server", "server-machine")
POWERS = (2, 3, 4)
LEAST_MARGIN_S = 3_600


def unhealthy_of_nab(data):
    """{case: [(from, until) in unix seconds]} of NAB's windows."""
    def unix_s(text):
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()

    windows = json.loads((data / "nab" / "windows.json").read_text())
    return {series.removesuffix(".csv").replace("/", "__"): [(unix_s(first), unix_s(last)) for first, last in some]
            for series, some in windows.items()}


def unhealthy_of_events(labels, unix_s):
    """{case: [(from, until) in unix seconds]} of the labelled events and what follows them."""
    unhealthy = {}
    for case, label in labels.items():
        ends = [(unix_s(event["start"]), unix_s(event["end"])) for event in label["events"]]
        unhealthy[case] = [(first - label["step_s"], last + max(last - first, LEAST_MARGIN_S)) for first, last in ends]
    return unhealthy


class Tally:
    """Judged rows and how many of them were less probable than each power of ten."""

    def __init__(self):
        self.judged, self.below = 0, Counter()

    def add(self, p_value):
        self.judged += 1
        for power in POWERS:
            self.below[power] += p_value < 10.0 ** -power

    def __iadd__(self, other):
        self.judged += other.judged
        self.below += other.below
        return self

    def figures(self):
        return {"judged": self.judged, **{f"p < 1e-{power}": {
            "rows": self.below[power], "share": self.below[power] / self.judged if self.judged else None,
            "ratio": self.below[power] / self.judged * 10 ** power if self.judged else None} for power in POWERS}}


class Counts:
    """Rounds, points, and rows that were left out."""

    def __init__(self):
        self.rounds, self.points, self.left_out = Tally(), Tally(), Counter()

    def __iadd__(self, other):
        self.rounds += other.rounds
        self.points += other.points
        self.left_out += other.left_out
        return self


def count(path, unhealthy, unix_s):
    """Counts of one scores.csv."""
    counts, seconds, rounds, by_metric, values = Counts(), {}, {}, {}, {}
    with open(path, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if "p_value" not in (reader.fieldnames or ()):
            raise ValueError(f"{path}: no column p_value: the binary is too old")
        for row in reader:
            moment, metric = row["time"], row["metric"]
            if moment not in seconds:
                at = unix_s(moment)
                seconds[moment] = any(first <= at <= last for first, last in unhealthy)
            if seconds[moment]:
                counts.left_out["in events"] += 1
                continue
            if row["p_value"]:
                by_metric.setdefault(metric, Tally()).add(float(row["p_value"]))
                values.setdefault(metric, set())
                if len(values[metric]) < 2:
                    values[metric].add(row["value"])
            else:
                counts.left_out["learned from"] += 1
            if row["round_p_value"]:
                # All rows of a round say the same.
                rounds[row["service"], moment] = float(row["round_p_value"])
    for p_value in rounds.values():
        counts.rounds.add(p_value)
    for metric, tally in by_metric.items():
        if len(values[metric]) > 1:
            counts.points += tally
        else:
            counts.left_out["never move"] += tally.judged
    return counts


def replay(barograph, recordings, out):
    """Path of the scores.csv that a backtest of the recordings writes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    done = subprocess.run([barograph, "backtest", *map(str, recordings), "--scores", "--out", str(out)],
                          capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"backtest of {recordings[0]} gave exit code {done.returncode}: {done.stderr[-500:]}")
    return out / "scores.csv"


def rows_of(name, what, tally):
    figures = tally.figures()
    cells = []
    for power in POWERS:
        part = figures[f"p < 1e-{power}"]
        cells += ["-", "-"] if part["share"] is None else [f"{part['share']:.2e}", f"{part['ratio']:.2f}"]
    return [f"{name}, {what}", tally.judged, *cells]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--shared", type=Path, required=True, help="folder with tools/ and data/")
    parser.add_argument("--work", type=Path, required=True, help="folder for recordings and results")
    parser.add_argument("--barograph", required=True, help="path of the daemon's binary")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--cases", action="store_true", help="print each case, not only the whole set")
    arguments = parser.parse_args()
    # The tools may lie where nothing is to be written.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(arguments.shared / "tools"))
    import evaluate
    import score
    from scoring import contract

    work, data = arguments.work / arguments.set, arguments.shared / "data"
    work.mkdir(parents=True, exist_ok=True)
    otlp = work / "otlp"
    evaluate.prepare_recordings(arguments.set, data, otlp, None)
    labels = contract.read_labels(otlp)
    unhealthy = (unhealthy_of_nab(data) if arguments.set == "nab"
                 else unhealthy_of_events(labels, contract.unix_s))
    whole, table, written = Counts(), [], {}
    for number, (case, label) in enumerate(labels.items(), 1):
        print(f"\r\x1b[K{number}/{len(labels)} {case}", end="", file=sys.stderr, flush=True)
        out = work / "calibration" / case
        counts = count(replay(arguments.barograph, [otlp / file for file in label["recordings"]], out),
                       unhealthy[case], contract.unix_s)
        # Tens of megabytes a case, and not needed any more.
        shutil.rmtree(out)
        whole += counts
        written[case] = {"rounds": counts.rounds.figures(), "points": counts.points.figures()}
        if arguments.cases:
            table += [rows_of(case, "rounds", counts.rounds), rows_of(case, "points", counts.points)]
    print("\r\x1b[K", end="", file=sys.stderr)
    written["all"] = {"rounds": whole.rounds.figures(), "points": whole.points.figures(), "left out": whole.left_out}
    table += [rows_of(arguments.set, "rounds", whole.rounds), rows_of(arguments.set, "points", whole.points)]
    header = ["set", "judged"] + [cell for power in POWERS for cell in (f"p < 1e-{power}", "ratio")]
    left_out = ", ".join(f"{rows} {why}" for why, rows in whole.left_out.items())
    score.print_table(header, table, [f"rows left out: {left_out}"] if left_out else [])
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
