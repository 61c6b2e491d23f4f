"""Certificates of a stack's own: an authority that nobody else knows, and what it signs for each server.

All are made once. A key and its certificate are in one file, so that both are replaced at once.
"""

import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from infra.servers.directory import write_privately
from infra.servers.openssl import openssl
from shared.errors import Unavailable

_DAYS: Final = 3650
_RENEWAL_SECONDS: Final = 365 * 24 * 3600
"""What runs out within a year is made anew at a start."""
_USES: Final = "extendedKeyUsage=serverAuth,clientAuth"


def authority(folder: Path) -> Path:
    """The certificate of the authority in this folder, for whoever is to trust it.

    It is made if it is missing or about to run out; then all that it signs is made anew, too.
    """
    signing, trusted = _signing(folder), folder / "authority.pem"
    if not _lasts(signing, signing):
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        write_privately(signing, _made("authority", extensions))
    write_privately(trusted, openssl("x509", "-in", str(signing)).decode())
    return trusted


def certificate(folder: Path, name: str, hosts: Sequence[str]) -> Path:
    """The key and certificate, in one file, of a server that is found at these hosts: names, or IP addresses.

    It shows who the server is to clients, and to servers that it is itself a client of. It is made if it is missing,
    about to run out, for other hosts, or by another authority than that in the folder.
    """
    trusted, path = authority(folder), folder / f"{name}.pem"
    if not all(_lasts(path, trusted, *_looking_for(host)) for host in hosts):
        names = ",".join(f"{'IP' if _is_ip(host) else 'DNS'}:{host}" for host in hosts)
        extensions = (f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", _USES)
        signed = ("-CA", str(_signing(folder)), "-CAkey", str(_signing(folder)))
        write_privately(path, _made(name, extensions, *signed))
    return path


def _signing(folder: Path) -> Path:
    return folder / "authority.key.pem"


def _made(name: str, extensions: Iterable[str], *signed: str) -> str:
    """A new key and a certificate for it, signed by itself or by whom `signed` names."""
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    request = ("req", "-x509", "-new", "-key", "/dev/stdin", "-days", str(_DAYS), "-subj", f"/O=rat/CN={name}")
    added = [part for extension in extensions for part in ("-addext", extension)]
    return (key + openssl(*request, *added, *signed, content=key)).decode()


def _lasts(path: Path, trusted: Path, *arguments: str) -> bool:
    """Whether a certificate is there and will still be good when it would be time to renew it."""
    then = int(time.time()) + _RENEWAL_SECONDS
    try:
        openssl("verify", "-CAfile", str(trusted), "-attime", str(then), *arguments, str(path))
    except Unavailable:
        return False
    return True


def _looking_for(host: str) -> tuple[str, str]:
    return ("-verify_ip" if _is_ip(host) else "-verify_hostname", host)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
