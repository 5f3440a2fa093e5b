"""What a dataset means for the policy that is to learn from it."""

from leray.algorithms.hub import pretrained_folder
from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.imitation.feed import training_episodes
from leray.algorithms.imitation.inputs import pictures, policy_inputs, vector_inputs
from leray.algorithms.imitation.migration import read_processor
from leray.algorithms.pretrained import read_config
from leray.algorithms.processor import Processor
from leray.algorithms.registry import policy_class
from leray.algorithms.trainable import DataSource
from leray.data.features import Features, check_compatible
from leray.data.lerobot.reader import DatasetReader
from leray.errors import ConfigError


def source_processor(source: DataSource, config: ImitationPolicyConfig) -> Processor:
    """Return the features and their normalisation: of the pretrained policy, else by the dataset.

    Raises:
        ConfigError: no episode is left to learn from.
        DatasetError: the dataset, or an episode of it, is missing or damaged.
        CheckpointError: the pretrained policy is missing or damaged.
        FeatureMismatchError: the dataset lacks what the policy reads.
    """
    reader = DatasetReader.open(source.root, episodes=training_episodes(source))
    if not reader.num_frames:
        raise ConfigError(
            f"dataset {source.root}: no episode is left to learn from; hold fewer of them out"
        )
    read = policy_inputs if config.reads_pictures else vector_inputs
    features = read(reader.features)
    if config.pretrained_path is not None:
        return _pretrained_processor(config, features, str(source.root))
    stats = dict(reader.stats)
    for camera in pictures(features):
        if camera not in stats and not source.use_imagenet_stats:
            stats[camera] = reader.image_stats(camera)
    processor: Processor = policy_class(config.type).make_processor(
        features, config, stats, use_imagenet_stats=source.use_imagenet_stats
    )
    return processor


def _pretrained_processor(
    config: ImitationPolicyConfig, features: Features, dataset: str
) -> Processor:
    folder = pretrained_folder(str(config.pretrained_path))
    stored = read_config(folder, policy_class(config.type).config_class)
    processor = read_processor(folder, stored.features, stored.config.normalization_mapping)
    check_compatible(
        processor.source_features,
        features,
        left_name=f"the policy in {folder}",
        right_name=f"dataset {dataset}",
        keys=list(processor.source_features),
    )
    return processor
