"""How full the file system is that a directory is on."""

from __future__ import annotations

import os
from pathlib import Path

from brainjar.watchdog.reading import Reading


class Disk:
    """As df(1) shows it: of what is in use and what everybody may still have. What is kept for root counts as neither."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> list[Reading]:
        where = str(self._directory)
        try:
            said = os.statvfs(self._directory)
        except OSError as error:
            return [Reading(sense="disk", where=where, why=error.strerror or str(error))]
        used = said.f_blocks - said.f_bfree
        total = used + said.f_bavail
        if said.f_blocks == 0:
            return [Reading(sense="disk", where=where, why="its file system tells no size")]
        if used < 0 or said.f_bavail > said.f_bfree or total <= 0:
            why = f"its file system says {said.f_blocks} blocks, {said.f_bfree} free, {said.f_bavail} available"
            return [Reading(sense="disk", where=where, why=why)]
        return [
            Reading(
                sense="disk",
                where=where,
                value=100 * used / total,
                used_bytes=used * said.f_frsize,
                total_bytes=total * said.f_frsize,
            )
        ]
