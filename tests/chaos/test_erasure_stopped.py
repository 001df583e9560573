"""A worker stands still through an erasure. Its workers are its own: whoever wakes may recover for long."""

from __future__ import annotations

import signal
import time

import pytest

from pipeline.settings import Settings
from tests.chaos.erasing import approve, ask, everything_stored, written
from tests.chaos.processes import worker
from tests.erasure_support import Person, places, publish

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
