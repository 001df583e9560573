"""A broker's refusals and silences as this project's own failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import KafkaError

from pipeline.domain.errors import Unavailable


@contextmanager
def kafka_answers() -> Iterator[None]:
    """What aiokafka raises inside comes out as ``Unavailable("kafka")``."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable("kafka", type(error).__name__) from error
