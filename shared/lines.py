"""Lines of text that comes in pieces of bytes, as JSON lines and server-sent events have them."""


class Lines:
    """Cuts pieces into lines, which end with a line feed, and with nothing else that Unicode takes for the end of one.

    A message of JSON may hold U+2028 or U+0085 as it is.
    """

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, piece: bytes) -> list[str]:
        """The lines that are whole with this piece, without their ends."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        return [_text(line) for line in whole]

    def rest(self) -> list[str]:
        """What came behind the last end of a line, if anything."""
        return [_text(self._rest)] if self._rest else []


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")
