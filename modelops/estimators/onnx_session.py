"""ONNX, run by ONNX Runtime (extra `onnx`): scikit-learn's models, served without scikit-learn and without pickle."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modelops.errors import ArtifactError, TrainingError
from modelops.recipe import Model, ModelKind

ARCHIVE = "model.onnx"
INSTALL = "Install the extra: `pip install 'driftwatch-sidecar[onnx]'`."


@dataclass(frozen=True)
class Session:
    """A graph that can be run, and its bytes."""

    data: bytes
    run: Any


def require() -> None:
    """Raises TrainingError where the libraries that write and run ONNX are not there."""
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        raise TrainingError(f"`model.format: onnx` must have {' and '.join(missing)}, which are not there. {INSTALL}")


def convert(estimator: Any, kind: ModelKind) -> Session:
    """A fitted estimator of scikit-learn as a session."""
    from modelops.estimators import onnx_graph

    data = onnx_graph.logistic(estimator) if kind == "logistic" else onnx_graph.boosting(estimator)
    return _session(data)


def version() -> str:
    """Name and version."""
    return f"onnxruntime {metadata.version('onnxruntime')}"


def fit(
    chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None = None
) -> Any:
    """A graph is not fitted: scikit-learn is, and then converted."""
    raise TrainingError("a model that is kept as ONNX cannot learn; train with `training.retraining: full`.")


def predict(estimator: Session, matrix: np.ndarray) -> np.ndarray:
    """Probabilities of the positive class."""
    (found,) = estimator.run.run(["p"], {"x": np.ascontiguousarray(matrix, float)})
    return np.asarray(found[:, 0], float)


def dumps(estimator: Session, path: Path) -> bytes:
    """The graph's bytes."""
    return estimator.data


def loads(data: bytes, path: Path) -> Session:
    """The session of a graph."""
    if find_spec("onnxruntime") is None:
        raise ArtifactError(f"{path}: must be run by onnxruntime, which is not there. {INSTALL}")
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        return _session(data)
    except (
        errors.EPFail,
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NoModel,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as error:
        said = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{path}: must be an ONNX graph: {said}. Do not use it.") from error


def _session(data: bytes) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # small batches: threads cost more than they bring
    options.log_severity_level = 4  # what matters comes as an error
    return Session(data, onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]))
