"""A worker stands still through erasures, for longer than its session, and wakes."""

from __future__ import annotations

import signal
import time

import pytest

from pipeline.settings import Settings
from tests.chaos.erasing import approve, ask, everything_stored, written
from tests.chaos.form import FULL, SESSION_S
from tests.chaos.processes import wait_until, worker
from tests.erasure_support import Person, places, publish

PARTITIONS = 20  # of the five raw topics, as the stack makes them

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_a_worker_that_was_stopped_through_it_writes_nothing_of_the_person(
    signing: Settings,
) -> None:
    person = Person()
    with worker() as one, worker() as other:
        one.wait_ready()
        other.wait_ready()
        everything_stored(signing, publish(signing, person.events(6)))
        ids = publish(signing, person.events(6))
        one.signal(signal.SIGSTOP)
        try:
            request = ask(person)
            done = approve(request)
        finally:
            one.signal(signal.SIGCONT)
        assert done["state"] in ("inaccessible", "complete"), done

        everything_stored(signing, ids)
        time.sleep(8)
        assert places(signing, person, written([one, other])) == {}
        assert len(one.logged("erasure_applied")) + one.starts >= 2


def test_a_worker_that_wakes_recovers_what_others_wrote_to_its_tables_and_goes_on(
    signing: Settings,
) -> None:
    """Its recovery begins while fetches of before are under way: what they take must not be lost to it."""
    with worker() as one, worker() as other:
        for _ in range(10 if FULL else 3):
            one.wait_ready()
            other.wait_ready()
            person = Person()
            everything_stored(signing, publish(signing, person.events(6)))
            one.signal(signal.SIGSTOP)
            try:
                other.wait_ready(partitions=PARTITIONS)
                assert approve(ask(person))["state"] in ("inaccessible", "complete")
            finally:
                one.signal(signal.SIGCONT)
            wait_until(
                lambda: 0 < len(other.partitions()) < PARTITIONS, SESSION_S * 5, "the share of one"
            )
            one.wait_ready()
            everything_stored(signing, publish(signing, Person().events(40)))

        assert (one.starts, other.starts) == (1, 1)
