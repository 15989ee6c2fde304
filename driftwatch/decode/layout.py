"""The struct types that an event is decoded into, made from the paths of a schema.

Every inner place of the paths is a struct, every column (and id, time, model, version, label) a leaf. A batch of
structs is transposed into columns of leaf values without a Python loop over events.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from operator import is_, itemgetter
from typing import Annotated, Any, Literal, Union

import msgspec
import numpy as np
from msgspec.structs import astuple

from driftwatch.decode import cells
from driftwatch.errors import ConfigError
from driftwatch.records import Column, Mark, Schema

ID, TIME, MODEL, VERSION, LABEL = range(5)  # the slots of the leaves that are no columns
FIRST_COLUMN = 5  # the slot of the schema's first column; the others follow in their order


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of an event. `missing`, `invalid`, `absent`: what stands for it where its container is no object."""

    slot: int
    typed: Any  # what the typed decoder takes
    wide: Any  # what the wide decoder takes
    read: Callable[[object], object]  # what stands in the events for any JSON value
    default: object  # where its key is absent
    missing: object = None
    invalid: object = None
    absent: object = None
    is_aside: bool = False  # a field, which makes no record by itself

    @property
    def holds_columns(self) -> bool:
        """Whether this is the value of a column that makes a record."""
        return self.slot >= FIRST_COLUMN and not self.is_aside


@dataclass(frozen=True, slots=True)
class Node:
    """A place of an event that holds others: its keys, what lies there, and the two structs that hold them."""

    keys: tuple[str, ...]
    children: "tuple[Node | Leaf, ...]"
    typed: type[msgspec.Struct]
    wide: type[msgspec.Struct]
    missing: msgspec.Struct  # what stands for it where it is null
    invalid: msgspec.Struct  # … no object
    absent: msgspec.Struct  # … not there
    settles: tuple[Callable[[Any], object], ...]  # what `settled` does with each child
    holds_columns: bool
    may_be_silent: bool  # though it is there, no column may be

    def read(self, value: object) -> msgspec.Struct:
        """The struct of any JSON value, field by field."""
        if value is None:
            return self.missing
        if not isinstance(value, dict):
            return self.invalid
        return self.wide(*[_child(c, value, key) for key, c in zip(self.keys, self.children, strict=True)])

    def settled(self, event: msgspec.Struct | None) -> msgspec.Struct:
        """An event of the wide decoder with every value as `read` makes it of a document."""
        if event is None:
            return self.missing
        if event is self.absent:
            return self.absent
        return self.wide(*[settle(v) for settle, v in zip(self.settles, astuple(event), strict=True)])

    def parts(self, structs: Sequence[Any]) -> list[Sequence[Any]]:
        """What each child is in these structs. A struct that is None stands for null."""
        if not structs:
            return [()] * len(self.children)
        if None in structs:
            structs = [self.missing if s is None else s for s in structs]
        return list(zip(*map(astuple, structs), strict=True))

    def silent(self, parts: Sequence[Sequence[Any]]) -> np.ndarray:
        """Which structs say nothing of any column, bool (n,); of `parts` of them."""
        n = len(parts[0])
        found, at = np.zeros(n, bool), np.arange(n)  # which may be
        for child, values in zip(self.children, parts, strict=True):
            if not child.holds_columns or not len(at):
                continue
            theirs = values if len(at) == n else chosen([values], at)[0]
            # What is absent is one and the same object everywhere: the default that the decoder fills in.
            n_absent = theirs.count(child.absent)
            if n_absent == len(theirs):
                continue
            inner = child if isinstance(child, Node) and child.may_be_silent else None
            if inner is None and not n_absent:
                return found
            here = np.fromiter(map(is_, theirs, repeat(child.absent)), bool, len(theirs))
            if inner is not None:
                inside = [i for i in np.flatnonzero(~here).tolist() if theirs[i] is not None]
                here[inside] = inner.silent(inner.parts([theirs[i] for i in inside]))
            at = at[here]
        found[at] = True
        return found

    def places(self, slots: Sequence[int]) -> list[int] | None:
        """Which of the children some slots are; None where they do not all lie here."""
        at = {child.slot: i for i, child in enumerate(self.children) if isinstance(child, Leaf)}
        return [at[slot] for slot in slots] if all(slot in at for slot in slots) else None

    def leaves(self) -> Iterator[Leaf]:
        """All leaves below."""
        for child in self.children:
            if isinstance(child, Node):
                yield from child.leaves()
            else:
                yield child

    def maker(self, slots: Sequence[int]) -> Callable[[tuple[Any, ...]], msgspec.Struct]:
        """What makes a struct of this node from the values of some slots; the others are as where no key is there."""
        at = {slot: i for i, slot in enumerate(slots)}
        order: list[tuple[int, int]] = []  # where each child comes from: the values, the constants or the inner structs
        constants: list[object] = []
        inner: list[Callable[[tuple[Any, ...]], msgspec.Struct]] = []
        for child in self.children:
            if isinstance(child, Leaf) and child.slot in at:
                order.append((0, at[child.slot]))
            elif isinstance(child, Node) and any(leaf.slot in at for leaf in child.leaves()):
                order.append((2, len(inner)))
                inner.append(child.maker(slots))
            else:
                order.append((1, len(constants)))
                constants.append(child.absent if isinstance(child, Node) else child.default)
        starts = (0, len(slots), len(slots) + len(constants))
        places = [starts[source] + i for source, i in order]
        pick = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
        typed, rest = self.typed, tuple(constants)
        if not inner:
            return lambda values: typed(*pick(values + rest))
        return lambda values: typed(*pick(values + rest + tuple([make(values) for make in inner])))

    def spread(self, parts: Sequence[Sequence[Any]], columns: list[Sequence[Any]]) -> None:
        """Put the values of each leaf into `columns`, at its slot; `parts` of the structs that hold them."""
        for child, values in zip(self.children, parts, strict=True):
            if isinstance(child, Node):
                child.spread(child.parts(values), columns)
            else:
                columns[child.slot] = values


def chosen(columns: Sequence[Sequence[Any]], at: np.ndarray) -> list[Sequence[Any]]:
    """Some rows of each column, at their places."""
    places = at.tolist()
    if len(places) < 2:  # an `itemgetter` of one is another thing
        return [tuple(column[i] for i in places) for column in columns]
    return list(map(itemgetter(*places), columns))


def _child(child: Node | Leaf, parent: dict[str, object], key: str) -> object:
    if key in parent:
        return child.read(parent[key])
    return child.absent if isinstance(child, Node) else child.default


def layout(schema: Schema) -> Node:
    """The root of an event. ConfigError where two paths are one, or one lies inside another."""
    claims = [("id", schema.id_path, _ID), ("time", schema.time_path, _TIME)]
    claims += [(c.name, c.path, _column_leaf(slot, c)) for slot, c in enumerate(schema.columns, FIRST_COLUMN)]
    if schema.label is not None:
        claims.append((schema.label.name, schema.label.path, _LABEL))
    leaves: dict[tuple[str, ...], Leaf] = {}
    for name, path, leaf in claims:
        if path in leaves:
            raise ConfigError(
                f"`path` must be of one column only; got {'.'.join(path)!r} for {name!r} and another."
                " Give each feature, the prediction, id and time a path of its own."
            )
        leaves[path] = leaf
    # A column may be called model, version or label (of a car, say): then the event states none.
    leaves.setdefault(("model",), Leaf(MODEL, _NAME, _NAME, _name, schema.model))
    leaves.setdefault(("version",), Leaf(VERSION, _NAME, _NAME, _name, schema.version))
    if schema.label is None:
        leaves.setdefault(("label",), _LABEL)
    return _node(leaves, ())


def _node(leaves: dict[tuple[str, ...], Leaf], prefix: tuple[str, ...]) -> Node:
    """The node at `prefix`; `leaves` by their path from there."""
    inside: dict[str, dict[tuple[str, ...], Leaf]] = {}
    for path, leaf in leaves.items():
        if not path:
            raise ConfigError(
                f"`path` must not lie inside another; got {'.'.join(prefix)!r} and a path that goes on from it."
                " Name the innermost values only."
            )
        inside.setdefault(path[0], {})[path[1:]] = leaf
    children = [group[()] if group.keys() == {()} else _node(group, (*prefix, key)) for key, group in inside.items()]
    return _with_structs(tuple(inside), tuple(children))


def _with_structs(keys: tuple[str, ...], children: tuple[Node | Leaf, ...]) -> Node:
    typed, wide = (
        _struct(
            keys,
            [
                (getattr(c, types) | None, c.absent) if isinstance(c, Node) else (getattr(c, types), c.default)
                for c in children
            ],
        )
        for types in ("typed", "wide")
    )
    missing, invalid, absent = (
        typed(*[getattr(c, state) for c in children]) for state in ("missing", "invalid", "absent")
    )
    settles = tuple(c.settled if isinstance(c, Node) else c.read for c in children)
    holds = any(c.holds_columns for c in children)
    may_be_silent = any(
        c.may_be_silent if isinstance(c, Node) else not c.holds_columns or c.default is c.absent for c in children
    )
    return Node(keys, children, typed, wide, missing, invalid, absent, settles, holds, may_be_silent)


def _struct(keys: tuple[str, ...], fields: list[tuple[Any, object]]) -> type[msgspec.Struct]:
    """A struct with a field (type, default) for each key."""
    names = [f"f{i}" for i in range(len(keys))]
    try:
        return msgspec.defstruct(
            "Place",
            [(name, *field) for name, field in zip(names, fields, strict=True)],
            rename=dict(zip(names, keys, strict=True)),
            frozen=True,  # only then does msgspec take an instance as a default
            eq=False,
            gc=False,  # JSON has no cycles
        )
    except ValueError as error:
        raise ConfigError(
            f"`path` must hold no quote, backslash or control character; got one of {cells.shown(list(keys))}."
            " Rename the field."
        ) from error


def _column_leaf(slot: int, column: Column) -> Leaf:
    missing, invalid, absent = _STAND_INS[column.kind]
    # Within a container that is there an absent feature is missing; an absent prediction says nothing anywhere.
    default = missing if column.group == "features" and len(column.path) > 1 else absent
    typed: object = float | None
    if column.kind == "categorical":
        typed = category_type(column.categories)
    elif column.kind == "embedding":
        if column.length < 1:
            raise ConfigError(
                f"`length` must be at least 1; got {column.length} for the embedding {column.name!r}."
                " Take it from the reference."
            )
        typed = list[float] | None
    return Leaf(slot, typed, Any, _READ[column.kind], default, missing, invalid, absent, column.group == "fields")


def has_texts_only(known: Sequence[str]) -> bool:
    """Whether the typed decoder takes nothing but the known categories, as strings."""
    return bool(_literals(known)) and not any(_is_number(c) or c in {"true", "false"} for c in known)


def category_type(known: Sequence[str]) -> object:
    """What the typed decoder takes in a categorical column.

    A known category is decoded to one string object for all rows, without a copy, whose hash is known. Another one, or
    one written as a value of a JSON type that the known ones do not hint at, sends its event to the wide decoder.
    """
    literals = _literals(known)
    if not literals:
        return str | int | float | bool | None
    kinds: list[object] = [Literal.__getitem__(literals), None]
    if any(_is_number(c) for c in known):
        kinds += [int, float]
    if not {"true", "false"}.isdisjoint(known):
        kinds.append(bool)
    return Union.__getitem__(tuple(kinds))


def _literals(known: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for c in known if cells.category(c) == c))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(value: object) -> object:
    """A model's or version's name as the struct decoders take it: unlike a category, "True" stays as it is."""
    return value if isinstance(value, str) else cells.category(value)


def _as_it_is(value: object) -> object:
    return value


def _read_id(value: object) -> object:
    return cells.bounded(value) if isinstance(value, str) else value


_STAND_INS: dict[str, tuple[object, object, object]] = {  # missing, invalid, absent
    "numeric": (cells.MISSING_NUMBER, cells.INVALID_NUMBER, cells.ABSENT_NUMBER),
    "categorical": (None, Mark.INVALID, Mark.ABSENT),
    "embedding": (None, Mark.INVALID, Mark.ABSENT),
}
_READ: dict[str, Callable[[object], object]] = {
    "numeric": cells.number,
    "categorical": cells.category,
    "embedding": cells.vector,
}
_ID = Leaf(ID, Annotated[str, msgspec.Meta(max_length=cells.LONGEST_TEXT)] | int, str | int, _read_id, None)
_TIME = Leaf(TIME, datetime | float | None, datetime | float | None, cells.read_time, None)
_NAME = str | int | None
_LABEL = Leaf(LABEL, Any, Any, _as_it_is, msgspec.UNSET, msgspec.UNSET, msgspec.UNSET, msgspec.UNSET)
