#!/usr/bin/env python3
"""What other detectors find on the labelled data that docs/detection.md measures Barograph on.

    benches/peers.py SET --shared DIR --work DIR [--barograph PATH] [--barograph-figures FILE] [--json FILE]

SET is service-kpi, app-server or server-machine; `scripts/peers` installs what is needed and calls this.

* windowed Gaussian: deviation from the mean of a trailing window, in its standard deviations
* median/MAD: the same with the median and the median absolute deviation
* random cut forest: `krcf`, on the vector of all metrics, normalised by the training part

They read the recordings that Barograph reads. None sees a label or looks ahead: a step is judged by what
came before it, and then learned. Their anomalies are scored by the same tool as Barograph's.

They have no false-alarm budget, so each has two rows. In the first it is given every advantage that a
threshold can give: of its
settings (windows, floors of the spread, ways to make one score of many metrics, sizes of the forest,
smoothing), of 400 thresholds and of four times that an alarm stays open after the last score above the
threshold, the combination that finds most events of this very set at no more than one false alarm an entity
and week. In the second, "as set before", the threshold is the lowest that gives at most as many alarms in the
training parts, all else as in the first: what somebody could have set before the test part came.

Barograph's first row has the one setting that all sets share; with --barograph, a second has the best of
several `detect.level_tickets_per_week` for this very set, chosen as the others' thresholds are. Needs numpy and krcf.
"""
import argparse
import gzip
import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from krcf import RandomCutForest

SETS = ("service-kpi", "app-server", "server-machine")
FALSE_ALARMS_A_WEEK = 1.0
WEEK_S, DAY_S = 7 * 86_400, 86_400
# The window of NAB's windowed Gaussian, in steps; a day and a week are what people set.
NAB_WINDOW = 6_400
# Steps that are only learned from.
LEARN = 100
# A window's centre and scale are taken anew whenever a hundredth of it has passed.
REFRESHES_A_WINDOW = 100
# No spread is taken to be smaller than this part of the range that the metric had so far: without a floor,
# a metric that was constant in the window is infinitely odd at its first move.
FLOORS = (0.001, 0.01, 0.1)
LARGEST_DEVIATION = 100.0
# Steps whose scores are averaged: a threshold may be on the score itself or on its recent mean.
SMOOTHINGS = (1, 6)
# Steps that an alarm stays open after the last score above the threshold.
HOLDS = (3, 12, 36, 144)
THRESHOLDS = 400
# Share of the steps that the lowest threshold lies below.
ABOVE_LOWEST = 0.2
# Tree sizes (256 is the default) and steps that are one point of the forest.
FORESTS = [(points, shingle) for points in (256, 1024) for shingle in (1, 4)]
TREES = 50
SEED = 1
# Values of `detect.level_tickets_per_week` that Barograph's own row is chosen from; 0.5 is the default.
TICKETS_A_WEEK = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Normalised values beyond are cut off, so that one metric does not take all cuts of the forest.
LARGEST_NORMALISED = 10.0


@dataclass
class Entity:
    """A recording and its labels, in steps from the recording's start."""
    name: str
    label: dict
    values: np.ndarray
    step_s: int
    start_s: float
    test_start: int
    weeks: float
    events: list


@dataclass
class Outcome:
    """What one threshold of one setting comes to over a set."""
    setting: str
    threshold: float
    hold: int
    found: int
    false_alarms: int
    delay: float
    fired: dict

    def rank(self):
        return self.found, -self.false_alarms, -self.delay


def read_values(path):
    """Time of the first step in seconds, and the values of all metrics, a row a step."""
    times, rows = [], []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            step = {}
            for resource in json.loads(line)["resourceMetrics"]:
                for scope in resource["scopeMetrics"]:
                    for metric in scope["metrics"]:
                        point = metric["gauge"]["dataPoints"][0]
                        step[metric["name"]] = float(point["asDouble"])
            times.append(int(point["timeUnixNano"]))
            rows.append([step[name] for name in sorted(step)])
    return times[0] / 1e9, np.array(rows)


def read_entity(folder, name, label, contract, scoring):
    """An entity; raises where its steps are not as far apart as its labels say."""
    start_s, values = read_values(folder / label["recordings"][0])
    step_s = label["step_s"]

    def step_of(text):
        return round((contract.unix_s(text) - start_s) / step_s)

    if step_of(label["test_end"]) != len(values) - 1:
        raise ValueError(f"{name}: {len(values)} steps, but the last is number {step_of(label['test_end'])}")
    test_start = step_of(label["test_start"])
    events = [(step_of(event["start"]), step_of(event["start"]) - scoring.EARLY_STEPS,
               step_of(event["end"]) + scoring.LATE_STEPS) for event in label["events"]]
    weeks = (contract.unix_s(label["test_end"]) - contract.unix_s(label["test_start"])) / WEEK_S
    return Entity(name, label, values, step_s, start_s, test_start, weeks, events)


def mean_and_deviation(past):
    return past.mean(axis=0), past.std(axis=0)


def median_and_mad(past):
    median = np.median(past, axis=0)
    # 1.4826: so that it is the standard deviation where values are Gaussian.
    return median, 1.4826 * np.median(np.abs(past - median), axis=0)


def trailing(values, window, describe):
    """Centre and spread of each metric before each step, from at most `window` steps; NaN while learning."""
    centre, spread = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    refresh = max(1, window // REFRESHES_A_WINDOW)
    for step in range(LEARN, len(values), refresh):
        centre[step:step + refresh], spread[step:step + refresh] = describe(values[max(0, step - window):step])
    return centre, spread


def log_tail(deviations):
    """-log10 of the probability that a Gaussian deviates so far or farther, as NAB's windowed Gaussian takes it."""
    # Beyond 37 standard deviations the probability is no number any more.
    grid = np.linspace(0.0, 37.0, 3_701)
    tails = [-math.log10(math.erfc(size / math.sqrt(2.0))) for size in grid]
    return np.interp(deviations, grid, tails)


def deviation_scores(entity, describe):
    """(setting, score of each step) of each window, floor, and way to make one score of many metrics."""
    values = entity.values
    # Of the steps before, so that a step has no say in how it is judged.
    reach = np.maximum.accumulate(values) - np.minimum.accumulate(values)
    reach = np.vstack([reach[:1], reach[:-1]])
    windows = {"a day": DAY_S // entity.step_s, "a week": WEEK_S // entity.step_s,
               f"{NAB_WINDOW} steps": NAB_WINDOW}
    for window_name, window in windows.items():
        centre, spread = trailing(values, window, describe)
        distance = np.abs(values - centre)
        for floor in FLOORS:
            # What never moved has no range either; any move of it is as odd as can be.
            unit = np.maximum(np.maximum(spread, floor * reach), 1e-12)
            deviations = np.minimum(np.nan_to_num(distance / unit), LARGEST_DEVIATION)
            setting = f"window {window_name}, floor {floor}"
            yield f"{setting}, largest deviation", deviations.max(axis=1)
            yield f"{setting}, mean deviation", deviations.mean(axis=1)
            yield f"{setting}, mean log tail", log_tail(deviations).mean(axis=1)


def forest_scores(entity):
    """(setting, score of each step) of each size of the forest."""
    training = entity.values[:entity.test_start]
    spread = training.std(axis=0)
    # What was constant in training is measured by its size: it has no other unit.
    unit = np.where(spread > 0.0, spread, np.maximum(np.abs(training.mean(axis=0)), 1.0))
    normalised = np.clip((entity.values - training.mean(axis=0)) / unit, -LARGEST_NORMALISED, LARGEST_NORMALISED)
    points = normalised.tolist()
    for sample, shingle in FORESTS:
        forest = RandomCutForest({"dimensions": len(points[0]), "shingle_size": shingle, "num_trees": TREES,
                                  "sample_size": sample, "random_seed": SEED})
        scores = np.zeros(len(points))
        for step, point in enumerate(points):
            if step >= LEARN:
                scores[step] = forest.score(forest.shingled_point(point))
            forest.update(point)
        yield f"{sample} points a tree, {shingle} step{'s' if shingle > 1 else ''} a point", scores


PEERS = {"windowed Gaussian": lambda entity: deviation_scores(entity, mean_and_deviation),
         "median/MAD": lambda entity: deviation_scores(entity, median_and_mad),
         "random cut forest": forest_scores}


def smoothed(scores, steps):
    """The mean of each score and those before it, `steps` in all."""
    return scores if steps == 1 else np.convolve(scores, np.full(steps, 1.0 / steps))[:len(scores)]


def alarms(scores, threshold, hold):
    """Steps at which an alarm opens. It closes once `hold` steps have passed without a score above."""
    above = np.flatnonzero(scores > threshold)
    return above[np.flatnonzero(np.diff(above, prepend=-hold - 2) > hold)]


def tally(entity, fired):
    """(delays in steps of the events found, false alarms): scoring/events.py's rule, in steps."""
    delays, false_alarms = {}, 0
    for step in fired[fired >= entity.test_start].tolist():
        inside = [number for number, (_, first, last) in enumerate(entity.events) if first <= step <= last]
        fresh = [number for number in inside if number not in delays]
        if fresh:
            delays[fresh[0]] = step - entity.events[fresh[0]][0]
        elif not inside:
            false_alarms += 1
    return list(delays.values()), false_alarms


def best(setting, entities, scores):
    """The Outcome that finds most at no more false alarms than are allowed, or None."""
    tested = np.concatenate([scores[entity.name][entity.test_start:] for entity in entities])
    tested = np.sort(tested)[::-1]
    ranks = np.geomspace(1, ABOVE_LOWEST * len(tested), THRESHOLDS).astype(int)
    allowed = FALSE_ALARMS_A_WEEK * sum(entity.weeks for entity in entities)
    chosen = None
    for hold in HOLDS:
        for threshold in np.unique(tested[ranks])[::-1]:
            fired = {entity.name: alarms(scores[entity.name], threshold, hold) for entity in entities}
            counted = [tally(entity, fired[entity.name]) for entity in entities]
            delays = [delay for some, _ in counted for delay in some]
            false_alarms = sum(some for _, some in counted)
            if false_alarms > 4 * allowed:
                # Lower thresholds may merge alarms again, but not to a quarter while still finding anything.
                break
            if false_alarms > allowed:
                continue
            delay = float(np.median(delays)) if delays else math.inf
            outcome = Outcome(setting, float(threshold), hold, len(delays), false_alarms, delay, fired)
            if chosen is None or outcome.rank() > chosen.rank():
                chosen = outcome
    return chosen


def as_set_before(chosen, entities, scores):
    """The Outcome of the same setting with the threshold that the training parts alone would have given."""
    trained = np.sort(np.concatenate([scores[entity.name][LEARN:entity.test_start] for entity in entities]))[::-1]
    ranks = np.geomspace(1, ABOVE_LOWEST * len(trained), THRESHOLDS).astype(int)
    weeks = sum(entity.test_start * entity.step_s for entity in entities) / WEEK_S
    threshold = trained[0]
    for lower in np.unique(trained[ranks])[::-1]:
        opened = sum(len(alarms(scores[entity.name][:entity.test_start], lower, chosen.hold)) for entity in entities)
        if opened > FALSE_ALARMS_A_WEEK * weeks:
            break
        threshold = lower
    fired = {entity.name: alarms(scores[entity.name], threshold, chosen.hold) for entity in entities}
    return Outcome(chosen.setting, float(threshold), chosen.hold, 0, 0, math.inf, fired)


def write_anomalies(outcome, entities, results, rfc3339):
    """anomalies.jsonl of each entity, as the tool that scores Barograph reads it."""
    for entity in entities:
        folder = results / entity.name
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "anomalies.jsonl", "w", encoding="utf-8") as lines:
            for step in outcome.fired[entity.name].tolist():
                at = rfc3339(round(entity.start_s) + step * entity.step_s)
                lines.write(json.dumps({"id": str(step), "onset": at, "fired_at": at, "resolved_at": None,
                                        "severity": "ticket", "title": "", "signals": [], "causes": [],
                                        "p_value": None, "evidence": None}) + "\n")


def run_peer(peer, entities):
    """The best Outcome of a peer over all of its settings, and the one that its training parts lead to."""
    by_setting, started = {}, time.monotonic()
    for entity in entities:
        for setting, scores in PEERS[peer](entity):
            for steps in SMOOTHINGS:
                name = setting if steps == 1 else f"{setting}, mean of {steps} steps"
                by_setting.setdefault(name, {})[entity.name] = smoothed(scores, steps)
        print(f"\r\x1b[K{peer}: {entity.name}, {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
    outcomes = [best(setting, entities, scores) for setting, scores in by_setting.items()]
    print(f"\r\x1b[K{peer}: {len(by_setting)} settings, {time.monotonic() - started:.0f} s", file=sys.stderr)
    chosen = max((outcome for outcome in outcomes if outcome), key=Outcome.rank)
    return chosen, as_set_before(chosen, entities, by_setting[chosen.setting])


def best_of_barograph(barograph, entities, otlp, work, events):
    """(events.py's figures, budget) of the budget that finds most at no more false alarms than are allowed."""
    measured = []
    for tickets in TICKETS_A_WEEK:
        results = work / "peers" / f"barograph-{tickets:g}"
        for entity in entities:
            print(f"\r\x1b[KBarograph: {tickets:g} tickets a week, {entity.name}", end="", file=sys.stderr, flush=True)
            command = [barograph, "backtest", *(otlp / file for file in entity.label["recordings"]),
                       "--set", f"detect.level_tickets_per_week={tickets}", "--out", results / entity.name]
            subprocess.run([str(word) for word in command], check=True, capture_output=True)
        measured.append((events.score(results, otlp), tickets))
    print("\r\x1b[K", end="", file=sys.stderr)

    def rank(scored):
        figures = scored[0]["all"]
        within = figures["false_alarms_per_entity_week"] <= FALSE_ALARMS_A_WEEK
        return within, figures["found"] if within else 0, -figures["false_alarms"]

    return max(measured, key=rank)


def row(name, figures, how):
    delay = figures["median_delay_steps"]
    return [name, f"{figures['found']} of {figures['events']}", f"{figures['found_share']:.0%}",
            f"{figures['false_alarms_per_entity_week']:.2f}", "-" if delay is None else f"{delay:.1f}", how]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--shared", type=Path, required=True, help="folder with tools/ and data/")
    parser.add_argument("--work", type=Path, required=True, help="folder for recordings and results")
    parser.add_argument("--barograph", help="path of the daemon's binary, to choose its budget as well")
    parser.add_argument("--barograph-figures", type=Path, help="what evaluate.py --json wrote for the set")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    # The tools may lie where nothing is to be written.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(arguments.shared / "tools"))
    import evaluate
    import score
    from recordings.otlp import rfc3339
    from scoring import contract, events

    work = arguments.work / arguments.set
    work.mkdir(parents=True, exist_ok=True)
    otlp = work / "otlp"
    evaluate.prepare_recordings(arguments.set, arguments.shared / "data", otlp, None)
    entities = [read_entity(otlp, name, label, contract, events)
                for name, label in contract.read_labels(otlp).items()]
    rows, written = [], {}
    if arguments.barograph_figures and arguments.barograph_figures.exists():
        figures = json.loads(arguments.barograph_figures.read_text())["all"]
        rows.append(row("Barograph", figures, "the setting of all sets"))
    if arguments.barograph:
        scored, tickets = best_of_barograph(arguments.barograph, entities, otlp, work, events)
        how = f"detect.level_tickets_per_week {tickets:g}"
        rows.append(row("Barograph, best budget", scored["all"], how))
        written["Barograph"] = {"setting": how, **scored}
    for peer in PEERS:
        chosen, before = run_peer(peer, entities)
        for name, outcome in ((peer, chosen), (f"{peer}, as set before", before)):
            results = work / "peers" / name.replace("/", "-").replace(", ", "-").replace(" ", "-")
            write_anomalies(outcome, entities, results, rfc3339)
            scored = events.score(results, otlp)
            figures = scored["all"]
            if outcome is chosen and (figures["found"], figures["false_alarms"]) != (chosen.found, chosen.false_alarms):
                raise AssertionError(f"{peer}: counted {chosen.found} found and {chosen.false_alarms} false alarms, "
                                     f"scored {figures['found']} and {figures['false_alarms']}")
            how = f"{outcome.setting}; threshold {outcome.threshold:.3g}, open for {outcome.hold} steps"
            rows.append(row(name, figures, how))
            written[name] = {"setting": how, **scored}
    score.print_table(["detector", "found", "share", "false/week", "delay (steps)", "setting"], rows, [])
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
