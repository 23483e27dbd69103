"""Text of people and of data, made harmless for where it is shown.

A terminal obeys escape sequences, a list believes that a line break begins its next entry, and
bidirectional controls show a text in another order than it has. So nothing of this kind passes:
line breaks and tabs become a space, and every other character that is not to be seen is written as
its number. Not for HTML, which the templates escape, nor for Slack
(`pipelines.alerts.rendering`).
"""

import re
import unicodedata
from urllib.parse import urlsplit

_BREAKS = re.compile(r" *[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]\s*")
"""Line breaks and tabs, with the white space around them."""
_JOINERS = "\u200c\u200d"
"""Invisible, but Persian words and many emojis need them, and they harm nothing."""
_UNSEEN = ("Cc", "Cf", "Cs", "Cn", "Co")
"""Unicode's categories of controls, formats, halves of characters and what has no meaning."""
WORD_JOINER = "\u2060"
"""Shows as nothing, and takes away the meaning of a mark that it stands in."""
_MARKDOWN = re.compile(r"[\\`*_{}\[\]>#|~!]|^[-+]|(?<=^\d)\.")
"""What Markdown would take for a mark."""
_LINKING = re.compile(
    r"(?:https?|ftp|dict):(?=//)|www(?=\.)|@(?=[\w-])|:(?=[a-z+-][\w+\\-]*:)", re.IGNORECASE
)
"""What Airflow's and MLflow's pages make a link or a picture of without any mark: addresses, mail,
people, emojis. Each match is where a character that is not to be seen ends that."""


def one_line(text: str) -> str:
    """Return a text as one line that shows all of it and does nothing else."""
    return "".join(map(_seen, _BREAKS.sub(" ", text).strip()))


def as_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line.

    As Airflow's page (remark with GFM) and MLflow's (Showdown as GitHub) read it. `&` and `<` are
    entities, because MLflow's page shows a backslash before them. An address is broken by an
    invisible character, because Airflow's page looks for addresses where escapes are resolved
    already.
    """
    marked = _MARKDOWN.sub(r"\\\g<0>", one_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    return _LINKING.sub(f"\\g<0>{WORD_JOINER}", marked)


def safe_lines(text: str) -> str:
    """Return a text of several lines with its line breaks, and each line harmless.

    Only for what this project has put together: a line break in a text of people or data begins a
    line here too, so `one_line` comes first there.
    """
    lines = (_BREAKS.sub(" ", line.rstrip("\r")) for line in text.split("\n"))
    return "\n".join("".join(map(_seen, line)) for line in lines)


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, without its middle where it is longer.

    A title begins with what it is about and ends with the number, and both are worth more than a
    name between them.
    """
    if len(text) <= most:
        return text
    tail = most // 2
    return f"{text[: most - tail - 1]}…{text[len(text) - tail :]}"


def first_lines(text: str, most: int, where: str) -> str:
    """Return the beginning of a text in at most so many characters, and say where the rest is.

    It ends with a whole line, unless that were less than half of what there is room for.
    """
    if len(text) <= most:
        return text
    rest = f"(shortened: {where})"
    kept = text[: most - len(rest) - 1]
    lines = kept.rpartition("\n")[0]
    return f"{lines if 2 * len(lines) > most else kept}\n{rest}"


def link_target(uri: str) -> str:
    """Return an address that may be made a link, or '' where it must stay text.

    Only that of a page may: no browser opens a file that a page names, and `javascript:...` would
    run where it is clicked.
    """
    if not uri.isprintable() or any(map(str.isspace, uri)):
        return ""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    return uri if parts.scheme in ("http", "https") and parts.netloc else ""


def _seen(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNSEEN:
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{{{number:x}}}"
