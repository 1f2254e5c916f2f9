"""The dashboard: a client of bus and control socket like any other, over HTTP."""
