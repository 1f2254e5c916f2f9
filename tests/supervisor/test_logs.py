"""What workers and zygotes write to stderr never fills a disk, and its end can be read."""

from __future__ import annotations

import os
from pathlib import Path

from brainjar.supervisor import logs


def test_a_log_that_is_too_long_is_emptied_and_goes_on_at_its_new_end(tmp_path: Path) -> None:
    fd = logs.append(tmp_path / "subject.log")
    os.write(fd, b"x" * (logs.LOG_BYTES + 1))
    logs.bound(fd)
    os.write(fd, b"after it\n")
    assert (tmp_path / "subject.log").read_bytes() == b"after it\n"
    os.close(fd)


def test_a_log_of_an_earlier_life_is_bounded_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "zygote.log"
    path.write_bytes(b"x" * (logs.LOG_BYTES + 1))
    fd = logs.append(path)
    assert logs.size(fd) == 0
    os.close(fd)


def test_one_that_is_short_is_left_alone(tmp_path: Path) -> None:
    fd = logs.append(tmp_path / "subject.log")
    os.write(fd, b"x" * 1000)
    logs.bound(fd)
    assert logs.size(fd) == 1000
    assert logs.tail(fd, 0)
    os.close(fd)
