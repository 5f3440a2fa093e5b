"""Opens, reads, checks and repairs datasets whose metadata are spoiled at random.

Only a `LerayError` or success may come of it: no other exception, no hang, no memory beyond 2 GiB,
no crash of the process, no file changed by reading, none lost by repairing, none written outside.

    python tests/data/tools/fuzz/fuzz_metadata.py --seconds=600 --seed=1
    python tests/data/tools/fuzz/fuzz_metadata.py --seed=1 --case=4711    # repeats one
"""

import argparse
import hashlib
import json
import os
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parents[3]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import mutations  # noqa: E402
import sample_datasets  # noqa: E402

from leray.data.lerobot.reader import DatasetReader  # noqa: E402
from leray.data.tools.check.dataset import check  # noqa: E402
from leray.data.tools.repair.dataset import repair  # noqa: E402
from leray.errors import LerayError  # noqa: E402

MEMORY_BYTES = 2 * 2**30
HANG_S = 10
WATCHDOG_S = 40
CASES_PER_PROCESS = 500
VERSIONS = ("v2.0", "v2.1", "v3.0")


class HangError(BaseException):
    """A case takes too long."""


def main(arguments: list[str] | None = None) -> int:
    """Run, print every failure with what repeats it, and return how many there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="repeat this one only, in this process")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        _work(options.seed, options.worker, CASES_PER_PROCESS)
        return 0
    if options.case is not None:
        _work(options.seed, options.case, 1)
        return 0
    return fuzz(options.seconds, options.seed)


def fuzz(seconds: float, seed: int, *, stops_early: bool = False) -> int:
    """Run cases in processes of their own until the time is over; return the failures.

    Args:
        seconds: how long to go on.
        seed: of all cases.
        stops_early: end with the first failure.
    """
    end, case, done, failures = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end and not (stops_early and failures):
        last, reports, ending = _supervise(seed, case, end, stops_early=stops_early)
        done += last - case + 1
        failures += len(reports)
        for report in reports:
            print(report, flush=True)
        if ending:
            failures += 1
            print(f"FAILED --seed={seed} --case={last}: {ending}", flush=True)
        case = last + 1
    print(f"{done} cases, {failures} failures (seed {seed})", flush=True)
    return failures


def _supervise(
    seed: int, first: int, end: float, *, stops_early: bool
) -> tuple[int, list[str], str]:
    """Run a worker; return its last case, its reports, and how it ended if it should not have."""
    command = [sys.executable, __file__, f"--seed={seed}", f"--worker={first}"]
    last, reports, heard = first, [], time.monotonic()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as worker,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(worker.stdout, selectors.EVENT_READ)
        buffer = b""
        while True:
            if selector.select(timeout=1):
                part = os.read(worker.stdout.fileno(), 65536)
                if not part:
                    break
                heard, buffer = time.monotonic(), buffer + part
                *lines, buffer = buffer.split(b"\n")
                for line in map(bytes.decode, lines):
                    if line.startswith("case "):
                        last = int(line[5:])
                    else:
                        reports.append(json.loads(line))
            if time.monotonic() > end or (stops_early and reports):
                worker.kill()
                return last, reports, ""
            if time.monotonic() - heard > WATCHDOG_S:
                worker.kill()
                return last, reports, "it hangs where Python cannot interrupt it"
        code = worker.wait()
        errors.seek(0)
        tail = errors.read().decode(errors="replace")[-2000:]
        return last, reports, f"the process ended with {code}\n{tail}" if code else ""


def _work(seed: int, first: int, count: int) -> None:
    """Run cases one after the other, announcing each on standard output."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="leray-fuzz-") as folder:
        bases = {v: sample_datasets.build(Path(folder) / "base" / v, v) for v in VERSIONS}
        sandbox = Path(folder) / "sandbox"
        check(bases["v3.0"])  # loads what is loaded late, before memory is limited
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
        for case in range(first, first + count):
            print(f"case {case}", flush=True)
            sandbox.mkdir()
            os.chdir(sandbox)
            signal.alarm(HANG_S)
            try:
                run_case(random.Random(f"{seed}/{case}"), bases, sandbox)
            except BaseException:
                report = f"FAILED --seed={seed} --case={case}: {traceback.format_exc()}"
                print(json.dumps(report), flush=True)
            signal.alarm(0)
            os.chdir(folder)
            shutil.rmtree(sandbox)


def _interrupt(*_) -> None:
    raise HangError(f"more than {HANG_S} s")


def run_case(rng: random.Random, bases: dict[str, Path], sandbox: Path) -> None:
    """Spoil a copy of a dataset and use it.

    Raises:
        AssertionError: a promise was broken.
    """
    version = rng.choice(VERSIONS)
    root = sandbox / "dataset"
    shutil.copytree(bases[version], root)
    for _ in range(rng.choice((1, 1, 1, 2))):
        spoil(rng, root)
    before = contents(sandbox)
    refused = is_refused(root, rng)
    assert "\n" not in refused, f"several lines: {refused!r}"
    report = check(root, videos=rng.choice(("fast", "fast", "full", "none")))
    assert report.text().isprintable() or "\n" in report.text()
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    assert report.exit_code == 2 or not refused, f"reading fails: {refused}\n{report.text()}"
    assert contents(sandbox) == before, "a file was changed"
    if rng.random() < 0.4:
        repair(root, report)
        after = contents(sandbox)
        lost = set(before.values()) - set(after.values())
        assert not lost, f"files are lost: {[n for n, h in before.items() if h in lost]}"
        assert all(name.startswith("dataset/") for name in after), "a file outside"
        check(root)


def spoil(rng: random.Random, root: Path) -> None:
    """Spoil one file: metadata mostly, now and then data or a video."""
    meta = sorted(path for path in (root / "meta").rglob("*") if path.is_file())
    others = sorted(p for f in ("data", "videos") for p in (root / f).rglob("*") if p.is_file())
    path = (
        rng.choice(others) if rng.random() < 0.15 else rng.choice([root / "meta/info.json", *meta])
    )
    content = path.read_bytes()
    if rng.random() < 0.25 or path.suffix == ".mp4":
        content = mutations.spoil_bytes(rng, content)
    elif path.suffix in (".json", ".jsonl"):
        try:
            content = mutations.spoil_json(rng, content, is_lines=path.suffix == ".jsonl")
        except (ValueError, RecursionError):  # spoiled once already
            content = mutations.spoil_bytes(rng, content)
    else:
        try:
            pq.write_table(mutations.spoil_table(rng, pq.read_table(path)), path)
        except (pa.ArrowException, ValueError, KeyError, IndexError, OSError):
            path.write_bytes(mutations.spoil_bytes(rng, content))
        return
    path.write_bytes(content)


def is_refused(root: Path, rng: random.Random) -> str:
    """Open and read the dataset in every way; return why that is refused, or nothing."""
    try:
        reader = DatasetReader.open(root)
        reader.read()
    except LerayError as error:
        return str(error) or "no reason"
    try:
        _ = reader.stats
        for camera in reader.cameras:
            reader.read_frames(camera, [0, reader.num_frames - 1])
            reader.image_stats(camera)
        if reader.episodes:
            DatasetReader.open(root, episodes=[rng.choice(reader.episodes)]).read([])
    except LerayError:
        pass
    reader.close()
    return ""


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with what it holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(min(main(), 1))
