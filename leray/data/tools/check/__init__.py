"""Checking a dataset folder against every promise of the LeRobot format; nothing is changed."""
