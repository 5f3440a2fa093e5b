"""One run: config, build, training loop, evaluation, checkpoints, tracking."""
