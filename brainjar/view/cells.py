"""Text measured in the cells of a terminal: cut, filled, wrapped. A wide character takes two, a combining one none."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from rich.cells import cell_len, chop_cells, set_cell_size

Span = tuple[str, str]
"""Text and the name of its style."""
Line = list[Span]


def fit(text: str, width: int, align: Literal["<", ">"] = "<", more: str = "…") -> str:
    """`text` in exactly `width` cells; what does not fit ends in `more`."""
    if width <= 0:
        return ""
    have = len(text) if text.isascii() else cell_len(text)
    if have > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + more, width)
    fill = " " * (width - have)
    return fill + text if align == ">" else text + fill


def trim(line: Line, width: int) -> Line:
    """`line` cut to at most `width` cells."""
    out: Line = []
    for text, style in line:
        have = len(text) if text.isascii() else cell_len(text)
        if have > width:
            out.append((set_cell_size(text, width), style))
            return out
        out.append((text, style))
        width -= have
    return out


@lru_cache(maxsize=64)
def wrap(text: str, width: int) -> tuple[str, ...]:
    """The lines of `text`, none wider than `width` cells; broken at spaces where there are any. Empty lines are left out."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line, room = "", width
        for word in paragraph.split():
            need = len(word) if word.isascii() else cell_len(word)
            if line and need + 1 <= room:
                line, room = f"{line} {word}", room - need - 1
                continue
            if line:
                lines.append(line)
            if need > width:
                *whole, word = chop_cells(word, width)
                lines.extend(whole)
                need = cell_len(word)
            line, room = word, width - need
        if line:
            lines.append(line)
    return tuple(lines)
