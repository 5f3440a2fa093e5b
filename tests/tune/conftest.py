"""A training that lasts a second or two, for sweeps over it."""

import numpy as np
import pytest
import yaml

from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    """Twenty episodes of a linear expert."""
    root = tmp_path_factory.mktemp("demonstrations") / "dataset"
    features = {"observation.state": Feature("float32", (3,)), "action": Feature("float32", (2,))}
    rng = np.random.default_rng(0)
    gain = rng.normal(size=(3, 2))
    with DatasetWriter.create(root, fps=10, features=Features(features)) as writer:
        for _ in range(20):
            states = rng.normal(size=(20, 3))
            columns = {"observation.state": states, "action": states @ gain}
            for row in range(20):
                frame = {name: values[row].astype(np.float32) for name, values in columns.items()}
                writer.add_frame(frame, task="follow")
            writer.save_episode()
    return root


@pytest.fixture
def write_sweep(demonstrations, tmp_path):
    """Return what writes a sweep's file: behaviour cloning, judged on held-out episodes."""

    def write(**options):
        train = {
            "policy": {"type": "bc", "device": "cpu"},
            "dataset": {"root": str(demonstrations)},
            "validation": {"fraction": 0.2},
            "steps": 60,
            "batch_size": 16,
            "eval_freq": 20,
            "log_freq": 10,
            "save_freq": 20,
            "mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"},
        } | options.pop("train", {})
        tree = {"train": train, "metric": "validation/loss", "mode": "min", **options}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write
