import pytest

from leray.errors import ConfigError
from leray.platform.jobs import package
from leray.platform.jobs.package import check_working_dir, entry_sizes

MIB = 2**20


@pytest.fixture
def folder(tmp_path):
    sizes = {"data/a.bin": 3, "video.mp4": 2, "leray/x.py": 1, "skip/b.bin": 5, "no.bin": 5}
    for name, mib in {**sizes, ".git/pack": 9, ".venv/lib.so": 9}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(mib * MIB))
    (tmp_path / ".gitignore").write_text("/skip/\n")
    (tmp_path / ".rayignore").write_text("*no.bin\n")
    return tmp_path


def test_what_ray_leaves_out_does_not_count(folder, monkeypatch):
    found = {name: size // MIB for name, size in entry_sizes(folder).items() if size >= MIB}
    assert found == {"data": 3, "video.mp4": 2, "leray": 1}
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert entry_sizes(folder)["skip"] == 5 * MIB


def test_a_folder_that_is_too_large_is_refused_by_its_largest_entries(folder, monkeypatch):
    monkeypatch.setattr(package, "GCS_STORAGE_MAX_SIZE", 6 * MIB)
    with pytest.raises(
        ConfigError,
        match=r"holds 6 MiB, Ray takes less than 6; the largest are data 3 MiB, video.mp4 2 MiB, "
        r"leray 1 MiB; name what .* in .rayignore",
    ):
        check_working_dir(str(folder))


def test_the_limit_is_ray_s():
    assert package.GCS_STORAGE_MAX_SIZE == 512 * MIB


def test_folders_and_addresses(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert check_working_dir(".") == str(folder)
    assert check_working_dir("s3://bucket/code.zip") == "s3://bucket/code.zip"
    assert check_working_dir(None) is None
    with pytest.raises(ConfigError, match="--working_dir=nowhere: no such folder"):
        check_working_dir("nowhere")


def test_a_module_that_hides_python_s_own_is_refused(folder):
    (folder / "platform").mkdir()  # without code it hides nothing
    assert check_working_dir(str(folder)) == str(folder)
    (folder / "platform/__init__.py").touch()
    with pytest.raises(ConfigError, match="platform: hides Python's own module platform from"):
        check_working_dir(str(folder))
    (folder / ".rayignore").write_text("/platform/\n")
    assert check_working_dir(str(folder)) == str(folder)
