"""The wheel, built and installed where the repository is not on the path: all of it is inside.

Nothing is downloaded: dependencies are those of the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import avro_schemas
from tests.ledger_support import empty_database, server_urls

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "agents", "sinks", "avro_schemas")
SOURCES = (".py", ".pyi", ".avsc", ".json", ".sql", ".yml")

Run = Callable[..., str]


def built(project: Path, folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=project, check=True, capture_output=True, timeout=120)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its folder."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, str(wheel)], check=True, capture_output=True, timeout=120)
    [site] = (home / "lib").glob("python*/site-packages")
    # A folder on the path, not a site: the editable install's own .pth in it is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    def run(program: str, *words: str, **env: str) -> str:
        done = subprocess.run(
            [str(installed / "bin" / program), *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_every_source_and_no_other_file(wheel: Path) -> None:
    sources = [
        file.relative_to(ROOT)
        for folder in (*PACKAGES, "schema")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in SOURCES or file.name == "py.typed"
    ]
    wanted = {
        str(Path("pipeline/db", file) if file.parts[0] == "schema" else file) for file in sources
    }

    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert {"pipeline/db/schema/audit_logs.sql", "avro_schemas/types/Actor.avsc"} <= held
    assert held == wanted


def test_the_wheel_of_the_sdk_holds_its_contract_and_its_types(tmp_path: Path) -> None:
    package = ROOT / "sdk" / "python" / "audit_sdk"
    wanted = {f"audit_sdk/{file.name}" for file in package.iterdir() if file.is_file()}

    with zipfile.ZipFile(built(package.parent, tmp_path)) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert {"audit_sdk/bundle.json", "audit_sdk/py.typed", "audit_sdk/fields.py"} <= held
    assert held == wanted


def test_the_installed_packages_are_those_of_the_wheel(installed: Path, run: Run) -> None:
    program = (
        "import importlib, importlib.metadata, json\n"
        f"found = {{name: importlib.import_module(name).__file__ for name in {PACKAGES}}}\n"
        "owners = importlib.metadata.packages_distributions()\n"
        f"print(json.dumps([found, [sorted(set(owners[name])) for name in {PACKAGES}]]))\n"
    )

    found, owners = json.loads(run("python", "-c", program))

    assert [path for path in found.values() if not Path(path).is_relative_to(installed)] == []
    assert owners == [["audit-trail-pipeline"]] * len(PACKAGES)


def test_the_command_line_helps_and_lists_its_settings(run: Run) -> None:
    assert "audit-trail doctor" in run("audit-trail", "--help")
    assert "AUDIT_KAFKA_BOOTSTRAP" in run("audit-trail", "settings")
    assert run("audit-trail", "settings", "-o", "env") == (ROOT / ".env.example").read_text()


def test_schemas_of_events_are_loaded_from_the_wheel(run: Run) -> None:
    program = (
        "import json\n"
        "from avro_schemas import families, leaves, load\n"
        "print(json.dumps({f: [load(f)['name'], len(list(leaves(f)))] for f in families()}))\n"
    )

    loaded = json.loads(run("python", "-c", program))

    assert list(loaded) == list(avro_schemas.families())
    assert all(name and count > 10 for name, count in loaded.values())


@pytest.mark.integration
def test_a_database_is_migrated_from_the_wheel(run: Run) -> None:
    urls = server_urls()
    if not urls:
        pytest.skip("no PostgreSQL: start the local stack and export its audit.env")
    program = (
        "import os\n"
        "from pipeline.db.migrate import migrate\n"
        "print(migrate(os.environ['AUDIT_DATABASE_ADMIN_URL'], months_ahead=0))\n"
    )

    with empty_database(urls) as database:
        revision = run("python", "-c", program, AUDIT_DATABASE_ADMIN_URL=database.urls["admin"])
        tables = database.run("admin", "SELECT count(*) FROM pg_tables WHERE tablename = 'leaves'")

    newest = max((ROOT / "schema" / "migrations" / "versions").glob("*.py")).stem
    assert revision.strip() == newest.partition("_")[0]
    assert tables == [(1,)]
