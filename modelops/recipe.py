"""The recipe: which rows, which contract, which model, which gate and which rollout. One frozen, hashable YAML file."""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from modelops import settings
from modelops.settings import Duration, Section

Kind = Literal["numeric", "categorical"]
ModelKind = Literal[
    "hist_gradient_boosting", "lightgbm", "logistic", "river_alma", "river_logistic", "river_perceptron"
]
Format = Literal["native", "onnx"]
ONNX_KINDS = ("hist_gradient_boosting", "logistic")
UNSAFE_KINDS = ("river_gaussian_nb", "river_passive_aggressive")  # skops cannot keep them
Retraining = Literal["full", "incremental", "transfer"]
Strategy = Literal["recreate", "blue_green", "canary", "shadow"]


FeatureName = Annotated[str, Field(pattern=r"^[^$\"\\][^\"\\]*$", max_length=256)]
"""No quotes and no backslash, which a path into JSON cannot hold; `$` begins our own columns."""


class Label(Section):
    """What a label is, and when a window's labels are complete."""

    positive: str | int | bool = Field(default=1, description="The class whose probability is predicted.")
    wait: Duration = Field(default=0.0, description="How long after a prediction its label may come.")
    complete: float = Field(default=0.95, gt=0, le=1, description="Share of labels that completes a window earlier.")


class Data(Section):
    """The rows that are trained on: those of complete windows after the change, with their labels."""

    features: dict[FeatureName, Kind] = Field(min_length=1, description="Features in order: numeric or categorical.")
    label: Label = Label()
    window: Duration = Field(default=300.0, description="Length of the windows that must be complete.")
    min_rows: int = Field(default=1000, ge=20, description="Fewer labelled rows wait for more.")
    min_of_class: int = Field(default=50, ge=5, description="Fewer rows of either class wait for more.")
    max_rows: int = Field(default=200_000, ge=100, description="Of more rows the newest are taken.")
    patience: Duration = Field(default=86_400.0, description="How long a job waits for labels before it gives up.")
    order: Literal["etl", "elt"] = Field(
        default="etl", description="etl: columns are typed before they are stored; elt: after. The table is the same."
    )


class ColumnRule(Section):
    """What the contract asks of a column."""

    max_missing: float | None = Field(default=None, ge=0, le=1, description="Completeness: largest share missing.")
    between: tuple[float, float] | None = Field(default=None, description="Validity: smallest and largest value.")
    values: tuple[str, ...] | None = Field(default=None, description="Validity: the categories that there are.")


class Contract(Section):
    """Five dimensions of data quality; a breach stops the job."""

    columns: dict[str, ColumnRule] = Field(default={}, description="Completeness and validity, by column.")
    rows: tuple[int, int] | None = Field(default=None, description="Completeness: fewest and most rows.")
    positive_share: tuple[float, float] | None = Field(
        default=None, description="Accuracy: smallest and largest share of the positive class."
    )
    unique_ids: bool = Field(default=True, description="Consistency: no id stands twice.")
    max_age: Duration | None = Field(
        default=None, description="Timeliness: the newest row is at most that much older than the log's end."
    )


class Model(Section):
    """The model that is fitted."""

    kind: ModelKind = Field(
        default="hist_gradient_boosting",
        description="hist_gradient_boosting, lightgbm or logistic; river_* learn row by row.",
    )
    parameters: dict[str, int | float | str | bool | None] = Field(
        default={}, description="Parameters of the library's estimator."
    )
    seed: int = Field(default=0, ge=0, description="Everything random comes from it.")
    format: Format = Field(
        default="native",
        description="native: as the library keeps it; onnx: a model of scikit-learn as ONNX, which ONNX Runtime alone "
        "serves (extra `onnx`).",
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _is_kept_without_pickle(cls, kind: object) -> object:
        if kind in UNSAFE_KINDS:
            raise ValueError(
                f"`kind` must be a model that is kept without pickle; got {kind!r}, which skops cannot read back. "
                "Choose river_logistic."
            )
        return kind


class Dimension(Section):
    """The values that a search may give a parameter: a range, or a list."""

    between: tuple[int, int] | tuple[float, float] | None = Field(
        default=None, description="Smallest and largest; of two whole numbers only whole ones are tried."
    )
    log: bool = Field(default=False, description="Whether ratios count, as of a learning rate.")
    values: tuple[int | float | str | bool | None, ...] | None = Field(default=None, description="The values.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.between is None) == (not self.values):
            raise ValueError("must be given by one of `between` and `values`.")
        if self.between is not None and not (0 if self.log else -math.inf) < self.between[0] < self.between[1]:
            raise ValueError(f"`between` must rise, from above 0 with `log`; got {list(self.between)}.")
        return self


class Search(Section):
    """A search for the model's parameters, on the newest of the rows that are trained on; never on the hold-out."""

    space: dict[str, Dimension] = Field(min_length=1, description="The parameters and what they may be.")
    trials: int = Field(default=30, ge=1, description="Most trials.")
    budget: Duration = Field(default=120.0, description="No trial begins after so long.")
    validation: float = Field(default=0.25, gt=0, lt=0.9, description="Share of the rows that trials are judged on.")


class Training(Section):
    """How much is learnt anew, and the limits of the subprocess that trains."""

    retraining: Retraining = Field(
        default="full",
        description="full: from nothing; transfer: all rows, from the champion on; incremental: only those that it has "
        "not learnt.",
    )
    hold_out: float = Field(default=0.3, gt=0, lt=0.9, description="Share of the newest rows that the gate judges on.")
    deadline: Duration = Field(default=600.0, description="Longer is ended and counts as failed.")
    memory_mib: int = Field(default=4096, ge=256, description="More address space ends in a MemoryError.")
    threads: int = Field(
        default=1, ge=1, description="Threads of a fit. More help with many rows on an idle machine only."
    )
    attempts: int = Field(default=3, ge=1, description="A crash is tried again until so many.")


class Gate(Section):
    """When a challenger is better."""

    better_by: float = Field(default=0.005, description="On the new rows: the estimated gain must reach it.")
    old_margin: float = Field(default=0.02, ge=0, description="On the old hold-out: how much worse it may be.")
    judge_old: Literal["unless_concept", "always"] = Field(
        default="unless_concept",
        description="Under concept drift the old rows show a relation that no longer holds: shown, not judged.",
    )
    segment_margin: float = Field(
        default=0.03, ge=0, description="A segment that is shown to lose, and more than this, stops the challenger."
    )
    segments: tuple[str, ...] = Field(default=(), description="Categorical features whose values are segments.")
    min_segment_rows: int = Field(default=200, ge=50, description="A smaller segment is shown, not judged.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of each one-sided bound.")
    resamples: int = Field(default=1000, ge=200, description="Paired bootstrap resamples.")


class Rollout(Section):
    """How a challenger takes over, and what stops it."""

    strategy: Strategy = Field(default="canary", description="recreate, blue_green, canary or shadow.")
    steps: tuple[float, ...] = Field(default=(0.05, 0.25, 0.5), description="Shares of a canary, rising.")
    observe: Duration = Field(default=60.0, description="How long each step, or the shadow, is observed.")
    min_requests: int = Field(default=100, ge=0, description="Requests of the challenger that each step needs.")
    max_error_rate: float = Field(default=0.02, ge=0, le=1, description="Guardrail: share of failed requests.")
    max_latency_ratio: float = Field(
        default=3.0, ge=1, description="Guardrail: the challenger's p99 over the champion's, beyond 50 ms."
    )
    max_performance_loss: float = Field(
        default=0.05, ge=0, description="Guardrail: how much worse than the champion by the labels of live requests."
    )
    min_labels: int = Field(default=300, ge=20, description="Labelled live requests that performance needs.")
    watch: Duration = Field(default=60.0, description="After the switch the old one stays ready for so long.")
    prepare: Duration = Field(
        default=3600.0, description="How long servers and the profile's delivery may take before it is given up."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.steps or any(not 0 < s <= 1 for s in self.steps) or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"`steps` must be rising shares in (0, 1]; got {list(self.steps)}.")
        return self


class Profile(Section):
    """The reference profile that a version carries for driftwatch."""

    sizes: tuple[int, ...] = Field(
        default=(200, 1000, 5000), min_length=1, description="Window sizes, in rows, that are simulated."
    )
    prediction: str | None = Field(
        default="score", description="The prediction's feature name in driftwatch; null leaves it out."
    )
    label: str | None = Field(
        default="label",
        description="The label's name in driftwatch, `events.label.name`, which judges performance by it; null leaves "
        "it out, for a driftwatch without labels.",
    )
    mmd_rows: int = Field(default=1000, ge=0, description="Rows that driftwatch's MMD samples.")

    @model_validator(mode="after")
    def _label_has_a_prediction(self) -> Self:
        if self.label is not None and self.prediction in (None, self.label):
            raise ValueError(f"`label` must stand beside a `prediction` of another name; got {self.prediction!r}.")
        return self


class Recipe(Section):
    """How a model is made and brought into service."""

    data: Data
    contract: Contract = Contract()
    model: Model = Model()
    search: Search | None = Field(default=None, description="A search for the model's parameters; none by default.")
    training: Training = Training()
    gate: Gate = Gate()
    rollout: Rollout = Rollout()
    profile: Profile = Profile()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        known = set(self.data.features)
        for name in ("prediction", "label"):
            if getattr(self.profile, name) in known:
                got = getattr(self.profile, name)
                raise ValueError(f"`profile.{name}` must differ from the features; got {got!r}.")
        for place, names in (("contract.columns", self.contract.columns), ("gate.segments", self.gate.segments)):
            for name in names:
                if name not in known:
                    raise ValueError(f"`{place}` must name features; got {name!r}. There are {', '.join(known)}.")
        for name, rule in self.contract.columns.items():
            kind = self.data.features[name]
            if (rule.between if kind == "categorical" else rule.values) is not None:
                word = "values" if kind == "categorical" else "between"
                raise ValueError(f"`contract.columns.{name}` must be judged by `{word}`: {name!r} is {kind}.")
        for name in self.gate.segments:
            if self.data.features[name] != "categorical":
                raise ValueError(f"`gate.segments` must name categorical features; {name!r} is numeric.")
        return self

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        kind, how, search = self.model.kind, self.training.retraining, self.search
        if kind == "logistic" and how == "incremental":
            raise ValueError(
                "`training.retraining: incremental` must have a model that keeps what it learnt; logistic is fitted to "
                "the rows that it is given. Choose river_logistic or lightgbm, or `transfer`."
            )
        if self.model.format == "onnx" and kind not in ONNX_KINDS:
            raise ValueError(
                f"`model.format: onnx` must stand beside one of {', '.join(ONNX_KINDS)}; got {kind}, which is kept as "
                "its library does. Leave `format` out."
            )
        if self.model.format == "onnx" and how != "full":
            raise ValueError(
                f"`model.format: onnx` must stand beside `training.retraining: full`; got {how}: a graph cannot learn."
            )
        if search is None:
            return self
        if kind.startswith("river_") and how != "full":
            raise ValueError(
                f"`search` must be left out where {kind} goes on from the champion: it keeps its parameters."
            )
        if twice := sorted(search.space.keys() & self.model.parameters.keys()):
            raise ValueError(f"`search.space` and `model.parameters` must differ; both name {', '.join(twice)}.")
        if search.budget >= self.training.deadline:
            raise ValueError(
                f"`search.budget` must be less than `training.deadline`, {self.training.deadline:g} s; got "
                f"{search.budget:g} s. What is over is needed for the fit."
            )
        return self

    @property
    def hash(self) -> str:
        """Content hash: equal recipes have equal ones, however they are written."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path) -> Recipe:
    """Reads a recipe. Raises ConfigError with the place of every problem."""
    return settings.load(path, Recipe)
