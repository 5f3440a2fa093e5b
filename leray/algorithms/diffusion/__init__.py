"""Diffusion Policy (Chi et al. 2023, arXiv 2303.04137), with LeRobot's names and files."""
