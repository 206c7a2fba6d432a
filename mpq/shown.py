"""Text from files, made safe to show: on a terminal, in the log of a CI run, in Markdown. No torch.

A layer name may hold anything. Control characters would move the cursor or set colors, bidirectional marks would reorder
a line, a line break would forge a line of output, and CI systems take `::error::`, `##[...]` and `##vso[...]` for commands.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence

from mpq.limits import MESSAGE_TEXT, SHOWN_TEXT

_LONGEST = 200  # characters of the first line of an error
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_COMMANDS = (
    "error|warning|notice|debug|group|endgroup|echo|set-output|set-env|save-state|stop-commands"
    "|add-path|add-mask|add-matcher|remove-matcher"
)
_COMMAND = re.compile(rf"(?:^\s*:(?=:))|:(?=:\s*(?:{_COMMANDS})\b)|\#\#(?=\w*\[)", re.IGNORECASE)
_BRACKET_COMMAND = re.compile(r"##(?=\w*\[)")
_MARKDOWN = re.compile(r"([\\`*\[\]|])")


ZERO_MARK = "0*"
"""A value that rounding has brought below zero, as people see it; files and JSON hold it as it was measured."""
ZERO_NOTE = "* rounding errors made it slightly negative: it is 0"
_ROUNDING = 1e-6  # rounding error of a zero divergence in single precision


def is_rounded_zero(value: float) -> bool:
    """Whether a value that cannot be negative is below zero only because of rounding."""
    return -_ROUNDING < value < 0


def printable(text: str) -> str:
    """`text` on one line, with invisible characters escaped and without commands to CI systems."""
    if not text.isascii() or not text.isprintable():
        text = _UNSEEN.sub(lambda found: _escape(found[0]), text)
    return _COMMAND.sub(lambda found: found[0][:-1] + _escape(found[0][-1]), text)


def visible(text: str) -> str:
    """`text` with invisible characters escaped; line breaks stay."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else _escape(found[0]), text)


def shown(value: object, most: int = SHOWN_TEXT) -> str:
    """The `repr` of a value on one line, cut to `most` characters, for values from files in messages."""
    return cut(printable(_REPR.repr(value)), most)


def shown_bare(value: object, most: int = SHOWN_TEXT) -> str:
    """Like `shown`, without quotes around a string."""
    return cut(printable(str(value)[: 2 * most]), most)


def cut(text: str, most: int) -> str:
    """The first characters of `text`, at most `most`."""
    return text if len(text) <= most else text[: most - 1] + "…"


def listed(texts: Sequence[str], most: int) -> str:
    """At most `most` texts, and the number of the others: "a, b and 3 more"."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that share each reason, from the reason of each name; both in their first order."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 layer", "2 layers"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A length of time in seconds, minutes or hours: "40 s", "12 min", "3 h"."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def times_smaller(before: float, after: float) -> str:
    """How two sizes compare: "3.97 times smaller", or "1.13 times larger" where headers are most of a tiny model."""
    return f"{before / after:.2f} times smaller" if before >= after else f"{after / before:.2f} times larger"


def one_line(text: str) -> str:
    """A message: one line, printable, of bounded length."""
    return cut(printable(" ".join(text[: 4 * MESSAGE_TEXT].split())), MESSAGE_TEXT)


def first_line(error: BaseException) -> str:
    """The first sentence of an error's message that says what is wrong, shortened, without a final period."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[0]
    if "TorchScript interpreter" in text:  # a TorchScript traceback; the cause is in its last line
        text = lines[-1].removeprefix("RuntimeError: ")
    elif "exported input tree spec" in text:
        text = "an exported program takes exactly the inputs that it was exported with, in number and nesting"
    elif text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    text = text.partition(". ")[0].rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def figure(value: float | None, stderr: float | None = None) -> str:
    """A number for people: four significant digits, with its standard error if known; "0*" if rounding made it slightly negative."""
    if value is None or value != value:
        return "-"
    text = ZERO_MARK if is_rounded_zero(value) else f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"
    return text if stderr is None or stderr != stderr else f"{text} ±{stderr:.2g}"


def bits_text(value: float) -> str:
    """Bits per weight in a sentence: three decimals, without final zeros.

    An exact value and the same value from a file, which keeps four decimals, give the same text.
    """
    return bits_cell(value).rstrip("0").rstrip(".")


def bits_cell(value: float) -> str:
    """`bits_text` with all three decimals, for the column of a table."""
    return f"{round(round(10_000 * value) / 10) / 1000:.3f}"  # halves go to the even digit; in binary, 4.4965 is not a half


def encodes(text: str) -> bool:
    """Whether a text can be encoded: it contains no unpaired surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_escaped(text: str) -> str:
    """A JSON document with invisible characters escaped; its own line breaks stay."""
    seen = _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else _json_escape(found[0]), text)
    return _BRACKET_COMMAND.sub(r"#\\u0023", seen)


def markdown(text: str) -> str:
    """`text` escaped for Markdown and Markdown tables: no link, image, code, emphasis, HTML or new cell."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\1", safe)


def markdown_code(text: str) -> str:
    """`text` as a code span in Markdown and Markdown tables."""
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def _escape(character: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(character)
    if character in known:
        return known[character]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class _Repr(reprlib.Repr):
    """Like `repr`, with bounded length, depth and time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, SHOWN_TEXT, SHOWN_TEXT, 40

    def repr_int(self, value: int, level: int) -> str:
        """An integer; very large ones cannot be written in decimal."""
        return f"a number of {value.bit_length()} bits" if value.bit_length() > 1024 else super().repr_int(value, level)


_REPR = _Repr()
