"""A table of sample lengths in, a plan on disk out: the only part of packing that touches files.

Any Parquet, CSV or JSONL table with `sample_id` and `num_tokens` can be packed, not only this project's own
`samples.parquet`. A fault of the table is one line that names the file, the column, the first offending value
and the way out, because a length that is silently taken for 0 shows up as an out-of-memory error days later.

The plan's name is its content: `plan-<fingerprint>` hashes the samples (in the order of their ids), what
decides their places, and `identity`, which says how the lengths were counted (tokenizer, chat template,
message and image settings). The same input gives the same files, byte for byte. Texts stay in Arrow: ten million
ids as Python's strings would take a gigabyte. JSONL is read line by line, so that a fault has a line number, and
takes seven times as long as Parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from corpus.config import PackingSettings
from corpus.errors import ConfigError
from corpus.records import PlanEntry, Rejected, content_id
from corpus.store import parquet_source, schema_of, write_json, write_records, write_table
from packing.cost import QWEN2_5_VL_7B, ModelDims
from packing.ids import RepeatedId
from packing.plan import PLAN_VERSION, IntArray, Plan, Samples, plan
from packing.report import PlanReport, make_report

SPLITS = ("train", "validation")
MAX_ID_BYTES = 1_024
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a column of a table of samples must hold."""

    name: str
    kind: Literal["text", "integer"]
    required: bool = False
    least: int = 0  # of an integer
    choices: tuple[str, ...] = ()  # of a text; () = any


COLUMNS = (
    Column(name="sample_id", kind="text", required=True),
    Column(name="num_tokens", kind="integer", required=True, least=1),
    Column(name="num_patches", kind="integer"),
    Column(name="num_supervised", kind="integer"),
    Column(name="patch_pairs", kind="integer"),
    Column(name="task", kind="text"),
    Column(name="split", kind="text", choices=SPLITS),
    Column(name="epoch", kind="integer"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RawTable:
    """The known columns of a file, nulls included, and how to name a place in it."""

    path: Path
    columns: dict[str, pa.ChunkedArray]
    place: Callable[[int], str]
    num_rows: int


def pack_table(
    path: Path,
    out_dir: Path,
    settings: PackingSettings,
    seed: int,
    *,
    dims: ModelDims = QWEN2_5_VL_7B,
    identity: Mapping[str, object] | None = None,
) -> PlanReport:
    """Pack the samples of a table and write the plan, its report and the list of what was left out.

    Writes `plan-<fingerprint>.json`, `plan-<fingerprint>.left_out.parquet` (only if something was) and, last,
    `plan-<fingerprint>.parquet`.

    Raises:
        ConfigError: the table is at fault, or no sample of it can be planned.
        EngineError: the disk refuses.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise ConfigError(f"{out_dir} is a file; name a folder for the plan")
    samples = read_samples(path)
    result = plan(samples, settings, seed=seed, dims=dims)
    if not result.num_rows:
        first = result.left_out[0]
        raise ConfigError(f"{path}: none of {len(samples)} samples fits the plan: {first.id}: {first.detail}")
    decisive = {
        "plan_version": PLAN_VERSION,
        "seed": seed,
        "capacity": settings.capacity,
        "largest_sample": settings.largest_sample,
        "row_lengths": list(result.row_lengths),
        "rows_per_step": list(result.rows_per_step),
        "data_parallel_sizes": list(settings.data_parallel_sizes),
        "balance_window": settings.balance_window,
        "pack_window": settings.pack_window,
        "model": asdict(dims),
        "identity": dict(identity or {}),
    }
    fingerprint = content_id(_digest(samples), decisive)
    report = make_report(result, hardware=settings.hardware, fingerprint=fingerprint)
    stem = f"plan-{fingerprint}"
    write_json(out_dir / f"{stem}.json", {**report.as_dict(), "made_with": decisive})
    if result.left_out:
        write_records(out_dir / f"{stem}.left_out.parquet", Rejected, result.left_out)
    write_table(out_dir / f"{stem}.parquet", plan_table(result), dictionary=["task"])
    return report


def plan_table(result: Plan) -> pa.Table:
    """The plan as an Arrow table with the schema of `PlanEntry`."""
    schema = schema_of(PlanEntry)
    columns = result.columns()
    return pa.table([pa.array(columns[f.name], type=f.type) for f in schema], schema=schema)


def read_samples(path: Path) -> Samples:
    """Read and check a table of samples, in the order of their ids; missing optional columns become 0, '' or 'train'.

    Raises:
        ConfigError: unreadable file, no rows, or a column that is missing, of a wrong type, null, out of
            range, or (`sample_id`) not unique or above 1,024 bytes.
    """
    table = _read(path)
    if not table.num_rows:
        raise ConfigError(f"{path}: the table has no rows; write the samples before packing them")
    values: dict[str, Any] = {}
    for column in COLUMNS:
        if column.name in table.columns:
            values[column.name] = _checked(table, column)
        elif column.required:
            raise ConfigError(f"{path}: no column {column.name!r}; a table of samples needs {_required()}")
    try:
        return Samples.of(**values).in_order()
    except RepeatedId as e:
        raise ConfigError(
            f"{path}: {table.place(e.second)}: sample_id = {values['sample_id'][e.first].as_py()!r} is also "
            f"{table.place(e.first)}; give every sample of an epoch an id of its own"
        ) from None


def _required() -> str:
    return " and ".join(repr(c.name) for c in COLUMNS if c.required)


def _read(path: Path) -> _RawTable:
    try:
        with path.open("rb") as f:
            magic = f.read(4)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}; name a Parquet, CSV or JSONL file") from None
    if magic == b"PAR1" or path.suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    if path.suffix in DELIMITERS:
        return _read_csv(path)
    return _read_jsonl(path)


def _read_parquet(path: Path) -> _RawTable:
    try:
        with pq.ParquetFile(parquet_source(path)) as file:
            wanted = _wanted_columns(path, file.schema_arrow.names)
            table = file.read(columns=wanted)
    except (OSError, pa.ArrowException) as e:
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise ConfigError(f"{path} is not a readable Parquet file: {first}; write it again") from None
    columns = {name: table.column(name) for name in wanted}
    for column in COLUMNS:
        if column.name in columns:
            columns[column.name] = _cast(path, column, columns[column.name])
    return _RawTable(path=path, columns=columns, place=lambda i: f"row {i + 1}", num_rows=table.num_rows)


def _wanted_columns(path: Path, names: list[str]) -> list[str]:
    wanted = [c.name for c in COLUMNS if c.name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {names.count(name)} columns are named {name!r}; keep one")
    return wanted


def _read_csv(path: Path) -> _RawTable:
    """Read a table whose first line names the columns; a row is counted from the line below it."""
    layout = pacsv.ParseOptions(delimiter=DELIMITERS[path.suffix])
    types = {c.name: pa.string() if c.kind == "text" else pa.int64() for c in COLUMNS}
    try:
        with pacsv.open_csv(path, parse_options=layout) as file:
            wanted = _wanted_columns(path, file.schema.names)
        if not wanted:
            raise ConfigError(
                f"{path}: its first line names none of the columns; a table of samples needs {_required()}"
            )
        kept = pacsv.ConvertOptions(include_columns=wanted, column_types=types)
        table = pacsv.read_csv(path, parse_options=layout, convert_options=kept)
    except (OSError, pa.ArrowException) as e:
        raise ConfigError(f"{path} is not a readable CSV file: {str(e).splitlines()[0]}; write it again") from None
    columns = {name: table.column(name) for name in wanted}
    return _RawTable(path=path, columns=columns, place=lambda i: f"row {i + 1}", num_rows=table.num_rows)


def _cast(path: Path, column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """`values` as the column's type; other widths, and dictionaries of texts, are the same type."""
    found = values.type
    inner = found.value_type if pa.types.is_dictionary(found) else found
    if column.kind == "integer":
        fits, target = pa.types.is_integer(inner), pa.int64()
    else:
        fits = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
        target = pa.string()
    try:
        if fits:
            return values.cast(target)
    except pa.ArrowInvalid as e:
        raise ConfigError(f"{path}: column {column.name!r}: {e}; use numbers below 2**63") from None
    shown = f" (first value {values[0].as_py()!r})" if len(values) else ""
    raise ConfigError(f"{path}: column {column.name!r} is of type {found}{shown}; write {_wanted(column)}")


def _wanted(column: Column) -> str:
    return "text" if column.kind == "text" else "integers"


def _read_jsonl(path: Path) -> _RawTable:
    """Read line by line; only the known keys are kept in memory."""
    values: dict[str, list[Any]] = {c.name: [] for c in COLUMNS}
    seen: set[str] = set()
    lines: list[int] = []
    try:
        with path.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if not line.strip():
                    continue
                record = _parse_line(path, number, line)
                lines.append(number)
                seen.update(record.keys() & values.keys())
                for column in COLUMNS:
                    value = record.get(column.name)
                    _check_type(path, column, value, number)
                    values[column.name].append(value)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}; name a Parquet, CSV or JSONL file") from None
    types = {"text": pa.string(), "integer": pa.int64()}
    columns = {c.name: pa.chunked_array([values[c.name]], types[c.kind]) for c in COLUMNS if c.name in seen}
    return _RawTable(path=path, columns=columns, place=lambda i: f"line {lines[i]}", num_rows=len(lines))


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as e:
        shown = line[:40].decode("utf-8", "replace").strip()
        raise ConfigError(
            f"{path}: line {number} is not JSON ({e}): {shown!r}; give Parquet, CSV (.csv), or one JSON object a line"
        ) from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: line {number} is {str(record)[:40]!r}; write one JSON object a line")
    return record


def _check_type(path: Path, column: Column, value: object, number: int) -> None:
    """Refuse a JSON value that is not of the column's type; null is left to `_checked`."""
    if value is None:
        return
    if column.kind == "text":
        if isinstance(value, str) and _is_unicode(value):
            return
    elif isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return
    shown = repr(value)[:60]
    wanted = _wanted(column) + (" below 2**63" if isinstance(value, int) and column.kind == "integer" else "")
    raise ConfigError(f"{path}: line {number}: {column.name} = {shown}; write {wanted}")


def _is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form; a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(table: _RawTable, column: Column) -> pa.Array | IntArray:
    """A column without nulls and within its range: integers as a numpy array, text as it is."""
    values = table.columns[column.name]
    if values.null_count:
        place = table.place(pc.index(pc.is_null(values), True).as_py())
        way_out = "fill it" if column.required else "fill it, or leave the column out"
        raise ConfigError(f"{table.path}: {place}: {column.name} is null or missing; {way_out}")
    if column.kind == "integer":
        checked: pa.Array | IntArray = values.to_numpy()
        faulty, rule = checked < column.least, f"must be at least {column.least}"
    else:
        checked = values.combine_chunks() if column.required else values.combine_chunks().dictionary_encode()
        faulty, rule = _faulty_texts(checked, column)
    faults = np.flatnonzero(faulty)
    if len(faults):
        place, value = table.place(int(faults[0])), values[int(faults[0])].as_py()
        shown = repr(value)[:60]
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ConfigError(f"{table.path}: {place}: {column.name} = {shown} {rule}{more}; correct the table")
    return checked


def _faulty_texts(values: pa.Array, column: Column) -> tuple[npt.NDArray[np.bool_], str]:
    """Which texts break the column's rule, and the rule."""
    if column.choices:
        known = pc.is_in(values.cast(pa.string()), value_set=pa.array(column.choices))
        return ~known.to_numpy(zero_copy_only=False), f"must be one of {', '.join(column.choices)}"
    if not column.required:
        return np.zeros(len(values), dtype=np.bool_), ""
    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
    return (lengths < 1) | (lengths > MAX_ID_BYTES), f"must not be empty, nor longer than {MAX_ID_BYTES:,} bytes"


def _digest(samples: Samples) -> str:
    """SHA-256 of every column; texts are preceded by their lengths, so that no two tables read alike."""
    digest = hashlib.sha256()
    for name, column in samples.columns().items():
        digest.update(f"{name}:{len(column)}:".encode())
        if isinstance(column, pa.Array):
            _digest_texts(column, digest.update)
        else:
            digest.update(column.astype("<i8"))
    return digest.hexdigest()


def _digest_texts(column: pa.Array, update: Callable[[Any], None]) -> None:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries() if isinstance(column, pa.ChunkedArray) else column
        words = column.dictionary.to_pylist()
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), dtype="<i8")
        rank[order] = np.arange(len(words))
        update(json.dumps(sorted(words)).encode())
        update(rank[column.indices.to_numpy()])
        return
    update(pc.binary_length(column).to_numpy(zero_copy_only=False).astype("<i8"))
    texts = column.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    update(memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]])
