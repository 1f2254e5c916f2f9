"""Who keeps: one thread, one poll loop, no model, no rendering, no waiting."""
