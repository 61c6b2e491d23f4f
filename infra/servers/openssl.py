"""The command `openssl`, which makes and uses the keys of a stack's own."""

import subprocess

from shared.errors import Invalid, Unavailable


def openssl(*arguments: str, content: bytes = b"") -> bytes:
    """What the command answers; `Invalid` where there is none, `Unavailable` when it says no."""
    try:
        result = subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise Invalid(
            "openssl is not on PATH: it makes the certificates of NATS and signs the tokens of Nessie; "
            "install it (Debian: apt install openssl)"
        ) from error
    if result.returncode != 0:
        raise Unavailable(f"openssl {arguments[0]} failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout
