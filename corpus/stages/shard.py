"""Windows to shards; then the index and the samples of the run, those of the short data with them."""

from __future__ import annotations

from collections import defaultdict

import PIL
import pyarrow as pa

from corpus import sharding
from corpus.records import Question, Sample, Window, content_id
from corpus.rundir import Marker
from corpus.shard_index import index_schema, index_table
from corpus.stages import short, windows
from corpus.stages.state import Build, blame, stall_limit, time_limit
from corpus.store import read_records, read_table, to_table, write_table
from corpus.workers import Failure, Task


def run(b: Build) -> str:
    """Cut windows, then render them; a page that turns out not to render is left out and its document cut anew."""
    for stage in ("windows", "shards"):
        b.run.drop(stage, keep=b.partitions)
    b.progress.stage("windows", len(b.documents), "documents")
    cuts = windows.run(b, b.partitions)
    b.progress.stage("shard", sum(map(_window_pages, cuts.values())), "pages")
    todo = dict.fromkeys(b.partitions, "")
    while todo:
        todo = {name: _fingerprint(b, name, cuts[name]) for name in todo}
        for name in [n for n, fingerprint in todo.items() if b.run.is_done("shards", n, fingerprint)]:
            del todo[name]
            b.progress.advance(units=_window_pages(cuts[name]))
        faulty = _render(b, todo)
        cuts |= windows.run(b, faulty)
        todo = dict.fromkeys(faulty, "")
    index_files = [*(b.run.work("index", f"{n}.parquet") for n in b.partitions), *short.index_files(b)]
    members = [read_table(file, schema=index_schema()) for file in index_files]
    write_table(b.run.path("shards", "index.parquet"), pa.concat_tables([index_schema().empty_table(), *members]))
    asked = to_table(Sample, (s for n in b.partitions for s in windows.partition_samples(b, n)))
    samples = _split(pa.concat_tables([asked, short.samples_table(b)]), b.config.packing.validation_share)
    write_table(b.run.path("samples.parquet"), samples)
    num_windows = sum(len(c["windows"]) for m in cuts.values() for c in m.facts["cuts"].values())
    return f"{num_windows} windows, {samples.num_rows} samples"


def _render(b: Build, todo: dict[str, str]) -> list[str]:
    """Write the shards of partitions (name -> fingerprint); returns those in which something did not render."""
    tasks = []
    for name, fingerprint in todo.items():
        job, limit = _job(b, name), time_limit(b, b.partitions[name])
        work = [(w.window.doc_id, w.window.num_pages) for w in job.windows]
        key = (name, fingerprint, work)
        tasks.append(Task(key, sharding.shard_partition, job, limit, stall_limit(b, b.partitions[name])))
    faulty = []
    for outcome in b.pool.run(tasks, lambda pages: b.progress.advance(units=pages, pages=pages)):
        name, fingerprint, work = outcome.key
        result = outcome.value
        if isinstance(result, Failure):
            blame(b, "shard", work, result)
            faulty.append(name)
        elif result.faults:
            for fault in result.faults:
                windows.record_problem(b, name, fault)
            faulty.append(name)
        else:
            b.work["shard"] += 1
            _finish(b, name, fingerprint, result)
    return faulty


def _window_pages(marker: Marker) -> int:
    return sum(n for cut in marker.facts["cuts"].values() for _, _, n in cut["windows"])


def _fingerprint(b: Build, name: str, cut: Marker) -> str:
    """A shard holds pages, questions and metadata, but no lengths: settings that only change those touch none."""
    c = b.config
    held = {doc_id: facts["windows"] for doc_id, facts in cut.facts["cuts"].items()}
    told = [
        (d.doc_id, d.title, d.language, d.language_source, d.license, d.source)
        for d in b.partitions[name]
        if d.doc_id in held
    ]
    sizes = [
        c.model,
        c.render.model_dump(),
        c.shards.model_dump(),
        sharding.renderer_version(c.render.backend),
        PIL.__version__,
    ]
    upstream = [b.marker(s, name).output for s in ("pages", "questions")]
    asked = sorted(i for s in windows.partition_samples(b, name) for i in s.question_ids)
    return content_id("shard", sharding.STAGE_VERSION, held, told, sizes, upstream, asked)


def _job(b: Build, name: str) -> sharding.ShardJob:
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in windows.partition_samples(b, name):
        samples[sample.doc_id, sample.window].append(sample)
    questions = {
        q.question_id: q for q in read_records(b.run.path("questions", f"{name}.parquet"), Question) if q.accepted
    }
    jobs = []
    for (doc_id, index), made in sorted(samples.items()):
        asked = sorted({i for s in made for i in s.question_ids})
        window = Window(doc_id=doc_id, index=index, first_page=made[0].first_page, num_pages=made[0].num_pages)
        jobs.append(
            sharding.WindowJob(window=window, grids=made[0].grids, questions=tuple(questions[i] for i in asked))
        )
    b.run.reopen("shards", name)
    return sharding.ShardJob(
        documents={d.doc_id: d for d in b.partitions[name]},
        windows=tuple(jobs),
        pages_file=b.run.path("pages", f"{name}.parquet"),
        folder=b.run.path("shards"),
        prefix=name,
        model=b.config.model,
        render=b.config.render,
        page_timeout_s=b.config.workers.page_timeout_s,
        memory_mb=b.config.workers.memory_mb,
        max_bytes=b.config.shards.max_bytes,
        password=b.password,
        storage=b.config.storage,
    )


def _finish(b: Build, name: str, fingerprint: str, result: sharding.Sharded) -> None:
    index = b.run.work("index", f"{name}.parquet")
    write_table(index, index_table(result.files, result.members))
    files = [b.run.path("shards", f.shard) for f in result.files]
    for stale in set(b.run.path("shards").glob(f"{name}-*.tar")) - set(files):
        stale.unlink()
    known = {f"shards/{f.shard}": f"xxh128:{f.xxh128}" for f in result.files}
    facts = {"num_bytes": sum(f.num_bytes for f in result.files)}
    b.run.finish("shards", name, fingerprint, [*files, index], facts, known)


def _split(samples: pa.Table, share: float) -> pa.Table:
    """The samples with their column `split`."""
    ids = samples["doc_id"].to_pylist()
    split = ["validation" if _in_validation(doc_id, share) else "train" for doc_id in ids]
    column = samples.schema.get_field_index("split")
    return samples.set_column(column, samples.schema.field(column), pa.array(split, pa.string()))


def _in_validation(doc_id: str, share: float) -> bool:
    """By document or conversation and by its id alone, so that it never changes sides when others are added."""
    return int(doc_id[8:16], 16) < share * 2**32
