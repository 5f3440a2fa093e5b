"""APPO, RLlib's own asynchronous PPO, behind LeRay's commands."""
