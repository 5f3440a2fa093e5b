"""Networks and optimisers that several algorithms share, in plain torch."""
