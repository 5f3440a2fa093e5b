"""Ways to spoil JSON, parquet and raw bytes; each is a pure function of a random generator."""

import json
import random

import numpy as np
import pyarrow as pa

DEEP, DEEPEST = "@deep@", "@deepest@"
"""Stand for nested brackets: so many that parsers still follow, and more than any does."""
_DEPTHS = {DEEP: 900, DEEPEST: 100_000}
HUGE = 2**1000
STRANGE = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "0",
    "-1",
    "a" * 10_000,
    "a" * 300,
    "../../outside",
    "/etc/passwd",
    "x\0y",
    "\ud800",
    "\u202e☃\U0001d518\x1b[31m",
    "{episode_index.__class__}",
    "{chunk_index:999999999d}",
    "float32",
    "<U100000",
    "O",
    "image",
    "video",
    "string",
    [],
    [[]],
    {},
    {"": {}},
    [None],
    [1, "a", [2]],
    ["a"] * 3,
    list(range(300)),
    [2**40],
    [2**20, 2**20],
    [-1],
    [0],
    DEEP,
    DEEPEST,
]


def spoil_json(rng: random.Random, content: bytes, *, is_lines: bool) -> bytes:
    """Change a few values, keys or lines."""
    value = [json.loads(line) for line in content.splitlines()] if is_lines else json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _spoil_node(rng, value)
    if is_lines and isinstance(value, list):
        text = "\n".join(_text(rng, row) for row in value)
    else:
        text = _text(rng, value)
    return text.encode("utf-8", "surrogatepass")


def _text(rng: random.Random, value) -> str:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for token, depth in _DEPTHS.items():
        text = text.replace(json.dumps(token), "[" * depth + "]" * depth)
    return text


def _spoil_node(rng: random.Random, value):
    places = list(_places(value))
    if not places:
        return rng.choice(STRANGE)
    near = [place for place in places if place[0] is value]
    holder, key = rng.choice(near if rng.random() < 0.3 else places)
    action = rng.randrange(8)
    if action <= 2:
        holder[key] = rng.choice(STRANGE)
    elif action == 3:
        del holder[key]
    elif action == 4:
        other, where = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[where]))
    elif action == 5:
        holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
    elif action == 6 and isinstance(holder, dict):
        strange = rng.choice(STRANGE)
        holder[strange if isinstance(strange, str) else f"{key}x"] = holder.pop(key)
    elif action == 6:
        holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(holder[key])))
    elif isinstance(holder[key], int | float):
        half = 1.5 if abs(holder[key]) < HUGE else 15  # a float of it may not exist
        holder[key] = rng.choice(
            (-holder[key], holder[key] + 1, holder[key] * half, holder[key] - 1)
        )
    else:
        holder[key] = rng.choice(STRANGE)
    return value


def _places(value):
    """Every (container, key) inside a JSON value."""
    todo = [value]
    while todo:
        holder = todo.pop()
        if isinstance(holder, dict):
            keys = list(holder)
        elif isinstance(holder, list):
            keys = list(range(len(holder)))
        else:
            continue
        for key in keys:
            yield holder, key
            todo.append(holder[key])


def spoil_table(rng: random.Random, table: pa.Table) -> pa.Table:
    """Change columns, types, values, rows or the schema's metadata."""
    for _ in range(rng.choice((1, 1, 2))):
        spoiled = rng.choice((_drop, _rename, _retype, _values, _rows, _metadata))(rng, table)
        table = table if spoiled is None else spoiled
    return table


def _drop(rng: random.Random, table: pa.Table) -> pa.Table | None:
    return table.drop([rng.choice(table.column_names)]) if table.num_columns > 1 else None


def _rename(rng: random.Random, table: pa.Table) -> pa.Table:
    names = list(table.column_names)
    names[rng.randrange(len(names))] = rng.choice(("", "x", "a/b", names[0], "\x1b[31m", "task"))
    return table.rename_columns(names)


def _retype(rng: random.Random, table: pa.Table) -> pa.Table | None:
    place = rng.randrange(table.num_columns)
    kind = rng.choice(
        (
            pa.string(),
            pa.binary(),
            pa.float64(),
            pa.float16(),
            pa.int8(),
            pa.uint64(),
            pa.bool_(),
            pa.large_string(),
            pa.timestamp("ns"),
            pa.list_(pa.string()),
            pa.struct({"a": pa.int64()}),
            pa.dictionary(pa.int32(), pa.string()),
            pa.null(),
        )
    )
    name = table.column_names[place]
    try:
        column = table[name].cast(kind)
    except (pa.ArrowException, ValueError):
        column = pa.nulls(len(table), kind)
    return table.set_column(place, name, column)


def _values(rng: random.Random, table: pa.Table) -> pa.Table | None:
    place = rng.randrange(table.num_columns)
    name = table.column_names[place]
    values = table[name].to_pylist()
    strange = [v for v in STRANGE if v not in (DEEP, DEEPEST)]
    for _ in range(rng.choice((1, 1, len(values)))):
        if values:
            values[rng.randrange(len(values))] = rng.choice(strange)
    try:
        column = pa.array(values, table[name].type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        try:
            column = pa.array([None if v is None else str(v) for v in values])
        except (pa.ArrowException, ValueError):
            return None
    return table.set_column(place, name, column)


def _rows(rng: random.Random, table: pa.Table) -> pa.Table:
    order = list(range(len(table)))
    action = rng.randrange(4)
    if action == 0:
        rng.shuffle(order)
    elif action == 1:
        order = order[: rng.randrange(len(order) + 1)]
    elif action == 2:
        order += order
    else:
        order = order[rng.randrange(len(order) + 1) :]
    return table.take(pa.array(order, pa.int64()))


def _metadata(rng: random.Random, table: pa.Table) -> pa.Table:
    pandas = rng.choice((b"", b"[]", b"{}", b'{"index_columns": 3}', b"[" * 100_000, b"\xff"))
    extension = {
        "ARROW:extension:name": rng.choice(("arrow.py_extension_type", "arrow.json", "x")),
        "ARROW:extension:metadata": "cos\nsystem\n(S'touch marker'\ntR.",
    }
    place = rng.randrange(table.num_columns)
    field = table.schema.field(place).with_metadata(extension)
    schema = table.schema.set(place, field).with_metadata({b"pandas": pandas})
    return pa.Table.from_arrays(table.columns, schema=schema)


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """Cut, flip, repeat, insert or clear bytes."""
    data = bytearray(content)
    if not data:
        return b"\0"
    first = rng.randrange(len(data))
    last = min(first + rng.choice((1, 4, 16, 200)), len(data))
    action = rng.randrange(6)
    if action == 0:
        return bytes(data[:first])
    if action == 1:
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif action == 2:
        data[first:last] = bytes(last - first)
    elif action == 3:
        data[first:first] = data[first:last]
    elif action == 4:
        data[first:first] = np.random.default_rng(rng.randrange(2**32)).bytes(last - first)
    else:
        data[first] ^= 1 << rng.randrange(8)
    return bytes(data)
