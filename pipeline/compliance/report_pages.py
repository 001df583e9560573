"""A subject report as a file: JSON, Markdown or HTML, written as it comes.

Values are somebody's text: in every form they are escaped, so that none of them is read as markup.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

from pipeline.compliance.subject_report import Facts, ReportedEvent

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>&~])")
_TITLE = "What the audit trail holds on a person"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #ccc;padding:.3rem;"
    "text-align:left;vertical-align:top;overflow-wrap:anywhere}h2{margin-top:2rem}"
)


class Page(Protocol):
    """One form of a report: head, events, foot, in this order; each in pieces of text."""

    def head(self, facts: Facts) -> Iterator[str]: ...
    def event(self, event: ReportedEvent) -> Iterator[str]: ...
    def foot(self, events: int) -> Iterator[str]: ...


def page_of(form: str) -> Page:
    """What writes a form (``markdown``, ``html``, ``json``); one for each report."""
    if form == "json":
        return JsonPage()
    return HtmlPage() if form == "html" else MarkdownPage()


class JsonPage:
    """One JSON object; ``events`` is an array, and ``count`` at the end says that it is whole."""

    def __init__(self) -> None:
        self._first = True

    def head(self, facts: Facts) -> Iterator[str]:
        document = {**asdict(facts), "subject": facts.subject._asdict()}
        text = json.dumps({"v": 1, **document}, default=_json, ensure_ascii=True)
        yield text[:-1] + ',"events":[\n'

    def event(self, event: ReportedEvent) -> Iterator[str]:
        yield "" if self._first else ",\n"
        self._first = False
        yield json.dumps(asdict(event), ensure_ascii=True)

    def foot(self, events: int) -> Iterator[str]:
        yield f'\n],"count":{events}}}\n'


class MarkdownPage:
    """CommonMark with tables."""

    def head(self, facts: Facts) -> Iterator[str]:
        yield f"# {_TITLE}\n\n"
        for name, value in _facts(facts):
            yield f"- {name}: {_md(value)}\n"
        yield "\n| kept where | for how long |\n|---|---|\n"
        for where, how_long in facts.kept:
            yield f"| {_md(where)} | {_md(how_long)} |\n"

    def event(self, event: ReportedEvent) -> Iterator[str]:
        yield f"\n## {_md(event.occurred_at)} {_md(event.action)}\n\n"
        for name, value in _event_facts(event):
            yield f"- {name}: {_md(value)}\n"
        yield "\n| field | value | meaning |\n|---|---|---|\n"
        for one in event.values:
            yield f"| {_md(one.path)} | {_md(_text(one.value))} | {_md(one.meaning)} |\n"

    def foot(self, events: int) -> Iterator[str]:
        yield f"\nEnd of the report: {events} events.\n"


class HtmlPage:
    """One HTML file that asks for nothing else."""

    def head(self, facts: Facts) -> Iterator[str]:
        yield (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{_TITLE}</h1>\n<ul>"
        )
        for name, value in _facts(facts):
            yield f"<li>{name}: {html.escape(value)}</li>"
        yield "</ul>\n<table><tr><th>kept where</th><th>for how long</th></tr>"
        for where, how_long in facts.kept:
            yield f"<tr><td>{html.escape(where)}</td><td>{html.escape(how_long)}</td></tr>"
        yield "</table>\n"

    def event(self, event: ReportedEvent) -> Iterator[str]:
        yield f"<h2>{html.escape(event.occurred_at)} {html.escape(event.action)}</h2>\n<ul>"
        for name, value in _event_facts(event):
            yield f"<li>{name}: {html.escape(value)}</li>"
        yield "</ul>\n<table><tr><th>field</th><th>value</th><th>meaning</th></tr>"
        for one in event.values:
            cells = (one.path, _text(one.value), one.meaning)
            yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        yield "</table>\n"

    def foot(self, events: int) -> Iterator[str]:
        yield f"<p>End of the report: {events} events.</p></body></html>\n"


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "tenant", facts.subject.tenant
    yield facts.subject.id_type, facts.subject.id
    yield "made", facts.made_at.isoformat(timespec="seconds")
    for since, until in facts.lives:
        ended = f"; erased {until.isoformat(timespec='seconds')}" if until else ""
        yield "known", f"since {since.isoformat(timespec='seconds')}{ended}"
    if not facts.lives:
        yield "known", "no: nothing is held on this person"
    yield "records that were refused and are kept encrypted", str(facts.dead_letters)
    yield "legal holds on these events", str(facts.holds)


def _event_facts(event: ReportedEvent) -> Iterator[tuple[str, str]]:
    yield "what kind of event", event.meaning
    yield "outcome", event.outcome
    yield "tenant", event.tenant
    yield "source", event.source
    if event.purpose:
        yield "purpose", event.purpose
    if event.ticket:
        yield "ticket", event.ticket
    if event.redacted:
        yield "cut from it before", ", ".join(event.redacted)
    yield "event id", event.event_id


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _md(text: str) -> str:
    """Text that CommonMark shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
