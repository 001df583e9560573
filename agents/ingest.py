"""The ingest agent: every record batch of the raw topics goes to delivery.

It never lets an exception out (Faust would ack the failing message and go on with the next), and it
acks nothing: the ledger holds the position.
"""

from __future__ import annotations

from typing import Any

import faust

from pipeline.domain.logs import RAW_TOPICS
from sinks.delivery import Delivery


class BatchSchema(faust.Schema[Any, Any]):
    """A message of the raw topics is a list of record batches already: nothing to decode."""

    def compile(self, app: Any, **_options: Any) -> Any:
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001
            return create_event(None, message.value, None, message)

        return decode


def register(app: faust.App, delivery: Delivery) -> None:
    """Feed delivery with every batch that this worker fetches."""
    topic = app.topic(*RAW_TOPICS, schema=BatchSchema())

    @app.agent(topic, name="ingest")
    async def ingest(stream: Any) -> None:
        async for event in stream.noack().events():
            for batch in event.value:
                delivery.submit(batch)
