"""What the program says when it will not go on: one line for people, and the exit status that goes with it."""


class BrainjarError(Exception):
    """A failure the user should read about. The message is one line; the CLI prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(BrainjarError):
    """Configuration or usage: running it again without changing something can never work."""

    exit_code = 2


class NoJar(BrainjarError):
    """The named jar is not running."""

    exit_code = 3
