"""What the documents tell a reader to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from corpus.cli import main
from corpus.config import Config, known_keys, load_config, to_commented_yaml
from corpus.records import TASKS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands_options_and_settings_exist(document: Path) -> None:
    text = document.read_text()
    for command in re.findall(r"(?:^|`)corpus ([a-z]+)", text, re.MULTILINE):
        assert command in main.commands, command
    for command, arguments in re.findall(r"^(?:\$ )?corpus ([a-z]+)(.*)$", text, re.MULTILINE):
        known = {o for p in main.commands[command].params for o in p.opts}
        assert set(re.findall(r"(--[a-z-]+)", arguments)) <= known, arguments
    for key in re.findall(r"--set ([a-z_.]+)=", text):
        assert key in known_keys(), key


def test_the_readme_names_every_task() -> None:
    assert all(task in (ROOT / "README.md").read_text() for task in TASKS)


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= set(targets)


def test_the_printed_configuration_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_commented_yaml(Config()))
    assert load_config(file) == Config()
    assert set(yaml.safe_load(file.read_text())) == set(Config.model_fields)
