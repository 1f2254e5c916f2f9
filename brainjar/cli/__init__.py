"""The command line: one file per command, whose docstring is its documentation. Heavy imports happen when a command runs."""
