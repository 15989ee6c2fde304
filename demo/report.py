"""What it came to: performance before, during and after, beside a model that stayed; seconds; requests."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from demo.settings import OBSERVATION_S
from demo.story import STEPS, Story
from demo.traffic import Answered


def roc_auc(scores: Sequence[float], labels: Sequence[int]) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties half; None where a class is missing.

    >>> roc_auc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    0.875
    """
    values, y = np.asarray(scores, float), np.asarray(labels)
    positive, negative = values[y == 1], np.sort(values[y != 1])
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))


def performance(
    answered: Sequence[Answered], first: str, after: Sequence[Answered], unchanged: Sequence[float]
) -> dict[str, float | None]:
    """AUC of what was answered: before the change, by the first version after it, by the promoted one once it was
    promoted; and of the first version on those same rows (`unchanged`: its scores)."""
    before = [a for a in answered if not a.changed]
    during = [a for a in answered if a.changed and a.version == first]
    found = {name: [a.score for a in rows] for name, rows in (("before", before), ("during", during), ("after", after))}
    labels = {"before": before, "during": during, "after": after}
    aucs = {name: roc_auc(scores, [a.label for a in labels[name]]) for name, scores in found.items()}
    return aucs | {"no_retraining": roc_auc(unchanged, [a.label for a in after])}


def result(
    story: Story, figures: Mapping[str, float | None], requests: Mapping[str, int], models: Mapping[str, Any]
) -> dict[str, Any]:
    """All of it as one JSON object."""
    seconds = story.seconds()
    seconds |= {"alarm_to_promoted": story.between("alarm", "promoted"), "observation": float(OBSERVATION_S)}
    aliases = models.get("aliases", {})
    versions = [
        {
            "version": str(v["version"]),
            "aliases": [alias for alias, number in aliases.items() if number == v["version"]],
            "job": v["job"],
            "alarm": v["alarm"],
            "parent": None if v["parent"] is None else str(v["parent"]),
            "roc_auc": v["metrics"].get("roc_auc"),
        }
        for v in sorted(models.get("versions", []), key=lambda v: v["version"])
    ]
    told = ("id", "alarm_id", "kind", "state", "reason", "new_version")
    jobs = [{name: job[name] for name in told} for job in story.jobs.values()]
    return {
        "metric": "roc_auc",
        "performance": {k: None if v is None else round(v, 4) for k, v in figures.items()},
        "seconds": {k: None if v is None else round(v, 2) for k, v in seconds.items()},
        "requests": dict(requests),
        "alarms": [asdict(alarm) for alarm in story.alarms.values()],
        "jobs": jobs,
        "versions": versions,
    }


def table(made: Mapping[str, Any], story: Story, restarts: Mapping[str, int]) -> list[str]:
    """The same for a person."""
    figures = made["performance"]
    shown = {name: "   -" if value is None else f"{value:.3f}" for name, value in figures.items()}
    lines = [
        "",
        "AUC                    before   during    after",
        f"  with modelops         {shown['before']}    {shown['during']}    {shown['after']}",
        f"  no retraining         {shown['before']}    {shown['during']}    {shown['no_retraining']}",
    ]
    if None not in (figures["before"], figures["during"], figures["after"], figures["no_retraining"]):
        lost = figures["before"] - figures["no_retraining"]
        back = (figures["after"] - figures["no_retraining"]) / lost if lost else float("nan")
        lines.append(f"  {back:.0%} of the lost AUC is back")
    lines += ["", "seconds"]
    for name, value in story.seconds().items():
        lines.append(f"  {STEPS[name][0]:52} {'-' if value is None else format(value, '6.1f'):>6}")
    seconds = made["seconds"]
    if seconds["alarm_to_promoted"] is not None:
        own = seconds["alarm_to_promoted"] - seconds["observation"]
        lines.append(f"  {'the alarm → promoted, but for the canary and watch':52} {own:6.1f}")
    requests = made["requests"]
    lines += ["", f"requests   {requests['sent']:,} sent, {requests['failed']:,} failed"]
    died = ", ".join(f"{name} {n}" for name, n in restarts.items() if n)
    lines.append(f"restarts   {died or 'none'}")
    return lines
