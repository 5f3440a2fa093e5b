"""Which nodes of a Ray cluster the parts of a run go to."""
