"""The vocabulary: LeRobot's feature names, the keys of everything that flows."""

OBSERVATION_STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
OBSERVATION_IMAGE = "observation.image"
OBSERVATION_IMAGES = "observation.images"
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
SUCCESS = "next.success"
TRUNCATED = "next.truncated"
COMPLEMENTARY_INFO = "complementary_info"
INTERVENTION = "complementary_info.is_intervention"
TASK = "task"

PAD_SUFFIX = "_is_pad"
"""Ends the name of the mask that marks the clamped steps of a window."""

TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"

BOOKKEEPING = (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX)
"""Columns of every dataset, in stored order; filled by the writer, never by the caller."""
