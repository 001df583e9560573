"""``audit-trail rules``: exit status, tables, evaluation at a small size, backtest of a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.detections import evaluation
from pipeline.detections.evaluation import DEFAULT_SEED, EXPECTED, TUNING_SEEDS, Scope, evaluate
from pipeline.detections.files import load_rules
from pipeline.detections.vendor import try_records
from pipeline.entrypoints.cli.failures import ProblemFound
from pipeline.entrypoints.cli.main import app
from pipeline.entrypoints.cli.rule_tables import vendor_rows
from pipeline.generator.attacks import ATTACKS, labelled

ROOT = Path(__file__).parents[2]
RULES = ROOT / "agents" / "rules"
SMALL = Scope(seed=1, count=3_000, each=1, people_per_tenant=300)


def run(*words: str) -> tuple[object, str]:
    result = CliRunner().invoke(app, ["rules", *words])
    return result.exception, result.stdout


def test_the_evaluation_finds_every_attack_and_nothing_else() -> None:
    figures = evaluate([one.rule for one in load_rules(RULES).files], SMALL)

    assert figures.missed == []
    assert {label.split("/")[0] for label in figures.staged} == set(ATTACKS)
    assert figures.normal_events == 3_000
    assert figures.false_alerts == 0
    assert figures.good


def test_a_missing_rule_is_a_missed_attack_and_the_evaluation_is_not_good() -> None:
    some = [one.rule for one in load_rules(RULES).files if one.rule.name == "mass-delete"]

    figures = evaluate(some, SMALL)

    assert "mass-export/1" in figures.missed
    assert figures.rules["mass-delete"].found == {"mass-delete/1"}
    assert not figures.good


def test_what_fires_on_load_alone_is_a_false_alert(tmp_path: Path) -> None:
    text = (RULES / "privilege-escalation.yml").read_text(encoding="utf-8")
    (tmp_path / "privilege-escalation.yml").write_text(
        text.replace("[admin, Admin,", "[analyst, Admin,"), encoding="utf-8"
    )
    (rule,) = [one.rule for one in load_rules(tmp_path).files]

    figures = evaluate([rule], SMALL)

    assert figures.rules[rule.name].false_alerts > 5
    assert figures.per_100k(figures.false_alerts) > evaluation.FALSE_PER_100K_MAX


def test_the_seed_of_evidence_is_none_that_rules_were_tuned_with() -> None:
    assert DEFAULT_SEED not in TUNING_SEEDS
    assert set(EXPECTED) == set(ATTACKS)
    assert {name for names in EXPECTED.values() for name in names} <= {
        path.stem for path in RULES.iterdir()
    }


def test_the_command_says_by_its_exit_status_whether_the_rules_are_good_enough(
    tmp_path: Path,
) -> None:
    shutil.copy(RULES / "mass-delete.yml", tmp_path)
    words = ("evaluate", "--count", "300", "--seed", "1", "--each", "1", "-o", "json")

    problem, told = run(*words, "--folder", str(tmp_path))

    assert isinstance(problem, ProblemFound)
    (mass_delete, whole) = json.loads(told)["rules"]
    assert (mass_delete["rule"], mass_delete["found"], mass_delete["missed"]) == (
        "mass-delete",
        1,
        0,
    )
    assert whole["missed"] == len(ATTACKS) - 1


def test_lint_and_test_fail_for_a_bad_folder_and_say_why(tmp_path: Path) -> None:
    shutil.copy(RULES / "mass-delete.yml", tmp_path)
    assert run("lint", "--folder", str(tmp_path))[0] is None
    (tmp_path / "other.yml").write_text("name: other\nlevel: [\n", encoding="utf-8")

    problem, told = run("lint", "--folder", str(tmp_path), "-o", "json")

    assert isinstance(problem, ProblemFound)
    (row,) = json.loads(told)
    assert (row["file"], row["line"]) == ("other.yml", 3)
    assert isinstance(run("test", "--folder", str(tmp_path))[0], ProblemFound)


def test_the_shipped_rules_are_listed_with_their_conditions() -> None:
    problem, told = run("list", "-o", "json")
    by_name = {row["rule"]: row for row in json.loads(told)}

    assert problem is None
    assert by_name["mass-delete"]["condition"] == "deletions >= 11"
    assert by_name["password-spraying"]["timespan"] == "1h"


def test_a_backtest_counts_alerts_by_day(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    made = labelled(50, seed=3, start_at_us=1_790_000_000_000_000, attacks=["mass-delete"], each=1)
    file.write_text(
        "".join(
            json.dumps({"family": one.family, "event": one.event, "label": one.label}) + "\n"
            for one in made
        ),
        encoding="utf-8",
    )

    problem, told = run("backtest", str(file), "-o", "json")

    assert problem is None
    rows = [row for row in json.loads(told) if row["rule"] == "mass-delete"]
    assert [(row["level"], row["alerts"]) for row in rows] == [("high", 1)]
    assert rows[0]["day"].startswith("2026-09-")


def test_rules_of_one_event_fire_on_vendors_records() -> None:
    rules = [one.rule for one in load_rules(RULES).files]
    fired = {name for one in try_records(rules, ROOT / "samples") for name in one.fired}

    assert {"audit-configuration-changed", "privilege-escalation"} <= fired


def test_a_record_that_a_vendor_rule_wants_and_ours_do_not_says_why(tmp_path: Path) -> None:
    record = json.loads((ROOT / "samples/okta-systemlog.jsonl").read_text().splitlines()[0])
    line = {"rule": "Okta.Support.Reset", "expected": True, "log": record}
    (tmp_path / "okta-systemlog.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    rules = [one.rule for one in load_rules(RULES).files]

    (row,) = vendor_rows(rules, tmp_path)

    assert row["vendor_rule"] == "Okta.Support.Reset"
    assert (row["fired"], row["why_not"]) == ("", "no rule of one event wants it")


@pytest.mark.parametrize(
    "words", [("evaluate", "--quiet-days", "30"), ("backtest", "nowhere.jsonl")]
)
def test_wrong_usage_is_refused(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["rules", *words]).exit_code == 2
