"""The thread that owns the aiokafka consumer, set up for this project's transport.

What differs from Faust's own (0.15.3, pinned: these are private methods): a position outside of the
log stops its partition, a failed commit is a line in the log, and nothing looks for livelocks.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, cast

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.logging import log_event

log = logging.getLogger(__name__)

# The broker holds a fetch until it has so much for it, or for so long: a part of the latency. At 2,000
# events/s over twenty partitions, fetches that are answered with what is there bring ten events each,
# and the way of a batch through worker, broker and stores costs more than its events [measured].
_FETCH_MIN_BYTES = 256 * 1024
_FETCH_WAIT_MS = 100


class BatchThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = (
            self.app.assignor if self.app.tables.changelog_topics else RoundRobinPartitionAssignor
        )
        auth = driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            # A position outside of the log must stop its partition, never jump over records.
            auto_offset_reset="none",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_min_bytes=_FETCH_MIN_BYTES,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=True,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level="read_committed",
            **auth,
        )

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit for lag tools; failing is no matter, the ledger holds the position."""
        consumer = self._ensure_consumer()
        assigned = self.assignment()
        ours = {
            driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        try:
            await consumer.commit(ours)
        except KafkaError as error:
            log_event(log, "offset_commit_failed", level=logging.WARNING, error=error)
            return False
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector counts single messages: it would only raise false alarms."""

    async def reached(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Where fetching goes on, of those of the partitions that are still assigned: behind the records
        that were taken out, and behind what holds none.
        """
        consumer = self._ensure_consumer()
        found = {}
        for tp in partitions:
            with suppress(IllegalStateError):
                found[tp] = await consumer.position(driver.ensure_aiokafka_TP(tp))
        return found

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group committed, if any."""
        offset = await self.call_thread(
            self._ensure_consumer().committed, driver.ensure_aiokafka_TP(tp)
        )
        return cast("int | None", offset)
