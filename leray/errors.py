"""Errors meant for the person at the command line.

Every message says what was given, what is allowed, and what to do; the front door prints it as one
line.
"""


class LerayError(Exception):
    """Base of all errors caused by input, files or machines rather than by a defect in LeRay."""


class ConfigError(LerayError):
    """A flag, a config file or a combination of options is wrong."""


class FeatureMismatchError(LerayError):
    """Two sides of a stream (env, dataset, policy) disagree on names, shapes or dtypes."""


class DatasetError(LerayError):
    """A dataset is missing, damaged or in a version that cannot be read."""


class EnvError(LerayError):
    """An environment does not exist, does not start, or returned something invalid."""


class CheckpointError(LerayError):
    """A checkpoint is missing, incomplete, damaged, or could not be written."""


class LearnerError(LerayError):
    """A process that takes updates has been lost; training can go on from the last checkpoint."""
