"""Behaviour transformer over codes of action chunks (VQ-BeT)."""
