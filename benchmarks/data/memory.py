"""Memory of all processes of a measurement, sampled while it runs; printed as a JSON line.

    python benchmarks/data/memory.py memory_video <dataset> --limit_mb 2048 --frames 9400

Two totals: RSS counts shared pages, such as Ray's object store and libraries, once per process that
maps them; PSS divides each among them, so that its sum is what the machine has less. Linux only.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

INTERVAL_S = 0.5
MARK = "LERAY_BENCHMARK_MEMORY"
MB = 2**20
KINDS = ("driver", "workers", "ray")


def main() -> None:
    """Run a measurement with the given arguments, watch it, and print peaks in MiB."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("measure_leray.py")), *sys.argv[1:]],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
    )
    said: list[tuple[float, dict]] = []
    listener = threading.Thread(target=listen, args=(child, said))
    listener.start()
    samples = []
    while child.poll() is None:
        samples.append((time.perf_counter(), measure(mark, child.pid)))
        time.sleep(INTERVAL_S)
    listener.join()
    if child.returncode:
        raise SystemExit(child.returncode)
    phases = [(at, message["phase"]) for at, message in said if "phase" in message]
    found = said[-1][1] | peaks(samples)
    ends = [*(at for at, _ in phases[1:]), float("inf")]
    for (began, phase), ended in zip(phases, ends, strict=False):
        values = [sum(pss.values()) for at, (_, pss) in samples if began <= at < ended]
        before = [sum(pss.values()) for at, (_, pss) in samples if at < began]
        found[f"{phase}: PSS before"] = before[-1] if before else 0.0
        found[f"{phase}: peak PSS"] = max(values, default=0.0)
    start = samples[0][0]
    timeline = [[at - start, *pss.values(), sum(rss.values())] for at, (rss, pss) in samples]
    print(json.dumps(found | {"timeline": timeline}), flush=True)


def listen(child: subprocess.Popen, said: list[tuple[float, dict]]) -> None:
    """Gather the messages of a process, with their times, until it ends."""
    assert child.stdout is not None
    lines = (line for line in child.stdout if line.startswith("{"))
    said.extend((time.perf_counter(), json.loads(line)) for line in lines)


def peaks(samples: list[tuple[float, tuple[dict, dict]]]) -> dict[str, float]:
    """Return the highest sums, and how the highest PSS was shared."""
    _, (_, at_peak) = max(samples, key=lambda sample: sum(sample[1][1].values()))
    return {
        "peak PSS": sum(at_peak.values()),
        "peak RSS": max(sum(rss.values()) for _, (rss, _) in samples),
        **{f"peak PSS, of it {kind}": at_peak[kind] for kind in KINDS},
    }


def measure(mark: str, driver: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return RSS and PSS in MiB by kind of process, of all that carry the mark.

    The mark is in their environment: so those that Ray detached count too.
    """
    rss, pss = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() not in (process / "environ").read_bytes():
                continue
            title = (process / "cmdline").read_bytes()
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended, or is not ours
            continue
        kind = "ray"
        if int(process.name) == driver:
            kind = "driver"
        elif b"MapWorker" in title:
            kind = "workers"
        sizes = {line.split(":")[0]: line.split() for line in lines[1:]}
        rss[kind] += int(sizes["Rss"][1]) * 1024 / MB
        pss[kind] += int(sizes["Pss"][1]) * 1024 / MB
    return rss, pss


if __name__ == "__main__":
    main()
