"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "audit-trail-pipeline"


def product_version() -> str:
    """The installed distribution's version; ``0+source`` when run from a checkout."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+source"
