"""Clients of NATS that are none of the platform's: what tests listen and speak with."""

from typing import Any

import nats
from nats.aio.client import Client

from shared.settings import Settings
from shared.tls import nats_tls


async def nats_client(settings: Settings, user: str = "infra", **options: Any) -> Client:
    """A connection as this user; `options` are those of nats-py."""
    # After a handshake that took too long nats-py may wait without an end: a busy machine is given its time.
    given: dict[str, Any] = {"connect_timeout": 20, **options}
    return await nats.connect(
        settings.nats_urls, user=user, password=settings.nats_password(user), tls=nats_tls(settings), **given
    )
