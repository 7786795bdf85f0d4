"""Every command line that README and the docs show is one that the program takes: its words and options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import TyperException

from apbatch.cli.main import application
from apbatch.config import CATALOGUE_VARIABLE

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What stands for words that are left out.
_LEFT_OUT = ("…", "...")
_LINE = re.compile(r"^\s*(?:apbatch|spark-submit|python jobs/)[ \w].*$", re.MULTILINE)
_IN_TEXT = re.compile(r"`((?:apbatch|spark-submit) [^`]+)`")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What options leave in the environment when they are read is taken away again."""
    for name in (CATALOGUE_VARIABLE, "APBATCH_DEBUG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def documented() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        indented = "\n".join(re.findall(r"^    .*$", text, re.MULTILINE))
        lines = [line for block in (*blocks, indented) for line in _LINE.findall(block)]
        named = [f"{words} …" for words in _IN_TEXT.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))]
        for line in dict.fromkeys([*lines, *named]):
            yield page.name, " ".join(line.split()).replace("HOST:PORT", "localhost:9000").replace("REVISION", "0")


def words_of(line: str) -> list[str] | None:
    """Return the words after `apbatch` of a command line; None for a program of Spark's or of somebody else."""
    words = shlex.split(
        line.replace("(", "\\(").replace(")", "\\)") if "'" not in line and '"' not in line else line, comments=True
    )
    for number, word in enumerate(words):
        if word in ("|", "||", "&&", ";", ">", "&") or word.startswith("2>"):
            words = words[:number]
            break
    if words[0] == "apbatch":
        return words[1:]
    program = next((word for word in words if word.startswith("jobs/")), None)
    if program is None:
        return None
    command = re.search(r"^ *main\((.*)\)", (ROOT / program).read_text(), re.MULTILINE)
    assert command is not None, program
    return [*re.findall(r'"([^"]+)"', command[1]), *words[words.index(program) + 1 :]]


def parse(command: Any, words: list[str]) -> None:
    """Read words as the program does, and run nothing."""
    complete = not any(word in _LEFT_OUT for word in words)
    try:
        context = command.make_context("apbatch", [word for word in words if word not in _LEFT_OUT])
        while hasattr(command, "resolve_command"):
            rest = [*context._protected_args, *context.args]
            if not rest:
                return  # a group is named
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except TyperException as error:
        message = error.format_message()
        lacks = "missing" in type(error).__name__.lower() or not message or "requires an argument" in message
        if complete or not lacks:
            raise


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_command_line_of_a_page_is_one(page: str) -> None:
    command, wrong = application(), []
    for where, line in documented():
        if where != page or (words := words_of(line)) is None:
            continue
        try:
            parse(command, words)
        except TyperException as error:
            wrong.append(f"{line}: {error.format_message()}")
    assert not wrong


def test_lines_are_found_and_wrong_ones_noticed() -> None:
    lines = dict.fromkeys(line for _, line in documented())
    assert len(lines) > 100
    for wrong in (
        "apbatch find --colums x",
        "apbatch misror QUERY",
        "apbatch sim seed hide",
        "apbatch ingest --jobs x",
    ):
        with pytest.raises(TyperException):
            parse(application(), words_of(wrong) or [])
