"""Worlds: tasks, vectorised stepping, and the runners that turn a policy into experience."""
