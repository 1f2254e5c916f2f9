"""The live view of a jar in a terminal: a client like any other, in a process of its own."""
