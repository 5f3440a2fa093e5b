"""Behaviour cloning of vectors, with the actor that SAC can go on with."""
