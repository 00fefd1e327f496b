"""The entries of the guest book, kept in memory."""

from collections import deque

from markupsafe import Markup, escape

PAGE = Markup("<!doctype html><title>Guest book</title><h1>Guest book</h1><ul>{}</ul>\n")


class Book:
    """The newest entries, with a bound."""

    def __init__(self, keep: int = 100) -> None:
        self._entries: deque[str] = deque(maxlen=keep)

    def add(self, text: str) -> None:
        text = text.strip()
        if not text:
            raise ValueError("an entry needs words")
        self._entries.append(text)

    def html(self) -> str:
        items = Markup("").join(Markup("<li>{}</li>").format(entry) for entry in self._entries)
        return str(PAGE.format(items))


def is_compiled() -> bool:
    """Whether escaping runs in C."""
    return escape.__module__ == "markupsafe._speedups"
