"""scikit-learn's models as ONNX graphs in double precision: one input `x` (n, features), one output `p` (n, 1).

skl2onnx cannot write them: it refuses the indicators of missing values that the logistic model has, takes no notice of
the categories of histogram gradient boosting, and rounds thresholds to single precision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

OPSET, ML_OPSET, IR_VERSION = 18, 5, 10
LEQ = 0  # the mode of a node: the true branch where x <= split


class _Graph:
    """Nodes and constants in the order in which they are added; each is named by its number."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: object, dtype: type = np.float64) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def columns(self, numbers: Sequence[int]) -> str:
        """Columns of the input."""
        return self.add("Gather", "x", self.constant(list(numbers), np.int64), axis=1)

    def doubles(self, flags: str) -> str:
        """1.0 where true."""
        from onnx import TensorProto

        return self.add("Cast", flags, to=TensorProto.DOUBLE)

    def one_hot(self, number: int, categories: np.ndarray) -> str:
        """A column for each category of an input's column, (n, categories)."""
        column = self.columns([number])
        known = categories[~np.isnan(categories)]
        found = self.doubles(self.add("Equal", column, self.constant(known[None, :])))
        if len(known) == len(categories):
            return found
        return self.add("Concat", found, self.doubles(self.add("IsNaN", column)), axis=1)

    def bytes(self, n_features: int) -> bytes:
        from onnx import TensorProto, checker, helper

        read = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, n_features])
        written = helper.make_tensor_value_info("p", TensorProto.DOUBLE, [None, 1])
        graph = helper.make_graph(self.nodes, "model", [read], [written], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data


def logistic(pipeline: Any) -> bytes:
    """The graph of our pipeline of imputer, scaler, one-hot encoder and logistic regression."""
    graph, parts = _Graph(), []
    for name, transformer, numbers in pipeline[0].transformers_:
        if name == "numeric":
            parts.append(_scaled(graph, transformer, numbers))
        elif name == "categorical":
            pairs = zip(numbers, transformer.categories_, strict=True)
            parts += [graph.one_hot(number, np.asarray(known, float)) for number, known in pairs]
    regression = pipeline[-1]
    matrix = graph.add("Concat", *parts, axis=1)
    weighted = graph.add("MatMul", matrix, graph.constant(regression.coef_.T))
    graph.add("Sigmoid", graph.add("Add", weighted, graph.constant(regression.intercept_)), output="p")
    return graph.bytes(pipeline.n_features_in_)


def boosting(estimator: Any) -> bytes:
    """The graph of a HistGradientBoostingClassifier of two classes.

    A split by categories becomes a column that is 0 where a row goes left: the rows' one-hot codes times a matrix.
    """
    graph = _Graph()
    predictors = [predictor for (predictor,) in estimator._predictors]
    is_categorical = np.zeros(estimator.n_features_in_, bool)
    known: list[np.ndarray] = []
    if estimator._preprocessor is not None:
        is_categorical = np.asarray(estimator.is_categorical_, bool)
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        known = [np.asarray(found, float)[~np.isnan(np.asarray(found, float))] for found in encoder.categories_]
    numbers = np.flatnonzero(is_categorical)  # the trees count categorical features first
    places = {len(numbers) + i: i for i in range(int((~is_categorical).sum()))}
    splits = _Splits(known, len(places))
    trees = _trees(predictors, places, splits, float(np.ravel(estimator._baseline_prediction)[0]))
    parts = [graph.columns(np.flatnonzero(~is_categorical).tolist())] if places else []
    if splits.columns:
        coded = []
        for number, categories in zip(numbers, known, strict=True):
            found = graph.one_hot(int(number), categories)
            there = graph.add("ReduceSum", found, graph.constant([1], np.int64), keepdims=1)
            coded += [found, graph.add("Sub", graph.constant(1.0), there)]
        parts.append(graph.add("MatMul", graph.add("Concat", *coded, axis=1), graph.constant(splits.matrix())))
    parts = parts or ["x"]  # no split at all: the trees look at nothing
    matrix = graph.add("Concat", *parts, axis=1)
    raw = graph.add("TreeEnsemble", matrix, domain="ai.onnx.ml", **trees)
    graph.add("Sigmoid", raw, output="p")
    return graph.bytes(estimator.n_features_in_)


class _Splits:
    """The distinct splits by categories: a column of the matrix each, after `first` columns of numbers."""

    def __init__(self, known: Sequence[np.ndarray], first: int) -> None:
        self.columns: dict[tuple[int, bytes], int] = {}
        self._starts = np.cumsum([0, *(len(categories) + 1 for categories in known)])  # one more: missing
        self._first = first

    def place(self, feature: int, is_left: np.ndarray) -> int:
        """The column of a split: of a feature's categories, and of a missing one, those that go left."""
        key = feature, is_left.tobytes()
        return self._first + self.columns.setdefault(key, len(self.columns))

    def matrix(self) -> np.ndarray:
        """(codes, splits): 1 where a code goes right."""
        found = np.zeros((self._starts[-1], len(self.columns)))
        for (feature, is_left), j in self.columns.items():
            found[self._starts[feature] : self._starts[feature + 1], j] = ~np.frombuffer(is_left, bool)
        return found

    def n_codes(self, feature: int) -> int:
        """How many categories of a feature there are, without the missing one."""
        return int(self._starts[feature + 1] - self._starts[feature]) - 1


def _scaled(graph: _Graph, transformer: Any, numbers: Sequence[int]) -> str:
    """Numbers with means for what is missing, flags of what was, all scaled."""
    imputer, scaler = transformer
    has_mean = ~np.isnan(imputer.statistics_)  # a column that had no value is left out
    parts = []
    if has_mean.any():
        found = graph.columns(np.asarray(numbers)[has_mean].tolist())
        means = graph.constant(imputer.statistics_[has_mean][None, :])
        parts.append(graph.add("Where", graph.add("IsNaN", found), means, found))
    if len(imputer.indicator_.features_):
        flagged = graph.columns(np.asarray(numbers)[imputer.indicator_.features_].tolist())
        parts.append(graph.doubles(graph.add("IsNaN", flagged)))
    matrix = graph.add("Concat", *parts, axis=1)
    centred = graph.add("Sub", matrix, graph.constant(scaler.mean_[None, :]))
    return graph.add("Div", centred, graph.constant(scaler.scale_[None, :]))


def _trees(predictors: Sequence[Any], places: dict[int, int], splits: _Splits, base: float) -> dict[str, Any]:
    """The attributes of TreeEnsemble. The sum begins with `base`, as a tree of one leaf."""
    from onnx import numpy_helper

    features: list[int] = []
    values: list[float] = []
    missing: list[int] = []
    roots: list[int] = []
    branches: dict[bool, list[tuple[int, bool]]] = {True: [], False: []}  # (number of the node or leaf, is it a leaf)
    leaves: list[float] = []

    def leaf(value: float) -> tuple[int, bool]:
        leaves.append(value)
        return len(leaves) - 1, True

    def alone(value: float) -> None:
        """A tree without a split: both branches are its leaf."""
        roots.append(len(features))
        features.append(0)
        values.append(0.0)
        missing.append(0)
        for way in (True, False):
            branches[way].append(leaf(value))

    alone(base)
    for predictor in predictors:
        nodes = predictor.nodes
        if nodes[0]["is_leaf"]:
            alone(float(nodes[0]["value"]))
            continue
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        numbers = {int(at): len(features) + i for i, at in enumerate(inner)}
        roots.append(len(features))
        for at in inner:
            node = nodes[at]
            feature = int(node["feature_idx"])
            if node["is_categorical"]:
                bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
                codes = np.arange(splits.n_codes(feature))
                is_left = [*((bits[codes // 32] >> (codes % 32)) & 1).astype(bool), bool(node["missing_go_to_left"])]
                features.append(splits.place(feature, np.array(is_left)))
                values.append(0.5)
            else:
                features.append(places[feature])
                values.append(float(node["num_threshold"]))
            missing.append(int(node["missing_go_to_left"]))
            for way, name in ((True, "left"), (False, "right")):
                child = int(node[name])
                branches[way].append(
                    leaf(float(nodes[child]["value"])) if nodes[child]["is_leaf"] else (numbers[child], False)
                )
    return {
        "aggregate_function": 1,  # the sum
        "post_transform": 0,
        "n_targets": 1,
        "tree_roots": roots,
        "nodes_featureids": features,
        "nodes_splits": numpy_helper.from_array(np.array(values)),
        "nodes_modes": numpy_helper.from_array(np.full(len(features), LEQ, np.uint8)),
        "nodes_missing_value_tracks_true": missing,
        "nodes_truenodeids": [number for number, _ in branches[True]],
        "nodes_trueleafs": [int(is_leaf) for _, is_leaf in branches[True]],
        "nodes_falsenodeids": [number for number, _ in branches[False]],
        "nodes_falseleafs": [int(is_leaf) for _, is_leaf in branches[False]],
        "leaf_targetids": [0] * len(leaves),
        "leaf_weights": numpy_helper.from_array(np.array(leaves)),
    }
