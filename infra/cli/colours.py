"""The colours that states have in the terminal."""

from typing import Final

COLOURS: Final = {
    "success": "green",
    "passed": "green",
    "up": "green",
    "failed": "red",
    "error": "red",
    "down": "red",
    "warned": "yellow",
    "pending": "yellow",
    "running": "cyan",
    "cancelled": "bright_black",
}
"""State → colour."""
