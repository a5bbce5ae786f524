"""One validated, frozen configuration for a build: defaults, then a YAML file, then `--set key=value`.

Unknown keys are refused, because a misspelt key that is ignored costs a week of GPU time. Every stage is redone
only when one of *its* fields changes, so each section below belongs to one stage.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from corpus.errors import ConfigError
from corpus.ocr_languages import LANGUAGES
from corpus.records import CHECKS, MODEL_PARTS, TASKS, ModelPart
from corpus.vision_tokens import FAMILIES


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]


class Settings(BaseModel):
    """Base of every section: frozen, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class IngestSettings(Settings):
    """Which documents are taken."""

    min_pages: int = Field(1, ge=1, description="shorter documents are rejected")
    max_pages: int | None = Field(None, ge=1, description="longer documents are rejected; null = no limit")
    min_bytes: int = Field(1, ge=1, description="smaller files are rejected")
    max_bytes: int | None = Field(None, ge=1, description="larger files are rejected; null = no limit")
    licenses: Texts = Field(
        (), description="licences of the manifest to take, case ignored, * allowed: [CC0-*, CC-BY-4.0]; [] = all"
    )
    languages: Texts = Field(
        (), description="languages to take, as codes: [en, de]; the manifest's, else the one detected; [] = all"
    )

    @model_validator(mode="after")
    def _ordered(self) -> IngestSettings:
        for low, high in (("min_pages", "max_pages"), ("min_bytes", "max_bytes")):
            least, most = getattr(self, low), getattr(self, high)
            if most is not None and most < least:
                raise ValueError(f"{high} {most} is below {low} {least}")
        return self


class ParseSettings(Settings):
    """How a page's text, layout and sections are found."""

    layout: Literal["model", "fonts"] = Field(
        "model", description="model = PyMuPDF's layout model (0.3 s a page); fonts = font heuristics (0.01 s)"
    )
    image_hashes: Literal["scans", "all"] = Field(
        "scans",
        description="pages to hash the picture of: scans = those with few or doubtful words; all (15 ms a page)",
    )


class CleanSettings(Settings):
    """Which parsed documents are refused: copies of others, and those of a benchmark."""

    near_duplicates: bool = Field(True, description="of documents that show the same pages, keep the best copy")
    duplicate_pages: float = Field(0.95, gt=0, le=1, description="share of pages that duplicates have in common")
    duplicate_words: float = Field(0.9, gt=0, le=1, description="share of word runs that the same page has in common")
    duplicate_image: float = Field(
        0.1, ge=0, lt=0.5, description="share of differing bits of image hashes up to which pages show the same"
    )
    decontaminate: Texts = Field(
        (),
        description="benchmarks to keep out: folders or files of PDFs, .txt lists of SHA-256 or of page hashes "
        "(`corpus fingerprint`), .json, .jsonl or .parquet files with a column question, or a SHA-256",
    )
    benchmark_pages: float = Field(
        0.2, gt=0, le=1, description="a document is refused when this share of its pages, or of a benchmark's, match"
    )
    benchmark_words: float = Field(0.5, gt=0, le=1, description="share of word runs from which a page matches")
    benchmark_image: float = Field(0.15, ge=0, lt=0.5, description="share of differing bits up to which a page matches")
    benchmark_question: float = Field(
        0.7, gt=0, le=1, description="share of a benchmark question's word runs from which ours is refused"
    )


class OcrSettings(Settings):
    """How a page without a usable text layer is read."""

    engine: Literal["rapidocr", "paddleocr", "none"] = Field(
        "rapidocr", description="none = such pages stay without text"
    )
    language: str = Field("en", description="BCP 47: en, de, zh, zh-Hant, ja ...; ko, ru, ar ... need paddleocr")
    python: str | None = Field(None, description="interpreter that has PaddleOCR, in an environment of its own")
    models: str | None = Field(
        None, description="folder with PaddleOCR's detection and recognition model; null = its own cache or hub"
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="where PaddleOCR runs; one copy of its models a worker")
    dpi: int = Field(144, ge=72, le=600, description="resolution of the image that is read")
    min_confidence: float = Field(0.5, ge=0, le=1, description="lines below it are dropped")
    low_confidence: float = Field(0.9, ge=0, le=1, description="pages below it, on average, are counted and named")

    @model_validator(mode="after")
    def _usable(self) -> OcrSettings:
        if self.engine == "paddleocr" and not self.python:
            raise ValueError(
                "engine: paddleocr needs ocr.python, the interpreter that has PaddleOCR; see `corpus doctor`"
            )
        if self.engine == "rapidocr" and self.device != "cpu":
            raise ValueError(f"device: {self.device} is for engine: paddleocr; rapidocr runs on the CPU")
        known = LANGUAGES.get(self.engine, {self.language: ""})
        if self.language not in known:
            elsewhere = " (paddleocr reads it)" if self.language in LANGUAGES["paddleocr"] else ""
            raise ValueError(
                f"language: {self.engine} does not read {self.language!r}{elsewhere}; known: {', '.join(sorted(known))}"
            )
        return self


class RenderSettings(Settings):
    """How page images are made. `dpi: 144` is the recipe's."""

    backend: Literal["pymupdf", "pdf2image"] = Field(
        "pymupdf", description="pdf2image = Poppler; needs longdoc[pdf2image] and poppler-utils"
    )
    dpi: int = Field(144, ge=36, le=600)
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    quality: int = Field(90, ge=1, le=100, description="of jpeg and webp")


class ClientSettings(Settings):
    """How a model's server is reached. None of these changes what is asked."""

    api_key_env: str | None = Field(
        None, description="environment variable that holds the key, such as OPENAI_API_KEY; null = no key is sent"
    )
    images: Literal["inline", "file"] = Field(
        "inline",
        description="file = by file://, for a vLLM on this machine that may read below the run "
        "(vllm serve --allowed-local-media-path)",
    )
    max_in_flight: int = Field(64, ge=1, le=4_096, description="requests at once")
    max_documents: int = Field(16, ge=1, le=1_024, description="documents at once")
    image_mb: int = Field(512, ge=1, description="images held in memory at once")
    timeout_s: float = Field(300, gt=0, description="for one answer")
    attempts: int = Field(6, ge=1, le=100, description="for one request, in all")
    backoff_s: float = Field(1.0, ge=0, le=60, description="pause after the first failure; it doubles, up to 30 s")
    give_up_s: float | None = Field(
        None,
        gt=0,
        description="a server that answers nothing for so long, or is not there, stops the build; null = 2 * timeout_s",
    )
    cache_dir: str | None = Field(
        None, description="where paid answers are kept; null = storage.cache_dir, or ~/.cache/longdoc"
    )
    prompt_price: float = Field(0, ge=0, description="of a million prompt tokens, for run.json")
    completion_price: float = Field(0, ge=0, description="of a million answered tokens")


VLLM_OWN = {  # arguments of `vllm serve` that longdoc sets, and the key under synth.vllm that decides them
    "--model": "model",
    "--served-model-name": "served_model_name",
    "--tensor-parallel-size": "tensor_parallel_size",
    "-tp": "tensor_parallel_size",
    "--data-parallel-size": "data_parallel_size",
    "-dp": "data_parallel_size",
    "--max-model-len": "max_model_len",
    "--limit-mm-per-prompt": "",
    "--allowed-local-media-path": "",
    "--host": "",
    "--port": "",
    "--uds": "",
    "--api-key": "",
}


class VllmSettings(Settings):
    """How vLLM is started. Where and how it runs never changes what is asked of it."""

    served_model_name: str | None = Field(None, description="null = the folder's name, or the hub name")
    python: str | None = Field(None, description="interpreter that has vLLM; null = the one that runs longdoc")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    data_parallel_size: int = Field(1, ge=1, description="copies of the model")
    max_model_len: int | None = Field(None, ge=1, description="tokens of prompt and answer; null = the model's limit")
    extra_args: Texts = Field(
        (), description='more arguments of `vllm serve`: ["--gpu-memory-utilization", "0.95"]; see synth/vllm_server.py'
    )
    start_timeout_s: float = Field(1_800, gt=0, description="for loading the model, its download included")
    health_timeout_s: float = Field(60, gt=0, description="a server that is silent for so long is started again")
    stop_timeout_s: float = Field(30, ge=0, description="from SIGTERM to SIGKILL")
    max_restarts: int = Field(3, ge=0, description="without an answer in between; one more death ends the build")

    @field_validator("extra_args")
    @classmethod
    def _not_ours(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            name = argument.partition("=")[0].replace("_", "-")
            if name in VLLM_OWN:
                key = VLLM_OWN[name]
                raise ValueError(f"{argument!r}: " + (f"use synth.vllm.{key}" if key else "longdoc sets it itself"))
        return arguments


class JudgeSettings(Settings):
    """Another server, whose model answers for the checks. It gets its images inline."""

    base_url: str = Field(description="any OpenAI-compatible server, e.g. http://127.0.0.1:8001/v1")
    model: str = Field(description="its name there")
    api_key_env: str | None = Field(None, description="environment variable that holds the key; null = no key is sent")


class SynthSettings(Settings):
    """Where questions come from."""

    backend: Literal["layout", "file", "openai", "vllm"] = Field(
        "layout",
        description="layout = from document structure, no model; file = your own questions; openai = by a model behind "
        "any OpenAI-compatible server; vllm = by one that is started here",
    )
    files: Texts = Field((), description="question files (JSONL or Parquet), for backend: file")
    tasks: Texts = Field(TASKS, description="tasks to write questions for; more come from synth.prompts")
    prompts: Texts = Field((), description="folders with tasks of your own (YAML), for a model")
    questions_per_segment: int = Field(1, ge=1, le=100, description="of each task, at most")
    min_segment_pages: int = Field(8, ge=1)
    max_segment_pages: int = Field(15, ge=1)
    ocr_full_max_bytes: int = Field(16_384, ge=256, description="longest transcription of ocr-full, UTF-8 bytes")
    ocr_min_confidence: float = Field(
        0.9,
        ge=0,
        le=1,
        description="a page read by OCR may be a transcription target only when every line reaches it",
    )
    model: str | None = Field(
        None, description="writes the questions: a name at the server; for vllm a folder or hub name"
    )
    base_url: str | None = Field(None, description="of the server, for backend: openai, e.g. http://127.0.0.1:8000/v1")
    judge_model: str | None = Field(None, description="at the same server, answers for the checks; null = model")
    judge: JudgeSettings | None = Field(None, description="the same at another server; null = at the writer's")
    structured: bool = Field(True, description="ask for JSON by a schema; false for models that think aloud first")
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    max_answer_tokens: int = Field(2_048, ge=16, le=131_072)
    image_tokens: int = Field(1_280, ge=64, le=16_384, description="of 28 x 28 pixels, for a page shown to the writer")
    attempts: int = Field(2, ge=1, le=20, description="questions drawn for a task and segment until one is accepted")
    layout_share: float = Field(0, ge=0, le=1, description="of the segments, whose questions no model writes")
    checks: Texts = Field(CHECKS, description="what a question must pass; model checks cost requests")
    client: ClientSettings = ClientSettings()
    vllm: VllmSettings = VllmSettings()

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, checks: tuple[str, ...]) -> tuple[str, ...]:
        for check in checks:
            if check not in CHECKS:
                raise ValueError(f"unknown check {check!r}; known: {', '.join(CHECKS)}")
        return checks

    @model_validator(mode="after")
    def _consistent(self) -> SynthSettings:
        if self.max_segment_pages < self.min_segment_pages:
            raise ValueError(
                f"max_segment_pages {self.max_segment_pages} is below min_segment_pages {self.min_segment_pages}"
            )
        if self.backend == "file" and not self.files:
            raise ValueError("backend: file needs at least one question file in synth.files")
        if self.backend in ("openai", "vllm") and not self.model:
            raise ValueError(f"backend: {self.backend} needs synth.model, the model that writes the questions")
        if self.backend == "openai" and not self.base_url:
            raise ValueError("backend: openai needs synth.base_url, e.g. http://127.0.0.1:8000/v1")
        if self.judge_model and self.backend == "vllm":
            raise ValueError(
                f"judge_model: {self.judge_model}: backend: vllm serves one model, synth.model; name the server of "
                "another in synth.judge: {base_url: ..., model: ...}"
            )
        if self.judge_model and self.judge:
            raise ValueError(f"judge_model: {self.judge_model} and judge.model: {self.judge.model}: give one of them")
        unknown = [] if self.prompts else [t for t in self.tasks if t not in TASKS]
        if unknown:
            raise ValueError(f"unknown task {unknown[0]!r}; known: {', '.join(TASKS)}; others need synth.prompts")
        return self


class MessageSettings(Settings):
    """How a sample is put into words; `corpus.messages` applies it."""

    page_labels: bool = Field(True, description='a "Page N" line before every page image')
    question_template: str = Field("{question}", description="must contain {question}")

    @field_validator("question_template")
    @classmethod
    def _has_question(cls, template: str) -> str:
        if template.count("{question}") != 1:
            raise ValueError("must contain {question} exactly once")
        return template


class WindowSettings(Settings):
    """How long a training context may be, images, labels, question and answer included."""

    min_tokens: int = Field(32_768, ge=1)
    max_tokens: int = Field(131_072, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> WindowSettings:
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}")
        return self


class ShardSettings(Settings):
    """How shards are cut."""

    max_bytes: int = Field(1_000_000_000, ge=1_000_000, description="a new shard begins past this size")


class HardwareSettings(Settings):
    """What GPU-hours are predicted for. It changes no plan."""

    peak_tflops: float = Field(989, gt=0, description="of one GPU in bf16, dense: H100 989, A100 312, H20 148")
    utilisation: float = Field(0.4, gt=0, le=1, description="share of the peak that training reaches")


DEFAULT_HARDWARE = HardwareSettings()


class CostSettings(Settings):
    """What a sample costs in training, by which steps are balanced."""

    model: str | None = Field(
        None,
        description="folder of the model that will be trained, or its config.json; null = Qwen2.5-VL-7B, Qwen3-VL-8B",
    )
    freeze: Annotated[tuple[ModelPart, ...], BeforeValidator(_one_or_several)] = Field(
        (), description=f"parts that are not trained: [{', '.join(MODEL_PARTS)}]"
    )
    recompute: bool = Field(False, description="gradient checkpointing: layers run once more in the backward pass")


class ShortSettings(Settings):
    """Conversations of your own, mixed in at a share."""

    files: Texts = Field((), description="JSONL files of chat messages, with paths of images or without")
    share: float = Field(0, ge=0, lt=1, description="of all tokens that are trained on; the recipe's option is 0.4")


LENGTH_POLICIES = ("pool-native", "long-biased", "uniform")
MAX_BUCKETS = 64
MAX_SHARE = 1_000_000  # shares are relative


class MixtureSettings(Settings):
    """Which questions are trained on, and how many samples they become."""

    tasks: dict[str, float] | None = Field(
        {"extract-single": 0.4, "extract-multi": 0.4, "reasoning": 0.2},
        description="shares of the questions; a task that is not named gets none; null = take every task as it comes",
    )
    shortage: Literal["shrink", "fill"] = Field(
        "shrink", description="shrink = shares hold, the scarcest limits the size; fill = size first, shares deviate"
    )
    questions_per_window: int = Field(1, ge=1, le=1_000, description="asked in one sample, turn by turn, at most")
    samples_per_window: int | None = Field(None, ge=1, description="in one epoch, at most; null = no limit")
    lengths: str | dict[int, float] = Field(
        "pool-native",
        description="pool-native = as they come; long-biased = 83.9 % from 100K; uniform = 32-64K, 64-96K, from 96K "
        "alike; or shares of your own by the start of each bucket: {32K: 0.5, 64K: 0.5}",
    )
    token_budget: int | None = Field(
        None, ge=1, le=10**15, description="tokens of all samples over all epochs, such as 300M or 5B; null = no limit"
    )
    epochs: int = Field(1, ge=1, le=100, description="how often a question may be used")
    short: ShortSettings = ShortSettings()

    @field_validator("tasks")
    @classmethod
    def _task_shares(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares and "short" in shares:
            raise ValueError("the share of short data is mixture.short.share; take 'short' out of the tasks")
        return None if shares is None else _checked_shares(shares)

    @field_validator("lengths", mode="before")
    @classmethod
    def _bucket_starts(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            if value not in LENGTH_POLICIES:
                raise ValueError(f"known: {', '.join(LENGTH_POLICIES)}, or shares by length such as {{32K: 1, 64K: 2}}")
            return value
        if len(value) > MAX_BUCKETS:
            raise ValueError(f"{len(value)} buckets; give at most {MAX_BUCKETS}")
        shares = {read_number(start, {"": 1, "K": 1_024}): share for start, share in value.items()}
        if len(shares) < len(value):
            raise ValueError("two buckets have the same start; keep one")
        return dict(sorted(shares.items()))

    @field_validator("lengths")
    @classmethod
    def _length_shares(cls, value: str | dict[int, float]) -> str | dict[int, float]:
        return value if isinstance(value, str) else _checked_shares(value)

    @field_validator("token_budget", mode="before")
    @classmethod
    def _read_budget(cls, value: Any) -> Any:
        return None if value is None else read_number(value, {"": 1, "K": 10**3, "M": 10**6, "B": 10**9})


Key = TypeVar("Key", str, int)


def _checked_shares(shares: dict[Key, float]) -> dict[Key, float]:
    for name, share in shares.items():
        if not 0 <= share <= MAX_SHARE:
            raise ValueError(f"the share of {name} is {share}; give a number from 0 to {MAX_SHARE:,}")
    if not sum(shares.values()) > 0:
        raise ValueError("no share is above 0; give at least one")
    return shares


def read_number(value: Any, units: Mapping[str, int]) -> int:
    """A whole number, or a text such as '1.5B' with one of `units`.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{0,9})?(?:[eE]\+?\d)?)\s*([A-Z]?)\s*", str(value), re.IGNORECASE)
    unit = found[2].upper() if found else "?"
    if found is None or isinstance(value, bool) or unit not in units:
        known = ", ".join(u for u in units if u)
        raise ValueError(f"{value!r} is no number of tokens; write a whole number, or one with {known}")
    return int(Decimal(found[1]) * units[unit])


class PackingSettings(Settings):
    """How samples become rows and rows become steps."""

    capacity: int = Field(131_072, ge=1, description="tokens of a row, at most")
    largest_sample: int | None = Field(None, ge=1, description="tokens of a sample, at most; null = capacity")
    row_lengths: tuple[int, ...] = Field(
        (), description="shorter rows beside those of capacity, e.g. [32768, 65536]; a step has rows of one length"
    )
    tokens_per_step: int = Field(4_194_304, ge=1, description="4 M tokens = 32 rows of 131,072")
    rows_per_step: int | None = Field(None, ge=1, description="overrides tokens_per_step")
    data_parallel_sizes: tuple[int, ...] = Field(
        (), description="sizes you will train at, e.g. [8, 16]: rows of a step become a multiple; [] = any divisor"
    )
    balance_window: int = Field(4_096, ge=1, description="rows among which steps are grouped by cost")
    pack_window: int | None = Field(None, ge=1, description="samples packed at a time; null = all: fewer rows")
    validation_share: float = Field(0.01, ge=0, lt=1, description="of the documents, chosen by their id")
    cost: CostSettings = CostSettings()
    hardware: HardwareSettings = HardwareSettings()

    @model_validator(mode="after")
    def _consistent(self) -> PackingSettings:
        for name, values in (("row_lengths", self.row_lengths), ("data_parallel_sizes", self.data_parallel_sizes)):
            if any(n < 1 for n in values):
                raise ValueError(f"{name} = {list(values)} must be positive")
        if any(n >= self.capacity for n in self.row_lengths):
            raise ValueError(f"row_lengths = {list(self.row_lengths)} must be below capacity = {self.capacity}")
        multiple = math.lcm(*self.data_parallel_sizes)
        if self.rows_per_step and self.rows_per_step % multiple:
            nearest = multiple * max(1, round(self.rows_per_step / multiple))
            raise ValueError(
                f"rows_per_step = {self.rows_per_step} is no multiple of every size in "
                f"data_parallel_sizes = {list(self.data_parallel_sizes)}; take {nearest}"
            )
        return self


class WorkerSettings(Settings):
    """Limits of a worker process. They never change what is written, only what is given up."""

    timeout_s: float = Field(120, gt=0, description="for a document, plus page_timeout_s a page")
    page_timeout_s: float = Field(20, gt=0)
    memory_mb: int = Field(4_096, ge=256, description="a worker above it is killed and its document rejected")
    recycle_after: int = Field(200, ge=1, description="tasks after which a worker is replaced, with what it leaked")


class StorageSettings(Settings):
    """How remote files are reached. None of these changes what is written."""

    timeout_s: float = Field(30, gt=0, description="a request that brings nothing for so long is tried again")
    attempts: int = Field(5, ge=1, le=100, description="for one request, in all")
    backoff_s: float = Field(0.5, ge=0, le=60, description="pause after the first failure; it doubles, up to 30 s")
    cache_dir: str | None = Field(
        None, description="where copies of remote PDFs are kept; null = ~/.cache/longdoc (or below $XDG_CACHE_HOME)"
    )
    cache_gb: float = Field(20, gt=0, description="the copies used least recently are deleted beyond it")


DEFAULT_STORAGE = StorageSettings()


class Config(Settings):
    """Everything a build depends on, besides its inputs."""

    model: str = Field("qwen2.5-vl", description=f"family that will be trained: {', '.join(FAMILIES)}")
    tokenizer: str | None = Field(
        None, description="folder or hub name, for exact text lengths; null = an upper bound that never overflows"
    )
    seed: int = Field(0, ge=0, lt=2**31)
    ingest: IngestSettings = IngestSettings()
    parse: ParseSettings = ParseSettings()
    ocr: OcrSettings = OcrSettings()
    clean: CleanSettings = CleanSettings()
    synth: SynthSettings = SynthSettings()
    render: RenderSettings = RenderSettings()
    messages: MessageSettings = MessageSettings()
    windows: WindowSettings = WindowSettings()
    shards: ShardSettings = ShardSettings()
    mixture: MixtureSettings = MixtureSettings()
    packing: PackingSettings = PackingSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: StorageSettings = StorageSettings()

    @field_validator("model")
    @classmethod
    def _known_family(cls, model: str) -> str:
        if model not in FAMILIES:
            raise ValueError(f"unknown family; known: {', '.join(FAMILIES)}")
        return model

    @model_validator(mode="after")
    def _rows_hold_samples(self) -> Config:
        if self.packing.capacity < self.windows.max_tokens:
            raise ValueError(
                f"packing.capacity {self.packing.capacity} is below windows.max_tokens {self.windows.max_tokens}: "
                "the largest sample would fit no row; raise the one or lower the other"
            )
        return self


def load_config(file: Path | None = None, assignments: tuple[str, ...] = ()) -> Config:
    """Defaults, overridden by a YAML file, overridden by `key.sub=value` assignments (values are YAML).

    Raises:
        ConfigError: unreadable file, unknown key (the nearest known one is named), or a value out of range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = _read_yaml(file)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r}: write key=value, e.g. --set render.dpi=144")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {assignment!r}: the value is not valid YAML") from None
        _assign(values, key.split("."), value, assignment)
    try:
        return Config.model_validate(values)
    except ValidationError as e:
        raise ConfigError(_explain(e, str(file) if file else "--set")) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read config {file}: {e.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        first = str(e).splitlines()[0]
        raise ConfigError(f"config {file} is not valid YAML: {first}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {file} must be a mapping of keys, not a {type(values).__name__}")
    return values


def _assign(values: dict[str, Any], path: list[str], value: Any, assignment: str) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {name!r} is a value, not a section")
    values[path[-1]] = value


def known_keys(settings: type[BaseModel] = Config, prefix: str = "") -> dict[str, type[BaseModel] | None]:
    """Every dotted key of the configuration; sections map to their class, values to None."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys[prefix + name] = kind
            keys.update(known_keys(kind, f"{prefix}{name}."))
        else:
            keys[prefix + name] = None
    return keys


def _explain(error: ValidationError, where: str) -> str:
    """The first fault in one line: where, the key, the value, and the way out."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys(), n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(Config.model_fields)}"
        return f"{where}: unknown config key {key!r}{hint}"
    value = fault.get("input")
    shown = f" = {value!r}" if not isinstance(value, dict | BaseModel) else ""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: config {key or 'values'}{shown}: {message[:1].lower() + message[1:]}"


def to_commented_yaml(settings: BaseModel, indent: str = "") -> str:
    """Every key with its value, and its meaning as a comment; loads back to the same configuration."""
    lines = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            meaning = (type(value).__doc__ or "").strip().splitlines()[0]
            lines.append(f"{indent}{name}:  # {meaning}\n{to_commented_yaml(value, indent + '  ')}")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            style = '"' if "\\n" in repr(value) else None  # else a line break within a text would end the value here
            dumped = yaml.safe_dump(plain, default_flow_style=True, default_style=style, width=float("inf"))
            shown = dumped.splitlines()[0]
            comment = f"  # {field.description}" if field.description else ""
            lines.append(f"{indent}{name}: {shown}{comment}\n")
    return "".join(lines)
