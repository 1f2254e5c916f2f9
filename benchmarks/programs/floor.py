"""The least that a supervisor in Python can be: pidfd, epoll, posix_spawn, a word over ZeroMQ. No limits, ledger, walls.

python floor.py COUNT ENDPOINT PROGRAM ARGUMENT… keeps COUNT copies of PROGRAM alive until SIGTERM
"""

from __future__ import annotations

import os
import select
import signal
import sys

import zmq


def main() -> None:
    count, endpoint, argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    context = zmq.Context(io_threads=1)
    events = context.socket(zmq.PUB)
    events.setsockopt(zmq.SNDHWM, 0)
    events.bind(endpoint)
    epoll = select.epoll()
    living: dict[int, int] = {}

    def spawn() -> None:
        pid = os.posix_spawn(argv[0], argv, os.environ, setsid=True)
        pidfd = os.pidfd_open(pid)
        living[pidfd] = pid
        epoll.register(pidfd, select.EPOLLIN)

    def end(*_: object) -> None:
        for pidfd in living:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    for _ in range(count):
        spawn()
    while True:
        for pidfd, _ in epoll.poll():
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            pid = living.pop(pidfd)
            os.close(pidfd)  # and so out of the epoll
            events.send(b"%d" % pid)
            spawn()


if __name__ == "__main__":
    main()
