"""Who thinks: the turn loop of a worker, its mind, its conversation."""
