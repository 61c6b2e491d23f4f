"""Certificates for tests: servers on this machine that an authority of one's own vouches for, and who takes them."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


@dataclass(frozen=True)
class Certificate:
    """What a server shows, and what whoever trusts it knows."""

    authority: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1 and localhost, by an authority that nobody else knows."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority_key = folder / "authority.key"
    request = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    _openssl(
        *(*request, "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", authority_key, "-out", made.authority),
    )
    _openssl(
        *(*request, "-subj", "/CN=server", "-addext", NAMES, "-addext", "basicConstraints=CA:FALSE"),
        *("-CA", made.authority, "-CAkey", authority_key, "-keyout", made.key, "-out", made.certificate),
    )
    made.key.chmod(0o600)
    return made


def agree(trusted: Path, shown: Path, host: str) -> bool:
    """Whether a client takes a server with this certificate for that host, asking the library that both use."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    showing = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    showing.load_cert_chain(shown)
    client = ssl.create_default_context(cafile=trusted).wrap_bio(to_client, to_server, server_hostname=host)
    server = showing.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
