"""Whether a text is what LightGBM writes: its own reader trusts counts and indexes, and a wrong one ends the process.

The format is a header, a block of arrays for each tree, and notes that nothing is computed from.
"""

import re
from pathlib import Path

from modelops.errors import ArtifactError

NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|inf|nan)$")
END = "\nend of trees\n"
AT_NODES = (
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
)
AT_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
ONE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
OF_CATEGORIES = ("cat_boundaries", "cat_threshold")


def check(text: str, path: Path) -> None:
    """Raises ArtifactError, which says what is wrong, where a text is not a binary classifier's trees."""
    try:
        head, _, trees = text.partition("\n\n")
        body, end, _ = trees.partition(END)
        if not end:
            raise ValueError("it ends before its trees do")
        n_features, sizes = _head(head)
        blocks = _blocks(body.removeprefix("\n") + "\n", sizes)
        for number, block in enumerate(blocks):
            _tree(number, block, n_features)
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: must be LightGBM's text of one class: {error}. Do not use it.") from error


def _head(head: str) -> tuple[int, list[int]]:
    """The number of features, and the bytes of each tree."""
    lines = head.split("\n")
    found = dict(line.partition("=")[::2] for line in lines[1:])
    fixed = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1", "label_index": "0"}
    if lines[0] != "tree" or len(found) != len(lines) - 1:
        raise ValueError("its head is another's")
    for name, value in fixed.items():
        if found.get(name) != value:
            raise ValueError(f"{name} must be {value}; got {found.get(name)!r}")
    if found["objective"] != "binary sigmoid:1":
        raise ValueError(f"objective must be binary; got {found['objective']!r}")
    n_features = int(found["max_feature_idx"]) + 1
    for name in ("feature_names", "feature_infos"):
        if len(found[name].split(" ")) != n_features:
            raise ValueError(f"{name} must name {n_features} features")
    return n_features, [int(size) for size in found["tree_sizes"].split(" ")]


def _blocks(body: str, sizes: list[int]) -> list[str]:
    blocks, start = [], 0
    for size in sizes:
        blocks.append(body[start : start + size])
        start += size
    if min(sizes) <= 0 or start != len(body):
        raise ValueError(f"tree_sizes must add up to {len(body)}; they make {start}")
    return blocks


def _tree(number: int, block: str, n_features: int) -> None:
    lines = block.rstrip("\n").split("\n")
    arrays = {
        name: values.split(" ") if values else [] for name, _, values in (line.partition("=") for line in lines[1:])
    }
    if lines[0] != f"Tree={number}" or len(arrays) != len(lines) - 1:
        raise ValueError(f"tree {number} is not where it should be")
    n_leaves, n_cat = int(arrays["num_leaves"][0]), int(arrays["num_cat"][0])
    lengths = dict.fromkeys(ONE, 1) | dict.fromkeys(AT_LEAVES, n_leaves) | dict.fromkeys(AT_NODES, n_leaves - 1)
    if n_cat:
        lengths |= {"cat_boundaries": n_cat + 1, "cat_threshold": int(arrays["cat_boundaries"][-1])}
    if n_leaves == 1:  # of such a tree LightGBM writes no more than it reads
        lengths |= {name: min(n, len(arrays.get(name, ()))) for name, n in lengths.items() if name != "leaf_value"}
    found = {name: len(values) for name, values in arrays.items()}
    if found != lengths:
        raise ValueError(f"the arrays of tree {number} must have the lengths of its {n_leaves} leaves")
    if not all(NUMBER.match(value) for values in arrays.values() for value in values):
        raise ValueError(f"tree {number} must hold numbers only")
    if arrays.get("is_linear", ["0"]) != ["0"]:
        raise ValueError(f"tree {number} must not be linear")
    if n_leaves > 1:
        _links(number, arrays, n_features, n_cat)


def _links(number: int, arrays: dict[str, list[str]], n_features: int, n_cat: int) -> None:
    """Each node and leaf but the root is one node's child; features and sets of categories are there."""
    n_leaves = int(arrays["num_leaves"][0])
    children = sorted(int(child) for name in ("left_child", "right_child") for child in arrays[name])
    if children != [*range(-n_leaves, 0), *range(1, n_leaves - 1)]:
        raise ValueError(f"the children of tree {number} must make a tree")
    if not all(0 <= int(feature) < n_features for feature in arrays["split_feature"]):
        raise ValueError(f"tree {number} must split by the features that there are")
    boundaries = [int(value) for value in arrays.get("cat_boundaries", ["0"])]
    if boundaries[0] != 0 or boundaries != sorted(boundaries):
        raise ValueError(f"cat_boundaries of tree {number} must rise from 0")
    for kind, threshold in zip(arrays["decision_type"], arrays["threshold"], strict=True):
        if int(kind) & 1 and not (threshold.isdigit() and int(threshold) < n_cat):
            raise ValueError(f"tree {number} must split by the sets of categories that there are")
