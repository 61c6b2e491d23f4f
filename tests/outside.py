"""Clients of NATS that are none of the platform's: what tests listen and speak with."""

from typing import Any

import nats
from nats.aio.client import Client

from shared.settings import Settings
from shared.tls import nats_tls


async def nats_client(settings: Settings, user: str = "infra", **options: Any) -> Client:
    """A connection as this user; `options` are those of nats-py."""
    return await nats.connect(
        settings.nats_urls, user=user, password=settings.nats_password(user), tls=nats_tls(settings), **options
    )
