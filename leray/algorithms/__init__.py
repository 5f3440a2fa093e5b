"""Learning: a folder per algorithm, and the replay and networks they share."""
