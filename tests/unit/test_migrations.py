"""Migrations are one chain, each named by its place in it."""

from __future__ import annotations

from pathlib import Path

from alembic.script import ScriptDirectory

from pipeline.db.migrate import schema_folder


def test_the_migrations_are_one_chain_in_the_order_of_their_names() -> None:
    folder = schema_folder() / "migrations"
    names = sorted(path.stem for path in (folder / "versions").glob("*.py"))
    script = ScriptDirectory(str(folder))
    chain = [revision.revision for revision in script.walk_revisions()][::-1]

    assert script.get_heads() == [chain[-1]]
    assert [name.partition("_")[0] for name in names] == chain
    assert [Path(revision.path).stem for revision in script.walk_revisions()][::-1] == names
