"""Data with labels through the commands: files are written, judged twice, and read back as the tables need them."""

import numpy as np
import pandas as pd

from benchmarks.late_labels import Case, alarmed, apart, decisions, drifting, whole

CASE = Case(
    "made_up",
    {"x": "numeric"},
    {"name": "p", "kind": "probability"},
    {"name": "came_true", "kind": "binary"},
    n_window=400,
    fallen=frozenset({2}),
)


def rows(n: int, seed: int, wrong: slice = slice(0)) -> pd.DataFrame:
    """A probability that follows a number, and whether it came true; in some rows the other thing did."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    p = 1 / (1 + np.exp(-2 * x))
    came_true = (rng.random(n) < p).astype(int)
    came_true[wrong] = 1 - came_true[wrong]
    return pd.DataFrame({"x": x, "p": p, "came_true": came_true})


def test_late_labels_show_the_window_in_which_the_answers_were_wrong() -> None:
    found = whole(decisions(CASE, (rows(3000, 1), rows(1600, 2, wrong=slice(800, 1200)))), CASE.n_window)
    assert len(found) == 4
    assert drifting(found) == "3, 4"  # a rise of the loss row by row is held open for as many rows again
    told, after = alarmed(CASE, found).splitlines()[2:]
    assert after.startswith("| 4 | ")
    assert told.startswith("| 3 | ")
    assert told.endswith("| yes | drift | opened (concept) |")
    (figure,) = apart(found, ["accuracy"], relative=False).splitlines()[2:]
    assert float(figure.split(" | ")[3].removesuffix(" |")) > 0.4  # an estimate does not see a changed rule
