"""Joining a Ray cluster, or starting one on this machine's loopback interface."""

import logging
import os
from typing import Any

import ray


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names, else start one here; once per process.

    Args:
        num_cpus: least number of Ray CPUs of a cluster started here. They are bookkeeping: more of
            them than the machine has cores let runners and learner share cores.
    """
    quiet_ray()
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**options)
        return
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # binds to 127.0.0.1
    # else a learner that keeps all cores busy leaves too little to the runners it waits for
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        num_cpus=max(num_cpus or 0, os.cpu_count() or 1),
        include_dashboard=False,
        _system_config={"metrics_report_interval_ms": 60_000},
        **options,
    )


def quiet_ray() -> None:
    """Let Ray's loggers tell of errors only, in this process; their warnings are not of the run."""
    for name in ("ray", "ray._common.deprecation", "ray.rllib", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
