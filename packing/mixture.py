"""The questions that will be trained on, out of all there are: shares, lengths, budget, epochs. Pure, seeded, columns.

Every question has a key, a hash of seed and sample id. A *cell* is the questions of one task and one length bucket; in
each, questions are taken in the order of their keys, so a choice is always the k smallest keys of a cell. A question
that comes r-th in a cell of weight w is taken at the time (r + 1/2) / w (Webster's method): one order over all
questions, of which every mixture is a beginning. Hence

- at any moment each cell has its share to within half a question;
- a larger budget or size only adds, and added documents take a place only by smaller keys, or where targets moved;
- `shortage: shrink` stops where the scarcest cell is used up; `fill` goes on with what is left, in the ratio of the
  shares, until it has the size that was asked for, or everything.

An *epoch* is as long as the scarcest cell allows (`fill`: everything). The next one goes on in every cell where the
last one stopped, and begins a cell again only when it is through: no epoch repeats a question, and tasks of which there
is plenty show new questions in every epoch.

With shares of tasks and of lengths, the weights of the cells are a linear program (HiGHS): the largest size at which
both hold, then the table nearest to independence of the two. Otherwise they are the shares themselves.

Several questions of a window become turns of one sample, in one order for each window, as long as the sample stays
within the longest allowed. Its length is exact: the first question's sample plus `turn_tokens` of the others.

1,000,000 questions take 1 s of CPU with one question a sample, and 2.5 s with four, a budget and two epochs
(`benchmarks/bench_mixture.py`); nothing loops over questions in Python.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from corpus.config import MixtureSettings
from corpus.errors import ConfigError
from packing.ids import HashArray
from packing.mixture_report import REASONS, MixtureReport, Portion, percent, portions_of, rounded, shortfalls

MIXTURE_VERSION = 1  # raise it when the same pool would give another mixture

SHORT = "short"  # task of short instruction data
MIXED = "mixed"  # task of a sample whose questions are of several

_NOT_ASKED, _OTHER_LENGTH, _FULL_WINDOW, _SHARE, _BUDGET, _SHORT = range(len(REASONS))

LONG_BIASED = {0: 0.161, 102_400: 0.839}  # arXiv 2605.13831: 83.9 % of the samples at or above 100 K tokens
UNIFORM = {32_768: 1.0, 65_536: 1.0, 98_304: 1.0}
REPORTED = (0, 32_768, 65_536, 98_304)  # starts of the buckets of a report when lengths are left as they are

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Every question that could be trained on, as columns: one entry a question, which has a sample of its own."""

    key: HashArray  # `hash_ids` of the sample ids and the seed
    task: IntArray  # index into `task_names`
    task_names: tuple[str, ...]
    window: IntArray  # any numbers; questions of one window have the same
    num_tokens: IntArray  # of the sample
    turn_tokens: IntArray  # what the question adds as a further turn of another sample

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """One entry a use of a question, in the order of the samples; the uses of a sample are neighbours."""

    question: IntArray  # index into the pool
    sample: IntArray  # 0-based; rises
    epoch: IntArray  # 0-based; rises with the sample, too
    left_out: IntArray  # indices of questions that are never used
    reason: IntArray  # of each of them, index into `REASONS`
    report: MixtureReport


def mix(pool: Pool, settings: MixtureSettings, *, max_tokens: int, num_validation: int = 0) -> Mixture:
    """Choose the questions to train on and join them to samples.

    Args:
        pool: of training alone.
        max_tokens: of a sample with several questions.
        num_validation: samples of the other split, for the report.

    Raises:
        ConfigError: the shares of tasks and of lengths exclude each other.
    """
    is_short = _is_task(pool, SHORT)
    grid, notes = _Grid.of(pool, settings, ~is_short), list[str]()
    turns = _Turns.of(pool, settings, max_tokens, grid)
    admitted = turns.admit(np.flatnonzero(grid.cell >= 0), settings.samples_per_window)
    available = np.bincount(grid.cell[admitted], minlength=grid.num_cells).reshape(grid.shape)
    task_shares, length_shares = grid.shares_of(available, notes)
    weights, size = _weights(available, task_shares, length_shares)
    if len(admitted) and not size and settings.shortage == "shrink":
        raise ConfigError(
            "the shares of mixture.tasks and mixture.lengths cannot hold together: too few questions have both a task "
            "and a length that is asked for; set mixture.shortage=fill, or mixture.lengths=pool-native"
        )
    shorts = np.flatnonzero(is_short)
    shorts = shorts[np.argsort(pool.key[shorts])]
    if settings.short.share and not len(shorts):
        notes.append(
            f"{percent(settings.short.share)} of the tokens should be short data and there is none; name some in "
            "mixture.short.files, or set mixture.short.share=0"
        )
    line = _Line.of(pool, grid, admitted, weights, np.outer(task_shares, length_shares), size)
    choice = _choose(pool, line, turns, shorts, settings)
    limit = choice.limit or grid.limit(weights, available)
    reason = np.select(
        [is_short, grid.task < 0, grid.bucket < 0, ~_mask(pool, admitted), ~choice.reachable],
        [_SHORT, _NOT_ASKED, _OTHER_LENGTH, _FULL_WINDOW, _SHARE],
        _BUDGET,
    )
    return _mixture(pool, grid, settings, choice, reason.astype(np.int64), notes, limit, num_validation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What is taken, and what stood in the way of more."""

    long: _Joined
    short: _Joined
    reachable: BoolArray  # of each question: would be taken with a larger budget
    limit: str  # what cut an epoch short, besides the shares; '' = nothing
    epochs_needed: int  # for the budget; 0 = it is reached, or there is none


def _choose(pool: Pool, line: _Line, turns: _Turns, shorts: IntArray, settings: MixtureSettings) -> _Choice:
    """Take questions until shares, budget or epochs are filled; `shorts` are in the order of their keys."""
    fill, limit = settings.shortage == "fill", ""
    share = settings.short.share if len(shorts) else 0.0
    short_tokens = int(pool.num_tokens[shorts].sum())
    one = line.uses(fill, 1)
    if share and not fill:
        fitting = turns.fitting(one, int(short_tokens * (1 - share) / share))
        if fitting < len(one):
            limit = f"short data limits an epoch: there are {short_tokens:,} tokens of it, for {percent(share)}"
            line, one = replace(line, size=float(one.time[fitting - 1]) if fitting else 0.0), one.first(fitting)
    epoch_tokens = max(1, int(turns.join(one)[1].sum()))
    budget, epochs = settings.token_budget, settings.epochs
    if budget is not None:
        budget -= min(int(budget * share), short_tokens * epochs) if fill else int(budget * share)
        epochs = min(epochs, budget // epoch_tokens + 2)  # epochs differ a little in tokens
    uses = line.uses(fill, epochs) if epochs > 1 else one
    fitting = len(uses) if budget is None else turns.fitting(uses, budget)
    needed = -(-budget // epoch_tokens) if budget is not None and fitting == len(uses) else 0
    chosen = uses.first(fitting)
    long, tokens = turns.join(chosen)
    passes = min(len(chosen) / max(1, len(one)), chosen.num_epochs)
    return _Choice(
        long=long,
        short=_short_uses(pool, shorts, int(int(tokens.sum()) * share / (1 - share)), passes),
        reachable=_mask(pool, uses.question),
        limit=limit,
        epochs_needed=needed,
    )


def _mixture(
    pool: Pool,
    grid: _Grid,
    settings: MixtureSettings,
    choice: _Choice,
    reason: IntArray,
    notes: list[str],
    limit: str,
    num_validation: int,
) -> Mixture:
    """Long and short samples, epoch by epoch, and the report; `limit` says what is used up first."""
    long, short = choice.long, choice.short
    by_epoch = np.argsort(np.concatenate([long.epoch, short.epoch]), kind="stable")
    question: IntArray = np.concatenate([long.question, short.question])[by_epoch]
    epoch: IntArray = np.concatenate([long.epoch, short.epoch])[by_epoch]
    opens: BoolArray = np.concatenate([long.opens, short.opens])[by_epoch]
    left_out = np.flatnonzero(~_mask(pool, question))
    left = np.bincount(reason[left_out], minlength=len(REASONS))
    tokens = np.where(long.opens, pool.num_tokens[long.question], pool.turn_tokens[long.question])
    num_short = int(pool.num_tokens[short.question].sum())
    total = int(tokens.sum()) + num_short
    there = np.flatnonzero(~_is_task(pool, SHORT))
    report = MixtureReport(
        num_pool=len(pool),
        num_samples=int(opens.sum()),
        num_questions=len(question),
        num_tokens=total,
        num_epochs=int(epoch.max(initial=-1)) + 1,
        epochs=settings.epochs,
        token_budget=settings.token_budget,
        shortage=settings.shortage,
        questions_per_window=settings.questions_per_window,
        samples_per_window=settings.samples_per_window,
        tasks=portions_of(grid.task_names, grid.task_asked, pool.task, long.question, tokens, there),
        lengths=portions_of(grid.bucket_names, grid.bucket_asked, grid.every_bucket, long.question, tokens, there),
        short=Portion(
            name=SHORT,
            asked=settings.short.share,
            got=rounded(num_short / max(1, total)),
            pool=len(pool) - len(there),
            chosen=len(short),
            num_tokens=num_short,
        ),
        num_validation=num_validation,
        left_out={name: int(n) for name, n in zip(REASONS, left, strict=True) if n},
        shortfalls=(),
    )
    return Mixture(
        question=question,
        sample=np.cumsum(opens) - 1,
        epoch=epoch,
        left_out=left_out,
        reason=reason[left_out],
        report=replace(report, shortfalls=(*notes, *shortfalls(report, limit, choice.epochs_needed))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The cells: tasks by length buckets. Without shares, an axis has one entry that takes everything."""

    task_names: tuple[str, ...]  # of every task of the pool, and those asked for that it lacks
    task_asked: dict[str, float] | None
    bucket_names: tuple[str, ...]
    bucket_asked: dict[str, float] | None
    every_bucket: IntArray  # of each question: index into `bucket_names`
    task: IntArray  # of each question: row of the grid, -1 = none
    bucket: IntArray  # column of the grid, -1 = none
    cell: IntArray  # task * columns + bucket, -1 = none
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]

    @staticmethod
    def of(pool: Pool, settings: MixtureSettings, is_long: BoolArray) -> _Grid:
        """The cells that the settings speak of; `is_long` are the questions that fall into them."""
        asked = None if settings.tasks is None else _normalised(settings.tasks)
        rows = [""] if asked is None else sorted(asked)
        row_of_code = [0 if asked is None else rows.index(t) if t in rows else -1 for t in pool.task_names]
        task = np.array([*row_of_code, -1], dtype=np.int64)[pool.task]
        task[~is_long] = -1

        starts, bucket_asked = _buckets(settings.lengths)
        every = np.searchsorted(starts, pool.num_tokens, side="right") - 1
        names = _bucket_names(starts)
        column_names = [""] if bucket_asked is None else list(bucket_asked)
        column_of = [0 if bucket_asked is None else column_names.index(n) if n in bucket_asked else -1 for n in names]
        bucket = np.array([*column_of, -1], dtype=np.int64)[every]
        bucket[~is_long] = -1
        return _Grid(
            task_names=pool.task_names + tuple(n for n in rows if n and n not in pool.task_names),
            task_asked=asked,
            bucket_names=names,
            bucket_asked=bucket_asked,
            every_bucket=every,
            task=task,
            bucket=bucket,
            cell=np.where((task < 0) | (bucket < 0), -1, task * len(column_names) + bucket),
            row_names=tuple(rows),
            column_names=tuple(column_names),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.row_names), len(self.column_names)

    @property
    def num_cells(self) -> int:
        return len(self.row_names) * len(self.column_names)

    def shares_of(self, available: IntArray, notes: list[str]) -> tuple[FloatArray, FloatArray]:
        """Shares of the rows and of the columns; those of which there is nothing go to the others, with a note."""
        shares = []
        for asked, names, there, key in (
            (self.task_asked, self.row_names, available.sum(axis=1), "tasks"),
            (self.bucket_asked, self.column_names, available.sum(axis=0), "lengths"),
        ):
            wanted = np.array([1.0 if asked is None else asked[name] for name in names])
            for name, share, n in zip(names, wanted.tolist(), there.tolist(), strict=True):
                if asked is not None and not n and available.any():
                    notes.append(
                        f"{percent(share)} should be {name} and there is no such question: the other shares "
                        f"are scaled up; provide some, or take it out of mixture.{key}"
                    )
            wanted[there == 0] = 0
            shares.append(wanted / max(wanted.sum(), 1e-300))
        return shares[0], shares[1]

    def limit(self, weights: FloatArray, available: IntArray) -> str:
        """What is used up first, in words; '' where nothing is asked for."""
        rows, columns = self.shape
        if not weights.any() or (self.task_asked is None and self.bucket_asked is None):
            return ""
        if rows > 1 and columns > 1:
            return "tasks and lengths together limit an epoch"
        scarce = int(np.argmin(np.where(weights > 0, available / np.maximum(weights, 1e-300), np.inf)))
        name = self.column_names[scarce] if columns > 1 else self.row_names[scarce]
        return f"{name} limits an epoch: there are {int(available.flat[scarce]):,}, for {percent(weights.flat[scarce])}"


def _weights(available: IntArray, rows: FloatArray, columns: FloatArray) -> tuple[FloatArray, float]:
    """Weights of the cells, whose sums are the shares of rows and columns, and the largest size at which they hold."""
    product = np.outer(rows, columns)
    weights = product
    if (rows > 0).sum() > 1 and (columns > 0).sum() > 1:
        weights = _programmed(available, rows, columns)
    held = weights > 0
    return weights, float((available[held] / weights[held]).min()) if held.any() else 0.0


def _programmed(available: IntArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """The largest table with these shares of rows and columns, near to their product; all 0 where there is none."""
    from scipy.optimize import linprog  # here, because every worker of a build would load it

    total, (num_rows, num_columns) = int(available.sum()), available.shape
    n = num_rows * num_columns
    sums = np.vstack([np.kron(np.eye(num_rows), np.ones(num_columns)), np.kron(np.ones(num_rows), np.eye(num_columns))])
    shares = np.concatenate([rows, columns])
    most = available.reshape(-1) / total  # cells as parts of all there is: the solver's tolerances are absolute
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_eq=np.column_stack([sums, -shares]),
        b_eq=np.zeros(len(shares)),
        bounds=[*((0, m) for m in most), (0, None)],
        method="highs",
    )
    size = float(found.x[-1]) if found.status == 0 else 0.0
    if size * total < 0.5:
        return np.zeros(available.shape)
    product = np.outer(rows, columns).reshape(-1)
    far, ones = np.eye(n), np.zeros((len(shares), n))
    near = linprog(
        np.append(np.zeros(n), np.ones(n)),
        A_eq=np.column_stack([sums, ones]),
        b_eq=shares,
        A_ub=np.block([[far, -far], [-far, -far]]),
        b_ub=np.concatenate([product, -product]),
        bounds=[*((0, m / size * (1 + 1e-9)) for m in most), *((0, None) for _ in most)],
        method="highs",
    )
    weights = np.round(near.x[:n] if near.status == 0 else found.x[:n] / size, 12).reshape(available.shape)
    return np.where((available > 0) & (weights > 1e-9), weights, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uses:
    """Uses of questions in the order in which they are taken."""

    question: IntArray
    time: FloatArray  # rises
    epoch: IntArray  # rises

    def __len__(self) -> int:
        return len(self.question)

    @property
    def num_epochs(self) -> int:
        return int(self.epoch.max(initial=-1)) + 1

    def first(self, n: int) -> _Uses:
        return _Uses(question=self.question[:n], time=self.time[:n], epoch=self.epoch[:n])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The admitted questions of every cell in the order of their keys, one cell after the other."""

    question: IntArray
    starts: IntArray  # of each cell, in `question`
    counts: IntArray
    weights: FloatArray  # 0 = nothing is taken
    later: FloatArray  # the weights of what `fill` takes beyond `size`
    size: float  # of an epoch, in questions

    @staticmethod
    def of(pool: Pool, grid: _Grid, admitted: IntArray, weights: FloatArray, later: FloatArray, size: float) -> _Line:
        cell = grid.cell[admitted]
        by_key = np.argsort(pool.key[admitted])
        by_cell = np.argsort(cell[by_key].astype(np.min_scalar_type(grid.num_cells)), kind="stable")
        question = admitted[by_key[by_cell]]
        counts = np.bincount(cell, minlength=grid.num_cells)
        return _Line(
            question=question,
            starts=np.cumsum(counts) - counts,
            counts=counts,
            weights=weights.reshape(-1),
            later=later.reshape(-1),
            size=size,
        )

    def uses(self, fill: bool, epochs: int) -> _Uses:
        """Everything that may be taken in so many epochs."""
        return self._filled(epochs) if fill else self._shrunk(epochs)

    def _taken(self, size: float) -> IntArray:
        """Of each cell, how many are taken by this time: those whose (r + 1/2) / weight is not later."""
        return np.floor(size * self.weights + 0.5).astype(np.int64)

    def _shrunk(self, epochs: int) -> _Uses:
        taken = np.minimum(self._taken(epochs * self.size), epochs * self.counts)
        cell, rank = _ranks(taken)
        place = self.starts[cell] + rank % np.maximum(self.counts[cell], 1)
        time = (rank + 0.5) / self.weights[cell]
        epoch = np.clip(np.ceil(time / max(self.size, 1e-300)).astype(np.int64) - 1, 0, epochs - 1)
        return self._in_order(place, time, epoch)

    def _filled(self, epochs: int) -> _Uses:
        """First what `shrink` takes, then the rest in the ratio of the shares; an epoch goes through everything."""
        cell, rank = _ranks(np.where(self.later > 0, self.counts, 0))
        early = np.minimum(self._taken(self.size), self.counts)[cell]
        with np.errstate(divide="ignore"):
            time = np.where(
                rank < early, (rank + 0.5) / self.weights[cell], self.size + (rank - early + 0.5) / self.later[cell]
            )
        once = self._in_order(self.starts[cell] + rank, time, np.zeros(len(rank), dtype=np.int64))
        whole = float(once.time.max(initial=0.0))
        return _Uses(
            question=np.tile(once.question, epochs),
            time=np.concatenate([once.time + e * whole for e in range(epochs)]),
            epoch=np.repeat(np.arange(epochs), len(once)),
        )

    def _in_order(self, place: IntArray, time: FloatArray, epoch: IntArray) -> _Uses:
        order = np.argsort(time, kind="stable")  # an epoch begins where the last one ends
        return _Uses(question=self.question[place[order]], time=time[order], epoch=epoch[order])


def _ranks(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Of every member of cells with these counts: its cell, and its 0-based place there."""
    cell = np.repeat(np.arange(len(counts)), counts)
    return cell, np.arange(len(cell)) - (np.cumsum(counts) - counts)[cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """Uses in the order of their samples; `opens` where a use is the first question of a sample."""

    question: IntArray
    epoch: IntArray
    opens: BoolArray

    def __len__(self) -> int:
        return len(self.question)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turns:
    """How questions of a window become samples: in one order for each window, each sample as long as it may be.

    A sample is closed when the next question does not fit (next fit). So the questions of a window that are not chosen
    never make the others need more samples.
    """

    pool: Pool
    place: IntArray  # of each question, in the order by windows
    per_sample: int
    max_tokens: int

    @staticmethod
    def of(pool: Pool, settings: MixtureSettings, max_tokens: int, grid: _Grid) -> _Turns:
        """The order within a window is drawn, tasks of large shares rather before others (priority sampling)."""
        if settings.questions_per_window == 1 and settings.samples_per_window is None:
            return _Turns(pool=pool, place=np.arange(len(pool)), per_sample=1, max_tokens=max_tokens)
        drawn = (pool.key >> np.uint64(11)).astype(np.float64)
        shares = [1.0 if grid.task_asked is None else grid.task_asked[name] for name in grid.row_names]
        order = np.lexsort((pool.key, drawn / np.array([*shares, 1.0])[grid.task], pool.window))
        place = np.empty(len(pool), dtype=np.int64)
        place[order] = np.arange(len(pool))
        return _Turns(pool=pool, place=place, per_sample=settings.questions_per_window, max_tokens=max_tokens)

    def admit(self, questions: IntArray, samples_per_window: int | None) -> IntArray:
        """Those questions that fit into so many samples a window."""
        if samples_per_window is None:
            return questions
        questions = questions[np.argsort(self.place[questions])]
        begins = self._begins(self.pool.window[questions])
        sample = np.cumsum(self._opens(questions, begins))
        within: IntArray = sample - np.repeat(sample[begins], np.diff([*begins, len(questions)]))
        return np.sort(questions[within < samples_per_window])

    def join(self, uses: _Uses) -> tuple[_Joined, IntArray]:
        """The samples that these uses make, and the tokens that each use adds."""
        return self._joined(uses, self._by_window(uses))

    def fitting(self, uses: _Uses, budget: int) -> int:
        """How many of the first uses make samples of at most so many tokens in all."""
        if self.per_sample == 1:
            spent = np.cumsum(self.pool.num_tokens[uses.question])
            return int(np.searchsorted(spent, budget, side="right"))
        order = self._by_window(uses)
        fits, exceeds = 0, len(uses) + 1
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if int(self._joined(uses, order[order < middle])[1].sum()) <= budget:
                fits = middle
            else:
                exceeds = middle
        return fits

    def _by_window(self, uses: _Uses) -> IntArray:
        """Uses in the order of their samples: by window where questions are joined, else as the pool has them."""
        place = self.place[uses.question] if self.per_sample > 1 else uses.question
        return np.argsort(uses.epoch * len(self.place) + place)

    def _joined(self, uses: _Uses, order: IntArray) -> tuple[_Joined, IntArray]:
        question, epoch = uses.question[order], uses.epoch[order]
        begins = self._begins(self.pool.window[question], epoch) if self.per_sample > 1 else question[:0]
        opens = self._opens(question, begins)
        tokens = np.where(opens, self.pool.num_tokens[question], self.pool.turn_tokens[question])
        return _Joined(question=question, epoch=epoch, opens=opens), tokens

    @staticmethod
    def _begins(*columns: IntArray) -> IntArray:
        """Where a run of equal values begins."""
        if not len(columns[0]):
            return np.empty(0, dtype=np.int64)
        return np.append(0, 1 + np.flatnonzero(np.any([np.diff(c) != 0 for c in columns], axis=0)))

    def _opens(self, questions: IntArray, begins: IntArray) -> BoolArray:
        """Which questions are the first of a sample; `begins`: where those of another window begin."""
        opens = np.ones(len(questions), dtype=np.bool_)
        if self.per_sample == 1:
            return opens
        whole, turn = self.pool.num_tokens[questions], self.pool.turn_tokens[questions]
        at, ends = begins, np.append(begins[1:], len(questions))
        length, count = whole[at], np.ones(len(at), dtype=np.int64)
        while True:  # one more question of every window that has one
            more = at + 1 < ends
            if not more.any():
                return opens
            at, ends, length, count = at[more] + 1, ends[more], length[more], count[more]
            fits = (count < self.per_sample) & (length + turn[at] <= self.max_tokens)
            opens[at] = ~fits
            length = np.where(fits, length + turn[at], whole[at])
            count = np.where(fits, count + 1, 1)


def _short_uses(pool: Pool, shorts: IntArray, target: int, passes: float) -> _Joined:
    """Short samples of at most `target` tokens, dealt to the epochs; again and again, but once an epoch."""
    tokens = pool.num_tokens[shorts]
    total = int(tokens.sum())
    target = min(target, int(total * max(1.0, passes)))
    rounds, rest = divmod(target, total) if total else (0, 0)
    last = int(np.searchsorted(np.cumsum(tokens), rest, side="right"))
    question = np.concatenate([np.tile(shorts, rounds), shorts[:last]])
    spent = np.cumsum(pool.num_tokens[question])
    middle = (spent - pool.num_tokens[question] / 2) / max(1, int(spent[-1]) if len(spent) else 1)
    epoch = np.floor(middle * passes).astype(np.int64)
    return _Joined(question=question, epoch=epoch, opens=np.ones(len(question), dtype=np.bool_))


def _is_task(pool: Pool, name: str) -> BoolArray:
    is_it: BoolArray = np.array([n == name for n in pool.task_names] + [False])[pool.task]
    return is_it


def _mask(pool: Pool, questions: IntArray) -> BoolArray:
    mask = np.zeros(len(pool), dtype=np.bool_)
    mask[questions] = True
    return mask


def _normalised(shares: dict[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items() if share > 0}


def _buckets(lengths: str | dict[int, float]) -> tuple[IntArray, dict[str, float] | None]:
    """Starts of the length buckets, and the shares asked for, by name; None where lengths stay as they are."""
    if lengths == "pool-native":
        return np.array(REPORTED), None
    histogram = {"long-biased": LONG_BIASED, "uniform": UNIFORM}[lengths] if isinstance(lengths, str) else lengths
    starts = np.array(sorted({0, *histogram}))
    names = _bucket_names(starts)
    return starts, _normalised({n: histogram.get(int(s), 0.0) for n, s in zip(names, starts, strict=True)})


def _bucket_names(starts: IntArray) -> tuple[str, ...]:
    """'<32K', '32-64K', 'from 64K'."""
    edges = [f"{s // 1_024}K" if s % 1_024 == 0 else f"{s:,}" for s in starts.tolist()]
    first = f"<{edges[1]}" if len(edges) > 1 else "any"
    between = [f"{low}-{high}" for low, high in zip(edges[1:], edges[2:], strict=False)]
    return (
        first,
        *(b.replace("K-", "-", 1) if b.endswith("K") else b for b in between),
        *([f"from {edges[-1]}"] if len(edges) > 1 else []),
    )
