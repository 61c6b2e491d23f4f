"""Connections that are encrypted, to servers that show who they are."""

import logging
import ssl

from shared.errors import Invalid
from shared.settings import Settings


def nats_tls(settings: Settings) -> ssl.SSLContext | None:
    """How connections to NATS are encrypted; None if they are not: no address is `tls://`, no authority was named."""
    is_wanted = settings.nats_ca_file is not None or any(url.startswith("tls://") for url in settings.nats_urls)
    return trusting(settings.nats_ca_file) if is_wanted else None


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """Trust servers whose certificate one of these authorities signed, or one that the system trusts.

    `Invalid` for a file that holds no certificates.
    """
    logging.getLogger("asyncio").addFilter(_is_news)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"{ca_file!r} is no file of certificates in PEM: {error}") from error


def _is_news(record: logging.LogRecord) -> bool:
    """Whether it is not what asyncio says of each encrypted connection of nats-py that its server ends.

    nats-py upgrades its connection with asyncio's `start_tls`, and the protocol of asyncio's streams says then that it
    would like to stay half open, which TLS cannot: it means nothing, and comes in whatever process uses NATS.
    """
    return not record.getMessage().startswith("returning true from eof_received()")
