"""The index of a run's shards as a table: one row a member."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from corpus.shards import Member, ShardFile
from corpus.store import schema_of


def index_schema() -> pa.Schema:
    """Columns of `index.parquet`: a `Member`, and the size and SHA-256 of its shard."""
    extra = [pa.field("shard_bytes", pa.int64()), pa.field("shard_sha256", pa.string())]
    return pa.schema([*schema_of(Member), *extra])


def index_table(files: Iterable[ShardFile], members: Iterable[Member]) -> pa.Table:
    """The rows of archives that were written together."""
    shards = {f.shard: f for f in files}
    rows = [
        {"shard": m.shard, "key": m.key, "name": m.name, "offset": m.offset, "size": m.size,
         "shard_bytes": shards[m.shard].num_bytes, "shard_sha256": shards[m.shard].sha256}
        for m in members
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=index_schema())
