"""The index template, put by ``audit-trail migrate`` so that a worker needs no such privilege."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.settings import Settings


def install_template(settings: Settings) -> str:
    """Put the template, bring existing months up to it, check that it is the one in force.

    Raises:
        ConfigurationError: The index refuses it, or another template outranks it.
        Unavailable: The index does not answer.

    """
    return asyncio.run(_install(settings))


async def _install(settings: Settings) -> str:
    from elasticsearch import AsyncElasticsearch

    from sinks.bulk import prepare_index

    options: dict[str, Any] = {"request_timeout": settings.request_timeout_s, "max_retries": 0}
    if settings.elasticsearch_username:
        password = settings.elasticsearch_password.get_secret_value()
        options["basic_auth"] = (settings.elasticsearch_username, password)
    if settings.elasticsearch_ca_file is not None:
        options["ca_certs"] = str(settings.elasticsearch_ca_file)
    async with AsyncElasticsearch(settings.elasticsearch_url, **options) as client:
        await prepare_index(
            client,
            settings.index_prefix,
            replicas=settings.index_replicas,
            refresh_s=settings.index_refresh_s,
        )
    return f"{settings.index_prefix}-*"
