"""What off-policy algorithms share: config, replay, the two clocks, and the RLlib adapters."""
