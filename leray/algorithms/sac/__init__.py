"""Soft actor-critic that mixes offline and online data (SAC, REDQ, RLPD)."""
