"""The `corpus` command. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from corpus import __version__
from corpus.errors import ConfigError, EngineError
from corpus.records import STAGES

USER_ERROR = 2
OUTSIDE_ERROR = 1
INTERRUPTED = 130


class _Place(click.Path):
    """A path, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            from corpus.storage import path_of

            return path_of(value)
        return super().convert(value, param, ctx)


PLACE = _Place(path_type=Path)


class _Corpus(click.Group):
    """Turns every foreseen error into one line and an exit code."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except click.UsageError as e:
            command = e.ctx.command_path if e.ctx else "corpus"
            _fail(f"{e.format_message().rstrip('.')}; see `{command} --help`", USER_ERROR)
        except click.ClickException as e:
            _fail(e.format_message(), USER_ERROR)
        except ConfigError as e:
            _fail(str(e), USER_ERROR)
        except EngineError as e:
            _fail(str(e), OUTSIDE_ERROR)
        except OSError as e:
            _fail(f"{e.filename or 'the system'}: {e.strerror or e}; name another path or mend it", USER_ERROR)
        except (KeyboardInterrupt, click.Abort):
            _fail("stopped; the same command goes on from here", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    from corpus.blocks import clean

    click.echo(f"corpus: {clean(message)}", err=True)
    sys.exit(code)


@click.group(cls=_Corpus, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="corpus")
def main() -> None:
    """Turn a folder of PDFs into a corpus for long-context vision-language training."""


@main.command(short_help="Build a corpus from PDFs.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, type=PLACE, help="Run directory to write or to continue, or its URL.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file; see `corpus config`.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes  [default: CPU cores]")
@click.option("--limit", type=click.IntRange(min=1), help="Take the first N inputs only.")
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage.")
@click.option("--password", envvar="LONGDOC_PASSWORD", help="For encrypted PDFs, or LONGDOC_PASSWORD; never stored.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def build(
    inputs: tuple[str, ...],
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    workers: int | None,
    limit: int | None,
    until: str,
    password: str | None,
    quiet: bool,
) -> None:
    """Build a corpus: ingest, parse, clean, synthesise, short, shard, plan, report.

    INPUT is a PDF file, a folder (searched for .pdf files), a glob, or a manifest (.jsonl or .parquet with a
    column `uri` and optionally license, title, language, source). Each may be a URL (s3://, gs://, https://).

    Running the same command again goes on where it stopped, and redoes only what changed. A run holds what its
    inputs name: fewer inputs into the same --out remove the rest. Every input ends in ledger.parquet as kept or
    rejected with a reason; rejected documents do not fail the build.
    """
    from corpus.config import load_config
    from corpus.pipeline import build as run_build
    from corpus.rundir import available_cores

    config = load_config(config_file, assignments)
    result = run_build(
        inputs,
        out,
        config,
        workers=workers or available_cores(),
        limit=limit,
        until=until,
        password=password,
        quiet=quiet,
    )
    if not quiet:
        from corpus.display import print_build

        print_build(result)


@main.command(short_help="Make a list of page hashes of benchmark PDFs.")
@click.argument("inputs", nargs=-1, required=True, metavar="PDF...")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes  [default: CPU cores]")
def fingerprint(inputs: tuple[str, ...], workers: int | None) -> None:
    """Print hashes by which a build recognises these PDFs and their pages, also re-saved, cropped or in part.

    PDF is a file, a folder or a glob. Save what is printed as a .txt file and name it in clean.decontaminate: with
    it, the owner of a benchmark keeps it out of other people's corpora without handing out the PDFs. A file that cannot
    be read is named on standard error, and the exit code is 1.
    """
    from corpus.benchmark_sets import fingerprint_lines
    from corpus.ingest import expand_inputs
    from corpus.rundir import available_cores

    problems = 0
    for line, problem in fingerprint_lines([s.uri for s in expand_inputs(inputs)], workers or available_cores()):
        click.echo(line or f"corpus: {problem}", err=not line)
        problems += bool(problem)
    sys.exit(OUTSIDE_ERROR if problems else 0)


@main.command(short_help="Pack a table of sample lengths into a plan.")
@click.argument("samples", type=PLACE, metavar="SAMPLES.parquet")
@click.option("--out", required=True, type=PLACE, help="Folder for the plan, or its URL.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file; see `corpus config`.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable.")
@click.option("--capacity", type=click.IntRange(min=1), help="Tokens of a row  [default: 131,072]")
@click.option("--rows-per-step", type=click.IntRange(min=1), help="Rows of a step  [default: 4,194,304 tokens' worth]")
@click.option("--seed", type=click.IntRange(min=0), help="[default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def pack(
    samples: Path,
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    capacity: int | None,
    rows_per_step: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Pack samples into rows and rows into balanced steps.

    SAMPLES is a Parquet, CSV or JSONL table with the columns sample_id and num_tokens, and optionally num_patches,
    num_supervised, patch_pairs (over its pages, the sum of their squared patches), task and split. It may come from
    anywhere; no other part of the pipeline is needed. Of the configuration, `model`, `packing` and `mixture` count.

    Every sample is packed, unless `mixture` says otherwise: --set mixture.token_budget=5B takes a part, and
    --set 'mixture.tasks={reasoning: 1, other: 4}' shares of the tasks.
    """
    from corpus.config import MixtureSettings, load_config
    from corpus.stages.plan import model_dims
    from packing.mixture_report import format_mixture
    from packing.mixture_table import TABLE, mix_file, write_mixture
    from packing.report import format_report
    from packing.table import pack_table

    given = {"packing.capacity": capacity, "packing.rows_per_step": rows_per_step, "seed": seed}
    given |= {"windows.min_tokens": 1, "windows.max_tokens": 1}  # windows are cut: rows may be as short as one likes
    config = load_config(config_file, (*assignments, *(f"{k}={v}" for k, v in given.items() if v is not None)))
    dims = model_dims(config)
    mixture, mixed = config.mixture, None
    if "tasks" not in mixture.model_fields_set:  # the shares of the recipe are for its own tasks
        mixture = mixture.model_copy(update={"tasks": None})
    if mixture != MixtureSettings(tasks=None):
        mixed = mix_file(samples, out, mixture, seed=config.seed)
        if not as_json:
            click.echo(format_mixture(mixed.mixture.report))
        write_mixture(out, mixed)
        samples = out / TABLE
    report = pack_table(samples, out, config.packing, config.seed, dims=dims)
    if as_json:
        chosen = {"mixture": mixed.mixture.report.as_dict()} if mixed else {}
        click.echo(json.dumps({**report.as_dict(), **chosen}, indent=2))
    else:
        click.echo(format_report(report))
        click.echo(f"written to {out / f'plan-{report.fingerprint}.parquet'}")


@main.command(short_help="Summarise a run, a shard or a plan.")
@click.argument("path", type=PLACE)
@click.option("--sample", help="Show one sample whole, by its id or the start of it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def inspect(path: Path, sample: str | None, as_json: bool) -> None:
    """Summarise PATH: a run directory, a shard (.tar) or a plan (.parquet)."""
    from corpus import display, inspection

    found = inspection.describe_sample(path, sample) if sample else inspection.describe(path)
    if as_json:
        click.echo(json.dumps(found, indent=2))  # in ASCII: U+009B and the like would steer a terminal
    elif sample:
        display.print_sample(found)
    else:
        display.print_description(found)


@main.command(short_help="Verify every promise of a run.")
@click.argument("run", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def lint(run: Path, as_json: bool) -> None:
    """Verify checksums, index offsets, counts, and the plan against the shards of RUN.

    Stops at the first broken promise with exit code 1.
    """
    from corpus.blocks import clean
    from corpus.inspection import BrokenPromise
    from corpus.linting import lint_run

    try:
        checks = lint_run(run)
    except BrokenPromise as e:
        broken = clean(str(e))
        click.echo(json.dumps({"ok": False, "broken": broken}) if as_json else f"broken: {broken}", err=not as_json)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"ok": True, "checked": checks}))
    else:
        for name, count in checks.items():
            click.echo(f"ok  {name}: {count}")


@main.command(short_help="Say which engines are usable here.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file; see `corpus config`.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def doctor(config_file: Path | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Say which engines and extras are usable here, and what to install for the others.

    PaddleOCR is tried in the interpreter that the setting ocr.python names.
    """
    from corpus.config import load_config
    from corpus.doctor import check, print_checks

    checks = check(load_config(config_file, assignments).ocr)
    if as_json:
        click.echo(json.dumps(checks, indent=2))
    else:
        print_checks(checks)


@main.command(short_help="Print the resolved configuration.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable.")
def config(config_file: Path | None, assignments: tuple[str, ...]) -> None:
    """Print the configuration as YAML: every key, its value and what it means."""
    from corpus.config import load_config, to_commented_yaml

    click.echo(to_commented_yaml(load_config(config_file, assignments)), nl=False)


if __name__ == "__main__":
    main()
