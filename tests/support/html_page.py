"""A page of ours, read as a browser does."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """The page's text, and its tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def values_of(self, name: str) -> list[str | None]:
        """Return the values of an attribute, in order."""
        return [attributes[name] for _, attributes in self.tags if name in attributes]
