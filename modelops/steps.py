"""What a job does, step by step. Each step leaves its result as a file, and reads those before it.

A step that has a result is not done again, so a killed process goes on where it was.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import numpy as np

from modelops import artifact, contract, data_sql, inputs, lineage, train
from modelops import gate as gates
from modelops.bootstrap import roc_auc, value
from modelops.comparison import ChampionRows, champion_rows, read_champion_rows, why_not
from modelops.config import Config, ModelEntry
from modelops.data import Rows, Selection, Snapshot, Warehouse, read_classes, read_rows
from modelops.errors import DataError, TooFewLabels
from modelops.inputs import Inputs
from modelops.job import STEPS, Job, Searched
from modelops.lineage import Lineage
from modelops.models import Model
from modelops.profile import build_profile
from modelops.recipe import Recipe
from modelops.registry import Registry, Version
from modelops.results import SEARCHED, Result, job_folder, read_result, write
from modelops.topic_log import Topics
from modelops.train import Learnt, Trained

RECIPE = "recipe.json"  # of a job's folder: as it was when the job began
CHAMPION_ROWS = "champion_rows.json"
Progress = Callable[[str, float, str], None]
"""Is told the step, the share of it that is done, and what there is to say about it."""


class Agreed(msgspec.Struct, frozen=True):
    """The rules of the contract that hold."""

    rules: tuple[str, ...]


class Profiled(msgspec.Struct, frozen=True):
    """The profile's file and content hash."""

    path: str
    hash: str


class Work:
    """One job's steps in its folder. `sources`: files to read instead of the model's logs."""

    def __init__(
        self,
        config: Config,
        job: Job,
        recipe: Recipe,
        registry: Registry,
        *,
        sources: tuple[Path, ...] = (),
        progress: Progress = lambda *_: None,
    ) -> None:
        # Before scikit-learn is imported. Threads of OpenMP wait for one another at every node of a tree: on a busy
        # machine two of them took a hundred times as long as one.
        os.environ.setdefault("OMP_NUM_THREADS", str(recipe.training.threads))
        self.job = job
        self.recipe = recipe
        self.folder = job_folder(config, job.id)
        self._config = config
        self._entry: ModelEntry = config.model(job.model)
        self._registry = registry
        self._sources = sources
        self._progress = progress
        self._champion = registry.alias(job.model, "champion")
        self._lineage = Lineage(job, self.folder, config.state.folder / lineage.FILE)

    def run(self) -> Version:
        """All steps that have no result yet; the registered version. Raises ModelopsError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        version = None
        for step in STEPS:
            self._progress(step, 0.0, "")
            version = getattr(self, step)()
            self._progress(step, 1.0, "")
        assert isinstance(version, Version)
        return version

    def snapshot(self) -> Snapshot:
        """The rows to learn from."""
        chosen = Selection(self.job.model, self.job.started_s, must_be_complete=not self._sources)
        warehouse = Warehouse(self._config.state.folder)

        def make() -> Snapshot:
            sql = data_sql.labelled(self.recipe.data.features)
            with self._inputs() as (files, topics):
                read = [lineage.Dataset(file) for file in files]
                if self._entry.source is not None:
                    read += [lineage.topic(self._entry.source.brokers, *span) for span in topics.spans]
                with self._lineage.run("snapshot", read, sql=sql) as written:
                    made = warehouse.snapshot(files, self.recipe.data, chosen, topics)
                    self._check_is_new(made)
                    written.append(self._dataset(made))
                    if self._champion is not None:
                        known = self._registry.get(self.job.model, self._champion)
                        kinds = artifact.describe(Path(known.artifact), known.sha256).encoding.kinds
                        theirs = champion_rows(warehouse, made, kinds, self.recipe.data, chosen, (files, topics))
                        write(self.folder / CHAMPION_ROWS, msgspec.json.encode(theirs))
            return made

        return self._kept("snapshot", Snapshot, make)

    def _check_is_new(self, made: Snapshot) -> None:
        """Raises TooFewLabels where the alarm's last job was judged on the same rows: it would end the same way.

        Not where the recipe was changed since. What was made of a log in which only other rows are new is not kept.
        """
        if (last := self.job.previous_id) is None:
            return
        folder = job_folder(self._config, last)
        before = read_result(folder / "snapshot.json", Snapshot)
        if before is None or not (folder / "gate.json").exists() or _rows_of(before) != _rows_of(made):
            return
        if (folder / RECIPE).read_bytes() != (self.folder / RECIPE).read_bytes():
            return
        if made.path != before.path:
            Path(made.path).unlink()
        raise TooFewLabels(f"no labelled row came since job {last}, which was judged on the same {made.n_rows:,}.")

    def contract(self) -> Agreed:
        """The rules that the rows keep."""
        return self._kept(
            "contract", Agreed, lambda: Agreed(tuple(contract.check(self._rows(), self.snapshot(), self.recipe)))
        )

    def train(self) -> Trained:
        """The challenger, as an artifact."""

        def fit() -> Trained:
            read = [self._dataset(self.snapshot(), self.contract().rules)]
            if self._champion is not None:
                parent = self._registry.get(self.job.model, self._champion)
                read.append(lineage.Dataset(Path(parent.artifact), parent.sha256))
            with self._lineage.run("training", read) as written:
                made = self._fit()
                written.append(lineage.Dataset(Path(made.artifact), made.sha256))
            return made

        return self._kept("train", Trained, fit)

    def gate(self) -> gates.Verdict:
        """The challenger against the champion."""
        return self._kept("gate", gates.Verdict, self._judge)

    def profile(self) -> Profiled:
        """The reference profile of the challenger."""

        def build() -> Profiled:
            trained, rows = self.train(), self._rows()
            model = artifact.load(Path(trained.artifact), trained.sha256)
            settings, version = self.recipe.profile, self._registry.next_version(self.job.model, self.job.id)
            classes = None
            if settings.label is not None:
                classes = read_classes(Path(self.snapshot().path), self.recipe.data.label.positive)
            is_fitted = self.job.action == "retrain"  # a recalibration has seen none of the rows
            parameters = self.recipe.model.parameters | trained.parameters
            chosen = self.recipe.model.model_copy(update={"parameters": parameters})
            start = self._model(self._champion) if trained.how in ("transfer", "incremental") else None
            made = build_profile(
                rows,
                self.recipe.data.features,
                train.unseen_predictions(model, rows, trained.n_train if is_fitted else 0, chosen, start),
                settings,
                about={"model": self.job.model, "version": str(version)},
                classes=classes,
                progress=lambda share: self._progress("profile", share, ""),
            )
            path = Path(trained.artifact) / "reference.profile"
            write(path, made.to_bytes())
            return Profiled(str(path), made.hash)

        return self._kept("profile", Profiled, build)

    def register(self) -> Version:
        """The version in the registry; a second time the same one."""

        def keep() -> Version:
            snapshot, trained, profiled, verdict = self.snapshot(), self.train(), self.profile(), self.gate()
            judged = {f"gate.{c.name}": c.challenger for c in verdict.comparisons if c.challenger is not None}
            return self._registry.register(
                Version(
                    model=self.job.model,
                    job=self.job.id,
                    alarm=self.job.alarm_id or None,
                    created_s=time.time(),
                    recipe=self.recipe.hash,
                    kind=self.recipe.model.kind,
                    snapshot=snapshot.id,
                    snapshot_path=snapshot.path,
                    n_rows=snapshot.n_rows,
                    n_train=trained.n_train,
                    artifact=trained.artifact,
                    sha256=trained.sha256,
                    profile=profiled.path,
                    profile_hash=profiled.hash,
                    metrics=trained.metrics | judged,
                    parent=self._champion,
                    how=trained.how,
                    learnt_to_s=trained.learnt_to_s,
                    parameters=trained.parameters,
                )
            )

        return self._kept("register", Version, keep)

    def _inputs(self) -> AbstractContextManager[Inputs]:
        """The files that were given, or the model's."""
        if self._sources:
            return nullcontext(Inputs(self._sources, Topics()))

        def told(share: float) -> None:
            self._progress("snapshot", share, "")

        return inputs.to_train(self._config, self.job.model, self.job.started_s, told)

    def _fit(self) -> Trained:
        began_s = time.monotonic()
        rows = self._rows()
        learnt = self._learn(rows)
        metrics = train.hold_out_metrics(learnt.model, rows, learnt.n_train) | learnt.metrics
        folder = self._config.state.folder / "artifacts" / self.job.model / self.job.id
        beside = folder.with_name(f".{self.job.id}.{os.getpid()}")
        sha256 = artifact.save(learnt.model, beside)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it noted the result
        beside.rename(folder)
        return Trained(
            artifact=str(folder),
            sha256=sha256,
            n_train=learnt.n_train,
            seconds=time.monotonic() - began_s,
            metrics=metrics,
            how=learnt.how,
            learnt_to_s=learnt.learnt_to_s,
            parameters=learnt.parameters,
        )

    def _dataset(self, snapshot: Snapshot, rules: Sequence[str] = ()) -> lineage.Dataset:
        """A snapshot as lineage names it."""
        columns = {**self.recipe.data.features, "$y": "label", "$time": "event time", "$id": "id"}
        return lineage.Dataset(Path(snapshot.path), snapshot.id, snapshot.n_rows, columns, rules)

    def _learn(self, rows: Rows) -> Learnt:
        champion = None
        if self.job.action == "recalibrate" or (self._champion and self.recipe.training.retraining != "full"):
            learnt_to_s = (
                None if self._champion is None else self._registry.get(self.job.model, self._champion).learnt_to_s
            )
            champion = train.Champion(self._model(self._champion), learnt_to_s)
            if self.job.action == "recalibrate":
                return train.recalibrate(rows, self.recipe, champion)
        return train.train(
            rows,
            self.recipe,
            champion=champion,
            folder=self.folder,
            progress=self._note_search,
        )

    def _note_search(self, searched: Searched) -> None:
        write(self.folder / SEARCHED, msgspec.json.encode(searched))
        self._progress("train", searched.share, searched.said)

    def _judge(self) -> gates.Verdict:
        trained, rows = self.train(), self._rows()
        challenger = artifact.load(Path(trained.artifact), trained.sha256)
        held = rows.part(slice(trained.n_train, None))
        scores = challenger.score(held.columns)
        calibration = gates.calibration(scores, held.y)
        if self._champion is None:
            said = (
                f"promotable: there is no champion to compare with; roc_auc on {len(held.y):,} held-out rows "
                f"{value(roc_auc, scores, held.y):.4f}."
            )
            return gates.Verdict("roc_auc", True, (), calibration, said)
        champion = self._model(self._champion)
        found = read_result(self.folder / CHAMPION_ROWS, ChampionRows) or ChampionRows(self.snapshot().path)
        if found.lacking:
            return gates.Verdict("roc_auc", False, (), calibration, why_not(self._champion, found.lacking))
        theirs = read_champion_rows(found, champion.encoding.kinds, rows).part(slice(trained.n_train, None))
        segments = {name: held.columns[name] for name in self.recipe.gate.segments}
        return gates.judge(
            gates.Sample(scores, champion.score(theirs.columns), held.y, segments),
            self._old_sample(challenger, champion, self._champion),
            self.recipe.gate,
            kind=self.job.kind,
            recalibrates=self.job.action == "recalibrate",
            seed=self.recipe.model.seed,
        )

    def _old_sample(self, challenger: Model, champion: Model, version: int) -> gates.Sample | str | None:
        """The champion's own hold-out; None where it has none, or of one class; why the challenger cannot be judged."""
        parent = self._registry.get(self.job.model, version)
        if not parent.snapshot_path:
            return None
        theirs, ours = champion.encoding.kinds, challenger.encoding.kinds
        if lacking := [name for name, kind in ours.items() if theirs.get(name) != kind]:
            return f"its rows have no {', '.join(lacking)}"
        old = read_rows(Path(parent.snapshot_path), theirs).part(slice(parent.n_train, None))
        if len(np.unique(old.y)) < 2:
            return None
        return gates.Sample(challenger.score(old.columns), champion.score(old.columns), old.y, {})

    def _model(self, version: int | None) -> Model:
        if version is None:
            raise DataError("there is no champion to start from; train one with `modelops train`.")
        known = self._registry.get(self.job.model, version)
        return artifact.load(Path(known.artifact), known.sha256)

    def _rows(self) -> Rows:
        return read_rows(Path(self.snapshot().path), self.recipe.data.features)

    def _kept(self, step: str, shape: type[Result], make: Callable[[], Result]) -> Result:
        """A step's result: from its file, or made and then kept."""
        path = self.folder / f"{step}.json"
        found = read_result(path, shape)
        if found is None:
            found = make()
            write(path, msgspec.json.encode(found))
        return found


def _rows_of(snapshot: Snapshot) -> tuple[int, int, float, float]:
    """Tells whether two snapshots since the same time hold the same rows, without reading them."""
    return snapshot.n_rows, snapshot.n_positive, snapshot.from_s, snapshot.to_s
