"""Sweeps: many trainings of one config, with what varies between them, compared side by side."""
