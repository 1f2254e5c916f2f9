"""Lines onto a terminal: the alternate screen, and in each picture only those that are others than in the one before.

rich's `Live` renders all of them anew each time: at 200×60 that was five sixths of what a view cost, and all of it went over the line.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment

from brainjar.view.cells import Line, trim
from brainjar.view.screen import Screen


class Painter:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[Line] = []
        """What stands on the terminal."""
        self._width = 0
        self._on = False

    @property
    def on(self) -> bool:
        """It has the terminal."""
        return self._on

    def start(self) -> None:
        self._on = True
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        self._shown = []

    def paint(self, screen: Screen) -> None:
        lines = [trim(line, screen.width) for line in screen.lines]
        if (screen.width, len(lines)) != (self._width, len(self._shown)):
            self._width, self._shown = screen.width, []
            self._console.clear()
        first = 0
        while first < len(lines):
            if self._stands(first, lines[first]):
                first += 1
                continue
            end = first + 1
            while end < len(lines) and not self._stands(end, lines[end]):
                end += 1
            self._console.update_screen_lines([self._segments(line, screen.width) for line in lines[first:end]], 0, first)
            first = end
        self._shown = lines

    def stop(self) -> None:
        """Give the terminal back. Raise OSError where it is gone."""
        if self._on:
            self._on = False
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)

    def _stands(self, number: int, line: Line) -> bool:
        return number < len(self._shown) and self._shown[number] == line

    def _segments(self, line: Line, width: int) -> list[Segment]:
        found = [Segment(text, self._console.get_style(style) if style else None) for text, style in line]
        left = width - sum(cell_len(text) for text, _ in line)
        return [*found, Segment(" " * left)] if left > 0 else found
