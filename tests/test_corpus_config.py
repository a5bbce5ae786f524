"""A configuration is refused in one line that names the value and the way out, or it is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.config import Config, MessageSettings, known_keys, load_config, to_commented_yaml
from corpus.errors import ConfigError


def refusal(file: Path | None = None, *assignments: str) -> str:
    with pytest.raises(ConfigError) as e:
        load_config(file, assignments)
    message = str(e.value)
    assert len(message.splitlines()) == 1
    return message


def yaml_file(folder: Path, text: str) -> Path:
    file = folder / "build.yaml"
    file.write_text(text)
    return file


def test_defaults_are_the_recipe() -> None:
    config = load_config()
    assert (config.model, config.render.dpi, config.seed) == ("qwen2.5-vl", 144, 0)
    assert (config.windows.min_tokens, config.windows.max_tokens) == (32_768, 131_072)
    assert (config.synth.min_segment_pages, config.synth.max_segment_pages) == (8, 15)
    assert config.packing.tokens_per_step == 32 * 131_072


def test_a_judge_that_would_not_be_asked_is_refused() -> None:
    model = ("synth.model=a", "synth.base_url=http://127.0.0.1:9/v1")
    judge = "synth.judge={base_url: http://127.0.0.1:8/v1, model: b}"
    assert "name the server of another in synth.judge: {base_url: ..., model: ...}" in refusal(
        None, "synth.backend=vllm", *model, "synth.judge_model=b"
    )
    assert "give one of them" in refusal(None, "synth.backend=openai", *model, "synth.judge_model=b", judge)
    for backend in ("openai", "vllm"):
        found = load_config(None, [f"synth.backend={backend}", *model, judge]).synth.judge
        assert found is not None
        assert (found.model, found.api_key_env) == ("b", None)


def test_a_file_overrides_defaults_and_an_assignment_overrides_the_file(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "seed: 3\nrender: {dpi: 100, quality: 80}\n")
    config = load_config(file, ("render.dpi=200", "synth.tasks=[ocr-full]", "model=qwen3-vl"))
    assert (config.seed, config.render.dpi, config.render.quality) == (3, 200, 80)
    assert config.synth.tasks == ("ocr-full",)
    assert config.model == "qwen3-vl"


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(yaml_file(tmp_path, "# nothing\n")) == load_config()


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("render.dpl", "render.dpi"),
        ("sede", "seed"),
        ("windows.max_token", "windows.max_tokens"),
        ("synt.tasks", "synth"),
        ("ocr.min_confidance", "ocr.min_confidence"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    message = refusal(None, f"{key}=1")
    assert f"unknown config key {key.partition('.')[0] if nearest == 'synth' else key!r}"[:-1] in message
    assert f"did you mean {nearest}" in message


def test_a_key_like_no_other_lists_what_there_is() -> None:
    assert "known: model, tokenizer, seed, ingest" in refusal(None, "zzzzqqq=1")


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("render.dpi=35", "render.dpi = 35: input should be greater than or equal to 36"),
        ("render.quality=101", "render.quality = 101"),
        ("render.dpi=sharp", "render.dpi = 'sharp'"),
        ("seed=-1", "seed = -1"),
        ("seed=", "seed = None"),
        ("model=qwen4", "model = 'qwen4': unknown family; known: qwen2.5-vl, qwen3-vl"),
        ("packing.cost.freeze=[vison]", "packing.cost.freeze.0 = 'vison': input should be 'vision', 'merger' or"),
        ("packing.cost.freezes=[vision]", "did you mean packing.cost.freeze"),
        ("packing.validation_share=1", "packing.validation_share = 1"),
        ("ocr.min_confidence=1.5", "ocr.min_confidence = 1.5"),
        ("mixture.token_budget=5X", "mixture.token_budget = '5X': '5X' is no number of tokens"),
        ("mixture.token_budget=0", "mixture.token_budget = 0"),
        ("mixture.token_budget=1.00000000001", "is no number of tokens"),
        ("mixture.tasks={a: 0}", "mixture.tasks: no share is above 0; give at least one"),
        ("mixture.tasks={a: -1}", "the share of a is -1.0; give a number from 0"),
        ("mixture.tasks={a: .nan}", "the share of a is nan"),
        ("mixture.tasks={short: 1}", "mixture.short.share; take 'short' out"),
        ("mixture.lengths=long", "known: pool-native, long-biased, uniform, or shares by length"),
        ("mixture.lengths={64X: 1}", "'64X' is no number of tokens"),
        ("mixture.lengths={64K: 1, 65536: 1}", "two buckets have the same start"),
        ("mixture.short.share=1", "mixture.short.share = 1"),
        ("ocr.language=Deutsch", "language: rapidocr does not read 'Deutsch'; known: af, az, bs, ca"),
        ("ocr.language=ko", "language: rapidocr does not read 'ko' (paddleocr reads it); known: "),
        (
            "ocr={engine: paddleocr, python: p, language: xx}",
            "language: paddleocr does not read 'xx'; known: af, ar, az",
        ),
        ("ocr.engine=paddleocr", "engine: paddleocr needs ocr.python"),
        ("ocr.device=gpu", "device: gpu is for engine: paddleocr"),
        ("ocr.engine=tesseract", "ocr.engine = 'tesseract'"),
        ("workers.timeout_s=0", "workers.timeout_s = 0"),
        ("workers.memory_mb=10", "workers.memory_mb = 10"),
        ("windows.min_tokens=200000", "max_tokens 131072 is below min_tokens 200000"),
        ("windows.max_tokens=262144", "packing.capacity 131072 is below windows.max_tokens 262144"),
        ("ingest={min_pages: 9, max_pages: 3}", "max_pages 3 is below min_pages 9"),
        ("synth={min_segment_pages: 20}", "max_segment_pages 15 is below min_segment_pages 20"),
        ("synth.tasks=[summary]", "unknown task 'summary'; known: extract-single"),
        ("synth.backend=openai", "backend: openai needs synth.model"),
        ("synth={backend: openai, model: m}", "needs synth.base_url, e.g. http://127.0.0.1:8000/v1"),
        ("synth.checks=[grammar]", "unknown check 'grammar'; known: format, evidence-pages"),
        ("synth.vllm.extra_args=[--port]", "'--port': longdoc sets it itself"),
        ("synth.backend=file", "needs at least one question file in synth.files"),
        ("messages.question_template=Answer", "must contain {question} exactly once"),
        ("messages.question_template='{question}{question}'", "must contain {question} exactly once"),
        ("render=5", "render = 5"),
        ("render.dpi.x=5", "render.dpi"),
    ],
)
def test_a_value_out_of_range_shows_the_key_and_the_value(assignment: str, says: str) -> None:
    assert says in refusal(None, assignment)


@pytest.mark.parametrize("assignment", ["render.dpi", "=3", "", "render.dpi=[1", "seed=1: 2: 3"])
def test_an_assignment_that_is_none_is_quoted(assignment: str) -> None:
    assert f"--set {assignment!r}" in refusal(None, assignment)


def test_a_value_cannot_become_a_section(tmp_path: Path) -> None:
    assert "'seed' is a value, not a section" in refusal(yaml_file(tmp_path, "seed: 1\n"), "seed.x=1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: [1", "is not valid YAML"),
        ("- seed\n", "must be a mapping of keys, not a list"),
        ("just words\n", "must be a mapping of keys, not a str"),
        ("seed: !!python/object:os.system {}\n", "is not valid YAML"),
        ("render:\n  dpi: 10\n", "render.dpi = 10"),
        ("1: 2\n", "1"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = yaml_file(tmp_path, text)
    message = refusal(file)
    assert str(file) in message
    assert says in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.yaml") == f"cannot read config {tmp_path / 'no.yaml'}: No such file or directory"
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"tokenizer: caf\xe9\n")
    assert "is not valid YAML" in refusal(tmp_path / "latin.yaml")


def test_a_mixture_is_written_as_people_write_numbers() -> None:
    mixture = load_config(None, ("mixture.token_budget=1.5B", "mixture.lengths={64k: 1, 32K: 3}")).mixture
    assert (mixture.token_budget, mixture.lengths) == (1_500_000_000, {32_768: 3.0, 65_536: 1.0})
    assert [load_config(None, (f"mixture.token_budget={n}",)).mixture.token_budget for n in ("300M", "5e9", "7")] == [
        300_000_000, 5_000_000_000, 7,
    ]  # fmt: skip
    assert load_config(None, ("mixture.tasks=null",)).mixture.tasks is None
    config = load_config(None, ("mixture.tasks={mine: 2}", "mixture.lengths={64K: 1, 32K: 3}"))
    assert Config.model_validate(yaml.safe_load(to_commented_yaml(config))) == config
    assert Config.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_every_key_is_known_by_its_dotted_name() -> None:
    keys = known_keys()
    assert {"seed", "render", "render.dpi", "workers.memory_mb"} <= keys.keys()
    assert keys["render.dpi"] is None
    assert keys["messages"] is MessageSettings


def test_the_printed_configuration_names_and_explains_every_key() -> None:
    printed = to_commented_yaml(load_config())
    for key in known_keys():
        assert f"{key.rpartition('.')[2]}:" in printed
    assert "dpi: 144" in printed
    assert "# a new shard begins past this size" in printed


def test_the_printed_configuration_loads_back(tmp_path: Path) -> None:
    config = load_config(None, ("render.dpi=200", "synth.tasks=[ocr-full, reasoning]", "ingest.max_pages=50"))
    assert load_config(yaml_file(tmp_path, to_commented_yaml(config))) == config


@pytest.mark.parametrize(
    "template", ["Look closely.\n{question}\n\nAnswer:", "{question}" + " again" * 400, "'{question}\""]
)
def test_a_long_template_of_several_lines_is_printed_on_one(template: str) -> None:
    config = Config(messages=MessageSettings(question_template=template))
    printed = to_commented_yaml(config)
    assert len(printed.splitlines()) == len(to_commented_yaml(Config()).splitlines())
    assert Config.model_validate(yaml.safe_load(printed)) == config


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\n '\":#\\"), max_size=20)


@settings(max_examples=100)
@given(
    before=TEXTS,
    after=TEXTS,
    files=st.lists(TEXTS, max_size=3),
    tokenizer=st.none() | TEXTS,
    share=st.floats(0, 0.99),
)
def test_any_configuration_survives_printing(
    before: str, after: str, files: list[str], tokenizer: str | None, share: float
) -> None:
    template = before.replace("{", "") + "{question}" + after.replace("{", "")
    config = Config.model_validate(
        {
            "tokenizer": tokenizer,
            "messages": {"question_template": template},
            "synth": {"files": files},
            "packing": {"validation_share": share},
        }
    )
    assert Config.model_validate(yaml.safe_load(to_commented_yaml(config))) == config
