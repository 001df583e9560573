"""The documents name what exists: commands, files, tests, settings, metrics, tables, and true examples."""

from __future__ import annotations

import re
import shlex
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import typer.main
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.codec.judge import import_token
from pipeline.domain.errors import Reason
from pipeline.domain.merkle import Frontier, leaf_hash
from pipeline.entrypoints.cli.main import app
from pipeline.entrypoints.cli.metrics_page import catalogue
from pipeline.entrypoints.cli.settings_page import setting_entries
from pipeline.entrypoints.cli.topics import topic_specs
from pipeline.keys.provider import LocalKeyProvider
from pipeline.keys.subjects import Subject, subject_message
from pipeline.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "RFC.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "infra/local/README.md",
]
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
SOURCES = ("agents", "avro_schemas", "infra", "pipeline", "schema", "scripts", "sinks", "tests")
# Made by commands, not kept in the repository.
MADE = ("build", ".stack", ".venv")
METRIC = re.compile(r"audit_[a-z_]+_(?:total|seconds|bytes|records|ids|paused)\b")


def fences(document: Path) -> list[str]:
    return FENCE.findall(document.read_text(encoding="utf-8"))


def spans(document: Path) -> list[str]:
    return SPAN.findall(FENCE.sub("", document.read_text(encoding="utf-8")))


def shell_lines(document: Path) -> list[str]:
    """Lines of code blocks and spans, without their comments."""
    lines = [line for fence in fences(document) for line in fence.splitlines()]
    return [re.sub(r"\s+# .*$", "", line).strip() for line in [*lines, *spans(document)]]


@cache
def source_words() -> frozenset[str]:
    """Every word of everything that is no document."""
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*")]
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for file in [*files, ROOT / "Makefile", ROOT / "pyproject.toml"]
        if file.is_file()
        and file.suffix not in (".pyc", ".jsonl", ".md")
        and file != Path(__file__)
    ]
    return frozenset(re.findall(r"\w+", "\n".join(texts)))


def section(title: str) -> str:
    """A section of the specification, up to the next one of its level or above."""
    text = (ROOT / "RFC.md").read_text(encoding="utf-8").split(f"\n{title}\n")[1]
    return re.split(rf"\n#{{2,{title.count('#')}}} ", text)[0]


def rows(table: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, headings included."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def listed(title: str) -> list[str]:
    """The names in the first column of a section's tables."""
    return [name for cells in rows(section(title)) for name in SPAN.findall(cells[0])]


def audit_trail(line: str) -> list[str] | None:
    """The words after the program, if a line runs it."""
    match = re.match(r"(?:\S+/)?audit-trail\s+(.*?)(?:\s[>|].*)?$", line)
    return shlex.split(match[1]) if match and "…" not in line else None


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and what is left for it."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while left and left[0] in getattr(command, "commands", {}):
        command = command.commands[left.pop(0)]
    return command, left


@each_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for line in shell_lines(document):
        match = re.fullmatch(r"make ([a-z]+)", line)
        assert match is None or match[1] in targets, line


@each_document
def test_every_command_named_is_one_of_the_command_line(document: Path) -> None:
    for line in shell_lines(document):
        words = audit_trail(line)
        if words is None or words[0] == "--install-completion":
            continue
        command, left = resolve(words)
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.name != "audit-trail", f"{line}: no such command"
        assert {word for word in left if word.startswith("--")} <= options, line
        assert command.get_help(command.make_context("x", [], resilient_parsing=True)), line


@each_document
def test_every_command_in_a_block_can_be_typed_as_it_stands(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)

    for fence in fences(document):
        for line in fence.splitlines():
            words = audit_trail(re.sub(r"\s+# .*$", "", line))
            if words is not None:
                command, left = resolve(words)
                command.make_context(line, left)  # parses and checks; runs nothing


@pytest.mark.parametrize("sdk", ["python", "nodejs", "go"])
def test_the_quick_start_of_each_sdk_adds_its_tenant_by_a_line_that_can_be_typed(sdk: str) -> None:
    readme = ROOT / "sdk" / sdk / "README.md"
    named = [line for line in shell_lines(readme) if "audit-trail " in line]

    (line,) = named
    settings, command_line = line.split(maxsplit=1)
    words = audit_trail(command_line)
    assert settings == "AUDIT_ENV_FILE=.stack/audit.env"  # as in the README of the whole
    assert f"export {settings}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert words is not None
    command, left = resolve(words)
    command.make_context(line, left)  # parses and checks; runs nothing


def test_every_shell_line_of_the_readme_is_of_a_checked_kind() -> None:
    schema = (ROOT / "schema/audit_logs.sql").read_text() + (
        ROOT / "schema/log_heads.sql"
    ).read_text()
    health = (ROOT / "pipeline/entrypoints/health.py").read_text()
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    pages = {
        settings["http_port"]: ("/metrics", "/readyz"),
        settings["signer_http_port"]: ("/readyz",),
        urlsplit(settings["elasticsearch_url"]).port: (f"/{settings['index_prefix']}-*/_search",),
    }

    for line in "".join(fences(ROOT / "README.md")).splitlines():
        if line.startswith("curl "):
            address = urlsplit(shlex.split(line)[1])
            assert address.path in pages[address.port], line
            assert address.path.endswith("_search") or f'"{address.path}"' in health
        elif "psql" in line:
            query = re.search(r"SELECT (.+) FROM (\w+)", line)
            assert query, line
            assert f"TABLE IF NOT EXISTS {query[2]} (" in schema, line
            for column in query[1].split(", "):
                assert re.search(rf"^    {column} ", schema, re.MULTILINE), column
        elif line.startswith("cp "):
            assert (ROOT / line.split()[1]).is_file(), line
        elif line.startswith("docker compose "):
            assert line in (ROOT / "infra/docker-compose.yml").read_text(), line
        else:
            assert re.match(r"make |export AUDIT_ENV_FILE=|\.venv/bin/audit-trail |$", line), line


@each_document
def test_every_path_named_exists(document: Path) -> None:
    top = {path.name for path in ROOT.iterdir()} - set(MADE)

    for span in spans(document):
        for word in span.split():
            path = word.split("::")[0].rstrip("/")
            if "/" in word and path.split("/")[0] in top and re.fullmatch(r"[\w./-]+", path):
                assert (ROOT / path).exists(), word


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}

    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(("page", "at_least"), [("guarantees", 50), ("privacy", 20)])
def test_every_promise_names_tests_that_exist(page: str, at_least: int) -> None:
    named = [span for span in spans(ROOT / f"docs/{page}.md") if span.startswith("tests/")]

    for span in named:
        path, _, name = span.partition("::")
        assert (ROOT / path).exists(), span
        if name:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), span
    assert len(named) > at_least


@each_document
def test_every_identifier_named_occurs_in_the_source(document: Path) -> None:
    pattern = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
    named = {span for span in spans(document) if pattern.fullmatch(span)}

    assert not named - source_words()


@each_document
def test_every_setting_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"\bAUDIT_[A-Z0-9_]*[A-Z0-9]\b", text))
    known = {entry.variable for entry in setting_entries()}

    assert not named - known - source_words()


@each_document
def test_every_metric_named_is_in_the_catalogue(document: Path) -> None:
    known = {entry.name for entry in catalogue()}

    assert set(METRIC.findall(document.read_text(encoding="utf-8"))) <= known


def test_the_specification_lists_every_reason_topic_table_and_role() -> None:
    files = [file.read_text(encoding="utf-8") for file in (ROOT / "schema").glob("*.sql")]
    tables = {
        name
        for file in files
        for name in re.findall(r"^CREATE TABLE [A-Z ]+ (\w+) ", file, re.MULTILINE)
    }
    roles = {
        name for file in files for name in re.findall(r"^COMMENT ON ROLE (\w+)", file, re.MULTILINE)
    }

    assert sorted(listed("### 8.3 Dead letters (fixed)")) == sorted(Reason)
    assert set(listed("### 8.1 Topics")) == {spec.name for spec in topic_specs(Settings())}
    assert set(listed("## 5. The ledger")) == tables | roles


def test_the_specification_has_the_defaults_of_the_limits() -> None:
    for cells in rows(section("## 11. Limits")):
        names = SPAN.findall(cells[2])
        numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", cells[1])
        if names and names[0] in Settings.model_fields:
            shown = [float(number.replace(",", "")) for number in numbers[: len(names)]]
            assert shown == [Settings.model_fields[name].default for name in names], names


def test_the_other_examples_of_the_specification_are_true() -> None:
    text = (ROOT / "RFC.md").read_text(encoding="utf-8")
    key = bytes(range(32))
    ref = UUID("0b9d6c54-7c0e-4f2e-9c51-3f1f3a6a1d10").bytes
    event = UUID("01939c1e-5a00-7000-8000-00000000002a").bytes
    plain = '{"actor.id":"u-1001","actor.name":"Zoë \\"Z\\" Quinn"}'
    blob_key = blake2b(key=key, person=b"blob", digest_size=32).digest()
    frontier = Frontier().append([leaf_hash(bytes([leaf])) for leaf in range(3)])
    message = subject_message(Subject("acme", "user_id", "u-1001"))

    for shown in (
        plain,
        blob_key.hex(),
        AESGCM(blob_key).encrypt(bytes(range(12)), plain.encode(), event + ref).hex(),
        *(leaf.hex() for leaf in frontier.hashes),
        frontier.root().hex(),
        LocalKeyProvider(key).mac(message).hex(),
        import_token(key, b"\x00\x00\x00\x00\x07abc").decode(),
    ):
        assert shown in text, shown
