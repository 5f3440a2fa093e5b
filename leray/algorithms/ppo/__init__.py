"""PPO, RLlib's own, behind LeRay's commands."""
