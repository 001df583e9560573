"""Settings, shown: every one explained, secrets hidden, ``.env.example`` current."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.api.settings import RelaySettings, load_relay_settings
from pipeline.entrypoints.cli.settings_page import env_example, set_variables, setting_entries
from pipeline.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AUDIT_")]:
        monkeypatch.delenv(name)


def test_the_example_file_is_current() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()


def test_every_setting_is_explained_and_in_the_example() -> None:
    page = env_example()

    for entry in setting_entries():
        assert entry.meaning.endswith((".", ",", "..."))
        assert f"\n#{entry.variable}=" in page
    known = len(Settings.model_fields) + len(RelaySettings.model_fields)
    assert len({entry.variable for entry in setting_entries()}) == known


def test_no_secret_is_shown_not_even_its_default() -> None:
    secrets = [entry for entry in setting_entries() if entry.is_secret]

    assert {"AUDIT_DATABASE_URL", "AUDIT_KAFKA_PASSWORD"} <= {entry.variable for entry in secrets}
    assert all(entry.default == "" for entry in secrets)
    assert "postgresql://" not in env_example()


def test_the_example_uncommented_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.env"
    lines = [line.removeprefix("#") for line in env_example().splitlines() if "=" in line]
    # An empty path or secret means "not set"; leaving those out is what a person would do.
    file.write_text("\n".join(line for line in lines if not line.endswith("=")))
    monkeypatch.setenv("AUDIT_ENV_FILE", str(file))

    from_file = load_settings(), load_relay_settings()
    monkeypatch.delenv("AUDIT_ENV_FILE")
    assert from_file == (load_settings(), load_relay_settings())


def test_variables_of_environment_and_file_count_as_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.env"
    file.write_text("AUDIT_HTTP_PORT=1\n")
    monkeypatch.setenv("AUDIT_ENV_FILE", str(file))
    monkeypatch.setenv("AUDIT_LOG_LEVEL", "DEBUG")

    assert {"AUDIT_HTTP_PORT", "AUDIT_LOG_LEVEL"} <= set_variables()
    assert "AUDIT_HTTP_HOST" not in set_variables()
