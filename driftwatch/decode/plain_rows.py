"""Bodies of a plain form, straight into events: `{"instances": [[1.5, "DE"]]}`, `{"predictions": [0.2]}`, flat tensors.

They are decoded with the schema's types, as the events of the JSON decoder are. A body of another form, or with a value
that those do not take, goes the long way: rows of any values, written as JSON events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from driftwatch.decode.layout import FIRST_COLUMN, ID, Leaf, Node
from driftwatch.records import Column, Schema

MAX_ROWS = 10_000


class Ready(NamedTuple):
    """An event that needs no decoding, and what it was made of: its id and values by column."""

    event: msgspec.Struct
    id: str
    names: tuple[str, ...]
    values: tuple[Any, ...]


class Events(Sequence[bytes]):
    """Single events; one that is ready is written as JSON when somebody asks for its bytes."""

    def __init__(self, items: list[bytes | Ready], write: Callable[[Ready], bytes]) -> None:
        self.items, self._write = items, write

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item = self.items[index]
        return self._write(item) if isinstance(item, Ready) else item


@dataclass(frozen=True, slots=True)
class Side:
    """Which columns plain rows hold, and what makes an event of an id and their values."""

    names: tuple[str, ...]
    make: Callable[[tuple[Any, ...]], msgspec.Struct]


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Rows of one body, each the values of the side's columns."""

    side: Side
    values: list[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.values)

    def event(self, at: int, id: str) -> Ready:
        """Row `at` as an event."""
        values = self.values[at]
        return Ready(self.side.make((id, *values)), id, self.side.names, values)

    def named(self) -> list[dict[str, Any]]:
        """The rows' values by the names of their columns."""
        return [dict(zip(self.side.names, values, strict=True)) for values in self.values]


class PlainBodies:
    """Reads bodies with the types of a schema's columns; `root`: of its layout."""

    def __init__(self, schema: Schema, root: Node) -> None:
        leaves = {leaf.slot: leaf for leaf in root.leaves()}
        slots = {column: slot for slot, column in enumerate(schema.columns, FIRST_COLUMN)}

        def side(columns: Sequence[Column]) -> Side:
            return Side(tuple(c.name for c in columns), root.maker((ID, *(slots[c] for c in columns))))

        asked = [c for c in schema.columns if c.group == "features"]
        answered = [c for c in schema.columns if c.group == "prediction"]
        self._asked, self._answered, self._both = side(asked), side(answered), side(asked + answered)
        self._requests = self._responses = None
        if asked:
            features = [(c.name, leaves[slots[c]]) for c in asked]
            self._requests = _Bodies("instances", "inputs", features, _instance(features))
        if answered:
            prediction = (answered[0].name, leaves[slots[answered[0]]])
            self._responses = _Bodies("predictions", "outputs", [prediction], prediction[1].typed)

    def of_request(self, data: bytes) -> PlainRows | None:
        """One row an instance; None: it is not of this form."""
        found = None if self._requests is None else self._requests.rows(data)
        if found is None:
            return None
        return PlainRows(self._asked, [row if type(row) is tuple else astuple(row) for row in found])

    def of_response(self, data: bytes) -> PlainRows | None:
        """One row a prediction; None: it is not of this form."""
        found = None if self._responses is None else self._responses.rows(data)
        if found is None:
            return None
        return PlainRows(self._answered, [row if type(row) is tuple else (row,) for row in found])

    def joined(self, request: PlainRows, response: PlainRows) -> PlainRows:
        """Rows that were asked and answered; both have as many."""
        values = [asked + answered for asked, answered in zip(request.values, response.values, strict=True)]
        return PlainRows(self._both, values)


class _Tensor(msgspec.Struct, gc=False):
    shape: tuple[int, ...]
    data: list[Any]
    name: str = ""


class _Bodies:
    """Bodies of one side: rows under the V1 key, each a V1 `item` (one value, a list or an object), or V2 tensors."""

    def __init__(self, v1: str, v2: str, columns: Sequence[tuple[str, Leaf]], item: Any) -> None:
        self._names = [name for name, _ in columns]
        row = tuple.__class_getitem__(tuple(leaf.typed for _, leaf in columns))
        # A struct around them: of any other type msgspec would work out anew, at each call, what it is.
        self._rows: Any = msgspec.defstruct("Rows", [("f0", list.__class_getitem__(row))], array_like=True, gc=False)
        fields = [("values", _rows_of(item) | msgspec.UnsetType, msgspec.UNSET), ("tensors", list[_Tensor], ())]
        body = msgspec.defstruct("Body", fields, rename={"values": v1, "tensors": v2}, gc=False)
        self._decode = msgspec.json.Decoder(body).decode

    def rows(self, data: bytes) -> list[Any] | None:
        """V1 items, or tuples of the columns' values; None: the body is not of this form."""
        try:
            body: Any = self._decode(data)
            if isinstance(body.values, list):
                return body.values
            rows = self._of_tensors(body.tensors)
            return None if rows is None else msgspec.convert((rows,), self._rows).f0
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the long way says what it is
            return None

    def _of_tensors(self, tensors: Sequence[_Tensor]) -> list[Any] | None:
        """Rows of one tensor that holds all columns, or of a tensor a column; None: they lie otherwise."""
        width = len(self._names)
        if len(tensors) == 1 and (width == 1 or tensors[0].name not in self._names):
            shape, data = tensors[0].shape, tensors[0].data
            n = len(data) // width
            if n > MAX_ROWS or len(data) != n * width or not (shape == (n, width) or (width == 1 and shape == (n,))):
                return None
            return [data[i : i + width] for i in range(0, n * width, width)]
        by_name = {tensor.name: tensor for tensor in tensors}
        if not by_name.keys() >= set(self._names):
            return None
        found = [by_name[name] for name in self._names]
        columns = [tensor.data for tensor in found]
        n = len(columns[0])
        if n > MAX_ROWS or set(map(len, columns)) != {n} or not {tensor.shape for tensor in found} <= {(n,), (n, 1)}:
            return None
        return list(zip(*columns, strict=True))


def _instance(features: Sequence[tuple[str, Leaf]]) -> Any:
    """What an instance is decoded as: a list in the order of the features, or an object by their names.

    No object where a feature may lie outside of any container: then one that is not there is not missing but absent.
    """
    as_list: Any = tuple.__class_getitem__(tuple(leaf.typed for _, leaf in features))
    if any(leaf.default is leaf.absent for _, leaf in features):
        return as_list
    fields = [(f"f{i}", leaf.typed, leaf.default) for i, (_, leaf) in enumerate(features)]
    names = {f"f{i}": name for i, (name, _) in enumerate(features)}
    return as_list | msgspec.defstruct("Instance", fields, rename=names, frozen=True, eq=False, gc=False)


def _rows_of(item: Any) -> Any:
    return Annotated[list[item], msgspec.Meta(max_length=MAX_ROWS)]
