"""Full, incremental and transfer retraining, and the search: what each keeps, and where each says no."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("lightgbm", reason="needs the extra modelops")
pytest.importorskip("river", reason="needs the extra modelops")
pytest.importorskip("optuna", reason="needs the extra modelops")

import optuna
from optuna.storages import journal

from modelops import artifact, search, train
from modelops.bootstrap import roc_auc, value
from modelops.data import Rows
from modelops.errors import DataError, TooFewLabels, TrainingError
from modelops.recipe import Recipe
from modelops.train import Champion, Learnt
from tests.modelops import world

KINDS = world.RECIPE["data"]["features"]
START_S = 1_800_000_000.0
PARAMETERS: dict[str, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 30},
    "lightgbm": {"num_iterations": 30, "min_data_per_group": 20},
    "logistic": {},
    "river_logistic": {},
}
GROWING = [kind for kind in PARAMETERS if kind != "logistic"]


SEARCH: dict[str, Any] = {
    "space": {
        "learning_rate": {"between": [0.001, 0.5], "log": True},
        "num_leaves": {"between": [2, 31]},
        "extra_trees": {"values": [True, False]},
    },
    "trials": 12,
}


def rows(n: int, seed: int, *, changed: bool = False, start_s: float = START_S) -> Rows:
    made, rng = world.features(n, seed), np.random.default_rng(seed)
    columns = {name: np.array([row[name] for row in made], object if name == "region" else float) for name in KINDS}
    y = np.array([world.label(row, rng, changed=changed) for row in made], np.int8)
    return Rows(columns, y, start_s + np.arange(float(n)), np.arange(n).astype(object))


def recipe(kind: str, how: str = "full", **more: Any) -> Recipe:
    model = {"kind": kind, "parameters": PARAMETERS.get(kind, {})}
    base: dict[str, Any] = {"data": {"features": KINDS}, "model": model, "training": {"retraining": how}}
    return Recipe.model_validate(base | more)


def learn(given: Rows, asked: Recipe, folder: Path, champion: Learnt | None = None) -> Learnt:
    """Trains; a champion is kept and read again first, as a job does."""
    start = None
    if champion is not None:
        sha256 = artifact.save(champion.model, folder / "champion")
        start = Champion(artifact.load(folder / "champion", sha256), champion.learnt_to_s)
    return train.train(given, asked, champion=start, folder=folder, progress=lambda share: None)


def auc(learnt: Learnt, given: Rows) -> float:
    return value(roc_auc, learnt.model.score(given.columns), given.y)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_transfer_from_the_champion_needs_fewer_rows(tmp_path: Path, kind: str) -> None:
    champion = learn(rows(6000, 1), recipe(kind), tmp_path)
    few, test = rows(260, 2, start_s=START_S + 1e5), rows(6000, 3)
    full = learn(few, recipe(kind), tmp_path, champion)
    less = {"hist_gradient_boosting": {"max_iter": 5}, "lightgbm": {"num_iterations": 5}}.get(kind, PARAMETERS[kind])
    moved = learn(few, recipe(kind, "transfer", model={"kind": kind, "parameters": less}), tmp_path, champion)
    assert (full.how, moved.how) == ("full", "transfer")
    assert moved.n_train == full.n_train == 182
    assert auc(moved, test) > auc(champion, test) - 0.03
    if kind in {"hist_gradient_boosting", "lightgbm"}:  # a linear model needs few rows anyway
        assert auc(moved, test) > auc(full, test) + 0.01


@pytest.mark.parametrize("kind", PARAMETERS)
def test_what_goes_on_from_the_champion_learns_a_changed_concept(tmp_path: Path, kind: str) -> None:
    champion = learn(rows(3000, 1), recipe(kind), tmp_path)
    new, test = rows(6000, 2, changed=True, start_s=START_S + 1e5), rows(4000, 3, changed=True)
    more = {"parameters": PARAMETERS[kind]} if kind != "lightgbm" else {"parameters": {"num_iterations": 100}}
    moved = learn(new, recipe(kind, "transfer", model={"kind": kind} | more), tmp_path, champion)
    assert auc(champion, test) < 0.5
    assert auc(moved, test) > 0.7


@pytest.mark.parametrize("kind", GROWING)
def test_incremental_learns_only_the_rows_after_the_champions(tmp_path: Path, kind: str) -> None:
    whole = rows(4000, 1)
    champion = learn(whole.part(slice(0, 2000)), recipe(kind), tmp_path)
    assert champion.learnt_to_s == START_S + 1399  # the rest is its hold-out
    moved = learn(whole, recipe(kind, "incremental"), tmp_path, champion)
    only_new = whole.part(slice(1400, None))
    again = learn(
        only_new,
        recipe(kind, "transfer", training={"retraining": "transfer", "hold_out": 1200 / 2600}),
        tmp_path,
        champion,
    )
    assert (moved.n_train, moved.learnt_to_s) == (2800, START_S + 2799)
    assert (moved.model.score(whole.columns) == again.model.score(whole.columns)).all()
    assert not (moved.model.score(whole.columns) == champion.model.score(whole.columns)).all()
    with pytest.raises(TooFewLabels, match="0 rows to learn after 2027-01-15T08:23:19Z, where the champion stopped"):
        learn(whole.part(slice(0, 2000)), recipe(kind, "incremental"), tmp_path, champion)


def test_river_learns_in_pieces_what_it_learns_at_once(tmp_path: Path) -> None:
    whole = rows(3000, 1)
    training = {"hold_out": 1e-9 + 1 / 3}
    first = learn(whole.part(slice(0, 1500)), recipe("river_logistic", training=training), tmp_path)
    second = learn(whole, recipe("river_logistic", training=training | {"retraining": "incremental"}), tmp_path, first)
    once = learn(whole, recipe("river_logistic", training=training), tmp_path)
    assert np.abs(second.model.score(whole.columns) - once.model.score(whole.columns)).max() < 2e-6


def test_lightgbm_and_river_learn_new_categories_and_boosting_says_no(tmp_path: Path) -> None:
    old, new = rows(2000, 1), rows(2000, 2, start_s=START_S + 1e5)
    old.columns["region"][old.columns["region"] == "west"] = "north"
    new.columns["region"][:] = np.where(new.y == 1, "east", "west")
    for kind in ("lightgbm", "river_logistic"):
        champion = learn(old, recipe(kind), tmp_path)
        assert auc(learn(new, recipe(kind, "transfer"), tmp_path, champion), new) > 0.95
    champion = learn(old, recipe("hist_gradient_boosting"), tmp_path)
    with pytest.raises(TrainingError, match=r"only where the rows hold the same categories.*Choose `lightgbm`"):
        learn(new, recipe("hist_gradient_boosting", "transfer"), tmp_path, champion)


def test_a_champion_of_another_kind_features_or_parameters_is_not_gone_on_from(tmp_path: Path) -> None:
    given = rows(1000, 1)
    champion = learn(given, recipe("logistic"), tmp_path)
    with pytest.raises(TrainingError, match=r"champion of the kind lightgbm; it is logistic. Train once with `full`"):
        learn(given, recipe("lightgbm", "transfer"), tmp_path, champion)
    fewer = recipe("logistic", "transfer", data={"features": {"age": "numeric"}})
    with pytest.raises(TrainingError, match="the champion's features, age, income, region; the recipe has age"):
        learn(given, fewer, tmp_path, champion)
    online = learn(given, recipe("river_logistic"), tmp_path)
    other = recipe("river_logistic", "transfer", model={"kind": "river_logistic", "parameters": {"l2": 0.1}})
    with pytest.raises(TrainingError, match="go on with the parameters they began with"):
        learn(given, other, tmp_path, online)
    unknown = Learnt(online.model, "full", 0, None)
    with pytest.raises(TrainingError, match="must know up to which row"):
        learn(given, recipe("river_logistic", "incremental"), tmp_path, unknown)


def test_labels_of_one_class_say_what_to_look_at(tmp_path: Path) -> None:
    given = rows(1000, 1)
    given.y[700:] = 0
    with pytest.raises(TrainingError, match="rows that are held out are all of one"):
        learn(given, recipe("lightgbm"), tmp_path)
    given.y[:350], given.y[350:] = 0, [0, 1] * 325
    with pytest.raises(TrainingError, match="both parts of a search"):
        learn(given, recipe("lightgbm", search=SEARCH | {"validation": 0.5}), tmp_path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": {"kind": "logistic"}, "training": {"retraining": "incremental"}}, "logistic is fitted to the rows"),
        (
            {"model": {"parameters": {"max_iter": 3}}, "search": {"space": {"max_iter": {"values": [3]}}}},
            "both name max_iter",
        ),
        ({"search": {"space": {"a": {"values": [1]}}, "budget": "10m"}}, "less than `training.deadline`"),
        ({"search": {"space": {"a": {}}}}, "one of `between` and `values`"),
        ({"search": {"space": {"a": {"between": [0, 1], "log": True}}}}, "from above 0 with `log`"),
        ({"search": {"space": {}}}, "at least 1"),
        (
            {"model": {"kind": "river_logistic"}, "training": {"retraining": "transfer"}, "search": SEARCH},
            "it keeps its parameters",
        ),
    ],
)
def test_what_a_recipe_cannot_ask_for(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recipe.model_validate({"data": {"features": KINDS}} | more)


FEW = {"kind": "lightgbm", "parameters": {"num_iterations": 20, "min_data_per_group": 20}}


def searched(folder: Path, **more: Any) -> Learnt:
    return learn(rows(1500, 1), recipe("lightgbm", model=FEW, search=SEARCH | more), folder)


def trials(folder: Path) -> list[dict[str, Any]]:
    backend = journal.JournalFileBackend(str(folder / search.FILE))
    study = optuna.load_study(study_name="search", storage=journal.JournalStorage(backend))
    return [trial.params for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


def test_a_search_is_seeded_and_its_choice_is_what_is_fitted(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a"), searched(tmp_path / "b")
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    assert len(trials(tmp_path / "a")) == 12
    assert first.parameters == second.parameters
    assert first.parameters.keys() == SEARCH["space"].keys()
    assert first.metrics["search.trials"] == 12
    given = rows(1500, 1)
    plain = learn(given, recipe("lightgbm", model=FEW | {"parameters": FEW["parameters"] | first.parameters}), tmp_path)
    assert (plain.model.score(given.columns) == first.model.score(given.columns)).all()


def test_a_search_goes_on_with_the_trials_that_it_would_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched(tmp_path / "whole")
    calls = 0
    fit = search.models.fit

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(search.models, "fit", dies)
    found = None
    while found is None:
        try:
            found = searched(tmp_path / "cut")
        except KeyboardInterrupt:
            with (tmp_path / "cut" / search.FILE).open("a") as file:
                file.write('{"op_code":5,"tri')  # a line that was being written
    assert calls > 13
    assert trials(tmp_path / "cut") == trials(tmp_path / "whole")
    assert found.parameters == whole.parameters


def test_seconds_end_a_search_and_a_trial_that_cannot_be_fitted_ends_nothing(tmp_path: Path) -> None:
    assert searched(tmp_path / "a", budget="0.001s").metrics["search.trials"] == 1
    space = {"bagging_fraction": {"values": [0.5, 7.0]}}
    found = searched(tmp_path / "b", space=space, trials=6)
    assert (found.parameters, found.metrics["search.trials"]) == ({"bagging_fraction": 0.5}, 6)
    with pytest.raises(
        TrainingError, match=r"none of 3 trials of the search could be fitted; the first: lightgbm refuses"
    ):
        searched(tmp_path / "c", space={"bagging_fraction": {"values": [7.0]}}, trials=3)


def test_a_search_whose_folder_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / search.FILE).mkdir(parents=True)
    with pytest.raises(DataError, match=r"trials\.jsonl: the search's trials cannot be kept.*Free space"):
        searched(tmp_path)
    (tmp_path / search.FILE).rmdir()
    (tmp_path / search.FILE).write_text("other text\n{}\n")
    with pytest.raises(DataError, match=r"must hold the search's trials.*Remove it"):
        searched(tmp_path)
