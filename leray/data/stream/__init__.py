"""Streaming of datasets: an order that is a pure function, samples, and their way to learners."""
