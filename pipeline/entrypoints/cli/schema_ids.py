"""The ids under which the registry has this release's schemas: what producers write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import RAW_PREFIX, subject_of
from pipeline.entrypoints.cli.registry import RegistryClient
from pipeline.entrypoints.cli.schemas import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.settings import Settings


def registered_ids(settings: Settings, families: Sequence[str] = ()) -> dict[str, int]:
    """Family → schema id, of all families or those named.

    Raises:
        ConfigurationError: A schema is not registered.
        Unavailable: The registry does not answer.

    """
    ids = {}
    with RegistryClient(settings) as registry:
        for candidate in shipped(families):
            found = registry.find(subject_of(RAW_PREFIX + candidate.family), candidate.text)
            if found is None:
                raise ConfigurationError(
                    f"the schema of {candidate.family} is not registered;"
                    " run: audit-trail schemas register"
                )
            ids[candidate.family] = int(found["id"])
    return ids
