"""A few seconds of `fuzz/fuzz_metadata.py`, which runs for any time by itself."""

import importlib.util
import random
from pathlib import Path

import pytest

_PATH = Path(__file__).parent / "fuzz" / "fuzz_metadata.py"
_SPEC = importlib.util.spec_from_file_location("fuzz_metadata", _PATH)
fuzz_metadata = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz_metadata)


def test_spoiled_metadata_never_do_more_than_fail_with_one_line(capfd):
    failures = fuzz_metadata.fuzz(seconds=5, seed=20)
    assert failures == 0, capfd.readouterr().out


@pytest.mark.parametrize("defect", ["raise", "touch", "hang", "memory", "die", "unlike"])
def test_the_fuzzer_notices_what_it_is_there_for(tmp_path, capfd, defect):
    script = tmp_path / "fuzz_broken.py"
    script.write_text(_BROKEN.format(folder=str(_PATH.parent), defect=defect))
    spec = importlib.util.spec_from_file_location("fuzz_broken", script)
    broken = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(broken)
    broken.fuzz_metadata.__file__ = str(script)
    assert broken.fuzz_metadata.fuzz(seconds=20, seed=1, stops_early=True) > 0
    assert "FAILED --seed=1 --case=" in capfd.readouterr().out


_BROKEN = """
import dataclasses, os, sys, time
sys.path.insert(0, {folder!r})
import fuzz_metadata
fuzz_metadata.HANG_S = 1
real = fuzz_metadata.check


def check(root, **options):
    report = real(root, **options)
    if "sandbox" not in str(root):
        return report
    match {defect!r}:
        case "raise":
            raise KeyError("x")
        case "touch":
            (root.parent / "outside").write_text("x")
        case "hang":
            time.sleep(60)
        case "memory":
            bytearray(3 * 2**30)
        case "die":
            os.abort()
        case "unlike":
            return dataclasses.replace(report, is_usable=True)
    return report


fuzz_metadata.check = check
if __name__ == "__main__":
    sys.exit(fuzz_metadata.main())
"""


def test_a_case_is_the_same_each_time(tmp_path):
    spoiled = []
    for name in ("a", "b"):
        root = fuzz_metadata.sample_datasets.build(tmp_path / name, "v3.0")
        fuzz_metadata.spoil(random.Random("1/7"), root)
        spoiled.append(sorted(fuzz_metadata.contents(root).items()))
    assert spoiled[0] == spoiled[1]
