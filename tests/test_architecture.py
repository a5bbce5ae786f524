"""Imports point one way, and what must be light is light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("corpus", "synth", "packing", "trainer_plugin")
MAY_IMPORT = {
    "corpus": {"corpus"},
    "synth": {"corpus", "synth"},
    "packing": {"corpus", "packing"},
    "trainer_plugin": {"corpus", "packing", "trainer_plugin"},
}
COMPOSITION_ROOT = ("corpus/pipeline.py", "corpus/cli.py", "corpus/stages/")
REMOTE = ("fsspec", "s3fs", "gcsfs", "aiohttp", "botocore", "aiobotocore")
HEAVY = (
    "pyarrow",
    "numpy",
    "pymupdf",
    "fitz",
    "onnxruntime",
    "PIL",
    "pydantic",
    "rich",
    "jinja2",
    "transformers",
    "torch",
    *REMOTE,
)

FILES = sorted(str(f.relative_to(ROOT)) for package in PACKAGES for f in (ROOT / package).rglob("*.py"))


def imports(source: str) -> set[str]:
    """Dotted names of every module that the source imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def imports_of(file: str) -> set[str]:
    return imports((ROOT / file).read_text())


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter loads for `code`, besides those it starts with."""
    program = f"import sys; before = set(sys.modules)\n{code}\nimport json\n"
    program += "print('\\n' + json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return top_level(set(json.loads(done.stdout.splitlines()[-1])))


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import a.b\nfrom c import d\nif x:\n    import e as f\ndef g():\n    from h.i import j"
    assert top_level(imports(source)) == {"a", "c", "e", "h"}
    assert "h.i.j" in imports(source)


@pytest.mark.parametrize("file", FILES)
def test_imports_point_one_way(file: str) -> None:
    if not file.startswith(COMPOSITION_ROOT):
        ours = top_level(imports_of(file)) & set(PACKAGES)
        assert ours <= MAY_IMPORT[file.partition("/")[0]]


def test_every_package_was_looked_at_and_the_composition_root_needs_its_exception() -> None:
    assert {file.partition("/")[0] for file in FILES} == set(PACKAGES)
    assert len(FILES) > 40
    beyond = {
        file for file in FILES if file.startswith("corpus/") and top_level(imports_of(file)) & {"synth", "packing"}
    }
    assert {"corpus/pipeline.py", "corpus/cli.py"} <= beyond


def test_the_command_line_imports_the_others_inside_functions() -> None:
    body = ast.parse((ROOT / "corpus/cli.py").read_text()).body
    at_the_top = ast.Module([n for n in body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    modules = imports(ast.unparse(at_the_top))
    assert top_level(modules) & set(PACKAGES) == {"corpus"}
    assert modules & {"corpus.config", "corpus.pipeline", "corpus.inspection"} == set()


def test_pymupdf_is_imported_in_one_place() -> None:
    assert [file for file in FILES if top_level(imports_of(file)) & {"pymupdf", "fitz"}] == ["corpus/render.py"]
    users = {file for file in FILES if "corpus.render.pymupdf" in imports_of(file)}
    assert users == {"corpus/parse.py", "corpus/paint.py", "corpus/doctor.py"}


def test_records_load_the_standard_library_alone() -> None:
    loaded = loaded_by("import corpus.records")
    assert "corpus" in loaded
    assert loaded - {"corpus"} <= sys.stdlib_module_names


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(
        f"from corpus.cli import main\ntry: main({arguments})\nexcept SystemExit as e: assert not e.code"
    )
    assert "click" in loaded
    assert loaded & set(HEAVY) == set()
    assert loaded & set(PACKAGES) == {"corpus"}


def test_local_builds_load_nothing_for_remote_storage() -> None:
    code = "import corpus.pipeline, corpus.linting, trainer_plugin.dataset\n"
    code += "from corpus.storage import path_of; path_of('runs/mine')"
    assert loaded_by(code) & set(REMOTE) == set()


def test_the_libraries_of_remote_storage_are_imported_in_one_place() -> None:
    users = {file: top_level(imports_of(file)) & set(REMOTE) for file in FILES}
    assert {file for file, used in users.items() if used} == {"corpus/storage.py", "synth/openai_chat.py"}
    assert users["synth/openai_chat.py"] == {"aiohttp"}  # which the official client runs on
