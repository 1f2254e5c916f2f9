"""A supervisor for minds that die."""

__version__ = "0.1.0"
