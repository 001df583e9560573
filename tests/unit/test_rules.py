"""Rules as files: each keeps its own tests, a bad file stops nothing, tenants have their own bounds."""

from __future__ import annotations

import re
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detections.files import Loaded, load_rules
from pipeline.detections.lines import Unreadable, read
from pipeline.detections.reading import RuleFile, read_rule
from pipeline.detections.trials import run_tests, trial_hash
from pipeline.domain.detection.aggregate import Aggregator
from pipeline.domain.detection.rules import Kind, Of

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "agents" / "rules"
NAMED = {
    "brute-force-user", "brute-force-ip", "brute-force-many-sources", "password-spraying",
    "password-spraying-many-sources", "credential-stuffing", "success-after-attack", "mfa-fatigue",
    "mfa-disabled", "impossible-travel", "new-country", "session-hijack", "mass-data-access",
    "mass-delete", "bulk-versus-baseline", "export-created", "privilege-escalation",
    "self-granted-privilege", "create-and-delete-account", "after-hours-administration",
    "dormant-account", "impersonation", "audit-configuration-changed", "producer-silent",
    "sequence-gap", "dead-letter-spike",
}  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> Loaded:
    return load_rules(SHIPPED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mass-delete", "mfa-fatigue"):
        shutil.copy(SHIPPED / f"{name}.yml", tmp_path)
    return tmp_path


def edited(name: str, old: str, new: str) -> str:
    text = (SHIPPED / f"{name}.yml").read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1)


def test_every_shipped_file_is_a_rule_and_the_promised_ones_are_there(shipped: Loaded) -> None:
    names = {one.rule.name for one in shipped.files}

    assert shipped.refusals == []
    assert names == {path.stem for path in SHIPPED.iterdir()}
    assert names >= NAMED


def test_the_shipped_rules_are_in_what_is_installed() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]

    assert "agents" in wheel["wheel"]["packages"]
    assert not [one for one in wheel["wheel"]["exclude"] if "yml" in one or "rules" in one]
    assert load_rules(Path(str(files("agents") / "rules"))).rules == load_rules(SHIPPED).rules


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yml")))
def test_each_rule_passes_its_own_tests(name: str) -> None:
    file = read_rule((SHIPPED / f"{name}.yml").read_text(encoding="utf-8"), name)
    results = list(run_tests(file))

    assert [one for one in results if not one.passed] == []
    assert {one.wanted > 0 for one in results} == {True, False}


def test_each_rule_has_a_section_of_the_runbook(shipped: Loaded) -> None:
    text = (ROOT / "docs/runbooks/detections.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (\S+)$", text, re.MULTILINE))

    assert headings == {one.rule.name for one in shipped.files}


def test_a_test_that_expects_too_much_fails() -> None:
    text = edited(
        "mass-delete", "repeat: 25, step: 1m}\n    alerts: 1", "repeat: 9, step: 1m}\n    alerts: 1"
    )

    failed = [one.test for one in run_tests(read_rule(text, "mass-delete")) if not one.passed]

    assert failed == ["twenty-five in half an hour"]


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("level: high", "level: grave", 3, "level is none of informational, low"),
        ("dedup: 1h", "dedup: soon", 14, "no duration"),
        ("dedup: 1h", "dedup: 1h\ndedup: 2h", 15, "dedup stands twice"),
        ("title: Many", "titel: Many", 2, "there is no titel"),
        ("family: admin-action", "family: admin", 17, "no such family"),
        ("operation: delete", "operatoin: delete", 18, "operatoin is no field of admin-action"),
        ("type: event_count", "type: event_counts", 21, "type is none of"),
        ("group-by: [actor]", "group-by: [actor.nick]", 22, "actor.nick is no field"),
        ("count: deletion", "count: deletions", 25, "there is no selection deletions"),
        ("gte: 11}", "gte: 11, lte: 12}", 25, "both gte and lte"),
        ("gte: 11}", "gte: many}", 25, "gte is no number"),
        ("[actor]", "&a [actor]", 22, "anchors are not taken"),
        ("[actor]", "!!set {a}", 22, "tags are not taken"),
        ("name: mass-delete", "name: mass-deletion", 1, "the name is not that of the file"),
        ("attack.impact", "impact", 10, "not of ATT&CK"),
        ("detections.md#mass-delete", "detections.md#mass", 13, "the runbook is not"),
        ("selections:", "selections: [", 18, "expected ',' or ']'"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_line_and_the_reason(
    old: str, new: str, line: int, reason: str
) -> None:
    with pytest.raises(Unreadable) as refused:
        read_rule(edited("mass-delete", old, new), "mass-delete")

    assert reason in refused.value.reason
    assert abs(refused.value.line - line) <= 1


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("password-spraying", "band: [2, 6]", "band: [2]", "it is of two"),
        (
            "credential-stuffing",
            "ratio: [tries, users]",
            "ratio: [tries]",
            "it is of two",
        ),
        (
            "credential-stuffing",
            "ratio: [tries, users]",
            "ratio: [tries, usrs]",
            "of no such measures",
        ),
        (
            "dead-letter-spike",
            "  dead:\n    family",
            "  dead-ones:\n    family",
            "one of dead, all",
        ),
        ("new-country", "  field: place.country\n", "", "field is missing"),
        ("success-after-attack", "gte: 20", "gte: 200", "counts up to 32 events"),
    ],
)
def test_what_a_type_needs_is_asked_for(name: str, old: str, new: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_rule(edited(name, old, new), name)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_is_done_to_a_file_it_is_a_rule_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(path.stem for path in SHIPPED.glob("*.yml"))))
    lines = (SHIPPED / f"{name}.yml").read_text(encoding="utf-8").splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        words = re.split(r"(\W+)", lines[at])
        place = data.draw(st.integers(0, len(words) - 1))
        words[place] = data.draw(
            st.sampled_from(
                ["", "5", "true", "[]", "{}", "[a]", "x", "- y", ": ", '"', "-1", "1.5", "*"]
            )
        )
        lines[at] = "".join(words)

    try:
        file = read_rule("\n".join(lines), name)
    except Unreadable as refused:
        assert 1 <= refused.line <= len(lines) + 1  # noqa: PT017
        assert refused.reason  # noqa: PT017
    else:
        Aggregator([file.rule], trial_hash)


def test_a_rule_without_a_test_that_alerts_is_refused() -> None:
    with pytest.raises(Unreadable, match="a test that alerts"):
        read_rule(edited("mass-delete", "alerts: 1", "alerts: 0"), "mass-delete")


def test_words_that_look_like_truth_or_a_time_are_texts() -> None:
    parts = read("a: no\nb: 12:30\nc: true\nd: 1.5\ne: '5'\n").mapping("the file")

    assert [part.value for part in parts.values()] == ["no", "12:30", True, 1.5, "5"]


def test_a_bad_file_stops_that_file_alone_and_its_last_good_rule_stays(folder: Path) -> None:
    before = load_rules(folder)
    (folder / "mass-delete.yml").write_text("name: [\n", encoding="utf-8")
    (folder / "new.yml").write_bytes(b"\xff")

    after = load_rules(folder, last=before)
    afresh = load_rules(folder)

    assert [one.rule.name for one in after.files] == ["mass-delete", "mfa-fatigue"]
    assert after.files[0] == before.files[0]
    assert [one.rule.name for one in afresh.files] == ["mfa-fatigue"]
    assert sorted(str(one) for one in after.refusals) == [
        "mass-delete.yml:2: expected the node content, but found '<stream end>'",
        "new.yml:1: not UTF-8 at byte 0",
    ]


def test_nothing_is_read_anew_until_a_file_changes_and_a_removed_rule_is_gone(folder: Path) -> None:
    before = load_rules(folder)

    assert load_rules(folder, last=before) is before
    (folder / "mass-delete.yml").unlink()
    assert [one.rule.name for one in load_rules(folder, last=before).files] == ["mfa-fatigue"]


def test_a_tenant_has_its_own_bound(folder: Path, tmp_path: Path) -> None:
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text("mass-delete:\n  acme:\n    deletions: 30\n", encoding="utf-8")

    loaded = load_rules(folder, overrides=overrides)
    file = next(one for one in loaded.files if one.rule.name == "mass-delete")
    results = {one.test: one.found for one in run_tests(file)}

    assert loaded.refusals == []
    assert results["twenty-five in half an hour"] == 0  # the tests are of tenant acme
    assert file.rule.holds("globex", {"deletions": 25})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mass-deletion:\n  acme:\n    deletions: 30\n", "there is no rule mass-deletion"),
        ("mass-delete:\n  acme:\n    deletion: 30\n", "mass-delete has no bound deletion"),
        ("mass-delete:\n  acme:\n    deletions: many\n", "deletions is no number"),
    ],
)
def test_wrong_overrides_are_refused_and_the_last_ones_stay(
    folder: Path, tmp_path: Path, text: str, reason: str
) -> None:
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text("mass-delete:\n  acme:\n    deletions: 30\n", encoding="utf-8")
    before = load_rules(folder, overrides=overrides)
    overrides.write_text(text, encoding="utf-8")

    after = load_rules(folder, overrides=overrides, last=before)

    assert [one.reason for one in after.refusals] == [reason]
    assert after.rules["mass-delete"].overrides == {"acme": {"deletions": 30}}
    assert load_rules(folder, overrides=overrides).rules["mass-delete"].overrides == {}


def figures(file: RuleFile) -> dict[str, tuple[float | None, float | None]]:
    return {one.name: (one.gte, one.lte) for one in file.rule.measures}


@pytest.mark.parametrize(
    ("name", "minutes", "expected"),
    [
        ("brute-force-user", 60, {"failures": (20, None)}),
        ("brute-force-ip", 60, {"failures": (20, None)}),
        ("brute-force-many-sources", 30, {"failures": (10, None), "addresses": (5, None)}),
        ("password-spraying", 60, {"tries": (15, None), "users": (5, None), "most-per-user": (None, 8)}),
        (
            "password-spraying-many-sources",
            15,
            {"tries": (25, None), "users": (8, None), "addresses": (5, None), "users-with-few": (0.8, None)},
        ),
        ("credential-stuffing", 15, {"tries": (25, None), "users": (15, None), "tries-per-user": (None, 2)}),
        ("mfa-fatigue", 10, {"denials": (5, None)}),
        ("session-hijack", 9, {"devices": (4, None), "addresses": (2, None)}),
        ("mass-data-access", 3, {"things": (25, None)}),
        ("mass-delete", 60, {"deletions": (11, None)}),
        ("impossible-travel", 1_440, {"distance-km": (500, None), "speed-km-h": (900, None)}),
    ],
)  # fmt: skip
def test_the_shipped_rules_have_the_figures_of_their_sources(
    shipped: Loaded,
    name: str,
    minutes: int,
    expected: dict[str, tuple[float | None, float | None]],
) -> None:
    file = next(one for one in shipped.files if one.rule.name == name)

    assert file.rule.timespan_us == minutes * 60_000_000
    assert expected.items() <= figures(file).items()


def test_counts_in_order_stay_within_what_a_cell_keeps(shipped: Loaded) -> None:
    for file in shipped.files:
        if file.rule.kind is Kind.TEMPORAL_ORDERED:
            assert all(one.of is Of.COUNT and (one.gte or 0) <= 32 for one in file.rule.measures)
