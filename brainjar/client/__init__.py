"""A running jar seen from outside: where it is, what it says, what it can be asked. The only door of the view and the web."""
