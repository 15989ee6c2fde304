"""Drifts of one known kind each, of many shapes and sizes."""

from dataclasses import replace

import numpy as np

from benchmarks.kind_streams import CATEGORIES, NUMERIC, POOL, Rows, World

POWERS = (10.0, 100.0, 1000.0, 0.1, 0.01, 0.001)
FAULTS = ("null_spike", "invalid_values", "new_category", "unit_change", "frozen", "sentinel")


def covariate(rows: Rows, rng: np.random.Generator) -> str:
    """One to three features move or spread or a category's share changes; or all numbers move by a common cause."""
    if rng.random() < 0.25:
        rows.latent += rng.normal(size=len(NUMERIC)) * rng.uniform(0.2, 0.6)
        return "common cause"
    done = []
    for j in rng.permutation(len(NUMERIC) + len(CATEGORIES))[: rng.integers(1, 4)].tolist():
        if j >= len(NUMERIC):
            k = j - len(NUMERIC)
            names = list(CATEGORIES.values())[k]
            hit = rng.random(len(rows.category)) < rng.uniform(0.1, 0.5)
            rows.category[hit, k] = rng.integers(len(names))
            done.append("category")
        elif rng.random() < 0.6:
            rows.latent[:, j] += rng.uniform(0.15, 1.2) * rng.choice([-1, 1])
            done.append("mean")
        else:
            rows.latent[:, j] *= rng.choice([0.5, 0.65, 0.8, 1.2, 1.4, 1.8])
            done.append("spread")
    return " and ".join(sorted(set(done)))


def prior(world: World, n: int, rng: np.random.Generator) -> tuple[Rows, np.ndarray, str]:
    """Rows and labels, the labels' shares changed and X given Y as before."""
    pool = world.rows(POOL * n, rng)
    label = world.label(pool, rng)
    if world.task == "probability":
        share = label.mean()
        odds = share / (1 - share) * float(rng.choice([0.25, 0.4, 0.6, 1.6, 2.5, 4.0]))
        wanted = odds / (1 + odds)
        weight = np.where(label == 1, wanted / share, (1 - wanted) / (1 - share))
    else:
        weight = np.exp(
            np.clip(
                float(rng.choice([-0.8, -0.5, -0.25, 0.25, 0.5, 0.8])) * (label - label.mean()) / label.std(), -3, 3
            )
        )
    kept = rng.choice(len(label), n, p=weight / weight.sum())
    return Rows(pool.latent[kept], pool.category[kept]), label[kept], "label shares"


def concept(world: World, rng: np.random.Generator) -> tuple[World, str]:
    """A world in which Y follows from X in another way."""
    how = str(rng.choice(["flip", "weaken", "intercept", "swap"]))
    weights = world.weights.copy()
    if how == "flip":
        weights[rng.permutation(len(weights))[: rng.integers(1, 3)]] *= -1
        return replace(world, weights=weights), how
    if how == "weaken":
        return replace(world, weights=weights * rng.uniform(0, 0.7)), how
    if how == "swap":
        return replace(world, weights=np.roll(weights, int(rng.integers(1, len(weights))))), how
    return replace(world, intercept=world.intercept + float(rng.uniform(0.4, 1.5) * rng.choice([-1, 1]))), how


def fault(rows: Rows, rng: np.random.Generator) -> str:
    """One column is broken in a share of the rows, or in all."""
    what = str(rng.choice(FAULTS))
    seed = int(rng.integers(2**31))
    name = str(rng.choice(list(CATEGORIES) if what == "new_category" else NUMERIC))
    share = float(rng.uniform(0.05, 0.5)) if what in {"null_spike", "sentinel"} else float(rng.uniform(0.03, 0.4))
    if what in {"unit_change", "frozen"}:
        share = float(rng.choice([1.0, 1.0, 0.4]))
    factor, level = float(rng.choice(POWERS)), float(rng.choice([-999.0, 0.0, 99999.0]))

    def strike(sent: dict[str, np.ndarray], invalid: dict[str, np.ndarray]) -> None:
        own = np.random.default_rng(seed)
        values = sent[name].copy()
        hit = own.random(len(values)) < share
        if what == "null_spike":
            values[hit] = np.nan
        elif what == "invalid_values":
            invalid[name] = hit
        elif what == "new_category":
            values[hit] = "NEW"
        elif what == "unit_change":
            values[hit] = values[hit] * factor
        elif what == "frozen":
            values[hit] = values[0]
        else:
            values[hit] = level
        sent[name] = values

    rows.broken.append(strike)
    return what
