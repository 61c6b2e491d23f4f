"""Bearer tokens that we sign: JSON Web Tokens (RFC 7519, RS256) under a key of the stack's own."""

import base64
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from infra.servers.openssl import openssl

ISSUER: Final = "rat"
_LIFE_SECONDS: Final = 10 * 365 * 24 * 3600
"""They are signed anew whenever the stack starts, and are as good as a password while it runs."""


def token_key(path: Path) -> Path:
    """The private key in this file, which only its owner may read; made if it is missing."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"))
        draft.rename(path)
    return path


def public_key(key: Path) -> str:
    """The public half of a key, as base64 of its DER."""
    return base64.b64encode(openssl("pkey", "-in", str(key), "-pubout", "-outform", "DER")).decode()


def sign_token(key: Path, role: str) -> str:
    """A token that says that whoever has it is this role."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": role, "upn": role, "groups": [role], "iat": now, "exp": now + _LIFE_SECONDS}
    message = f"{_encoded({'alg': 'RS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    return f"{message}.{_base64url(openssl('dgst', '-sha256', '-sign', str(key), content=message.encode()))}"


def _encoded(part: dict[str, Any]) -> str:
    return _base64url(json.dumps(part, separators=(",", ":")).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
