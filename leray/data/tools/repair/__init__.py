"""Mending what a check found, as far as it follows from what is there; old files are kept."""
