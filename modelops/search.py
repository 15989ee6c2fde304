"""The search for a model's parameters: Optuna's TPE with a budget, whose trials lie in the job's folder.

Each trial's sampler is seeded by the seed and the number of trials before it: a search that was killed goes on with the
very trials that it would have made.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelops import models
from modelops import recipe as recipes
from modelops.bootstrap import roc_auc, value
from modelops.data import Rows
from modelops.errors import DataError, TrainingError
from modelops.job import Searched
from modelops.models import Encoding, Model

Parameters = dict[str, int | float | str | bool | None]

FILE = "trials.jsonl"
REASON = "reason"  # of a failed trial, among its attributes
log = logging.getLogger(__name__)


Progress = Callable[[Searched], None]


class Found(msgspec.Struct, frozen=True):
    """The best trial's parameters and ROC AUC on the validation rows, and how many trials there were."""

    parameters: Parameters
    best: float
    n_trials: int


def search(
    rows: Rows,
    chosen: recipes.Model,
    asked: recipes.Search,
    encoding: Encoding,
    champion: Model | None,
    *,
    folder: Path,
    progress: Progress,
) -> Found:
    """Tries parameters until the trials or the seconds are spent. Raises TrainingError where none could be fitted."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    n_fit = len(rows.y) - round(len(rows.y) * asked.validation)
    parts = rows.part(slice(0, n_fit)), rows.part(slice(n_fit, None))
    if any(len(np.unique(part.y)) < 2 for part in parts):
        raise TrainingError("labels must be of both classes in both parts of a search; raise `data.min_of_class`.")

    def score(parameters: Parameters) -> float:
        tried = chosen.model_copy(update={"parameters": chosen.parameters | parameters})
        made = models.fit(tried, encoding, parts[0].columns, parts[0].y, champion)
        return value(roc_auc, made.score(parts[1].columns), parts[1].y)

    path = folder / FILE
    try:
        return _run(_study(path), asked, chosen.seed, score, progress)
    except OSError as error:
        raise DataError(f"{path}: the search's trials cannot be kept: {error.strerror}. Free space there.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: must hold the search's trials: {error}. Remove it to search again.") from error


def _study(path: Path) -> Any:
    """The study of a file; what a killed process was about to write, or to try, is given up."""
    import optuna
    from optuna.storages import journal

    class Alone(journal.JournalFileOpenLock):
        """No lock: a job's folder is one process's, and a lock of a killed one would stop the next."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    backend = journal.JournalFileBackend(str(path), lock_obj=Alone(str(path)))
    study = optuna.create_study(
        storage=journal.JournalStorage(backend), study_name="search", direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _run(
    study: Any, asked: recipes.Search, seed: int, score: Callable[[Parameters], float], progress: Progress
) -> Found:
    import optuna

    space = {name: _distribution(dimension) for name, dimension in asked.space.items()}
    while True:
        trials = study.get_trials(deepcopy=False)
        refused = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        spent_s = sum(trial.user_attrs["seconds"] for trial in trials if "seconds" in trial.user_attrs)
        n = len(done) + len(refused)
        share = max(n / asked.trials, min(spent_s / asked.budget, 1.0)) if n else 0.0
        progress(Searched(n, asked.trials, max((trial.value for trial in done), default=None), share))
        if n >= asked.trials or (n and spent_s >= asked.budget):
            break
        study.sampler = optuna.samplers.TPESampler(seed=seed + n)
        trial = study.ask(space)
        began_s = time.monotonic()
        try:
            found = score(dict(trial.params))
        except TrainingError as error:
            trial.set_user_attr("seconds", time.monotonic() - began_s)
            trial.set_user_attr(REASON, str(error))
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            log.info("trial %d of %d cannot be fitted: %s", n + 1, asked.trials, error)
            continue
        trial.set_user_attr("seconds", time.monotonic() - began_s)
        study.tell(trial, found)
        best = max([found, *(trial.value for trial in done)])
        log.info("trial %d of %d: roc_auc %.4f, best %.4f", n + 1, asked.trials, found, best)
    if not done:
        raise TrainingError(f"none of {n} trials of the search could be fitted; the first: {refused[0]}")
    best_trial = max(done, key=lambda trial: trial.value)
    return Found(dict(best_trial.params), best_trial.value, n)


def _distribution(dimension: recipes.Dimension) -> Any:
    from optuna import distributions

    if dimension.between is None:
        return distributions.CategoricalDistribution(dimension.values or ())
    low, high = dimension.between
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=dimension.log)
    return distributions.FloatDistribution(low, high, log=dimension.log)
