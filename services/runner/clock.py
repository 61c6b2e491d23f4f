"""How long a phase takes."""

from time import perf_counter


class Clock:
    """How long a phase takes, without what it waits for."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since = perf_counter()

    def pause(self) -> None:
        """Stop counting."""
        self._spent += perf_counter() - self._since

    def resume(self) -> None:
        """Go on counting."""
        self._since = perf_counter()

    def milliseconds(self) -> float:
        """Since it was made, but for its pauses."""
        return round((self._spent + perf_counter() - self._since) * 1000, 3)
