"""Records on disk: nothing that was appended is lost, nothing is delivered twice unmarked."""

import os
import threading
from pathlib import Path

import pytest

from leray.platform.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "logs" / "metrics.jsonl")


def test_records_come_back_in_order_from_any_offset(journal: Journal) -> None:
    assert journal.read(0) == ([], 0)
    journal.append({"step": 1})
    _, middle = journal.read(0)
    journal.append({"step": 2})
    assert journal.read(0)[0] == [{"step": 1}, {"step": 2}]
    records, end = journal.read(middle)
    assert records == [{"step": 2}]
    assert journal.read(end) == ([], end)
    assert journal.count_after(middle) == 1


@pytest.mark.parametrize("limit", [1, 7, 64])
def test_a_small_limit_still_reads_whole_records(journal: Journal, limit: int) -> None:
    for step in range(20):
        journal.append({"step": step})
    found, offset = [], 0
    while True:
        records, following = journal.read(offset, limit)
        if following == offset:
            break
        found += records
        offset = following
    assert [record["step"] for record in found] == list(range(20))


def test_a_line_cut_by_a_crash_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":2,"lo')
    journal = Journal(path)
    journal.append({"step": 3})
    assert journal.read(0)[0] == [{"step": 1}, {"step": 3}]
    assert journal.count_after(0) == 2


def test_a_line_still_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = Journal(path)
    with path.open("ab") as file:
        file.write(b'{"step":1}\n{"st')
    assert reader.read(0) == ([{"step": 1}], 11)


def test_the_mark_belongs_to_one_receiver_and_survives(journal: Journal) -> None:
    assert journal.delivered("a") == 0
    journal.append({"step": 1})
    journal.mark_delivered("a", 7)
    again = Journal(journal.path)
    assert again.delivered("a") == 7
    assert again.delivered("b") == 0


def test_threads_do_not_mix_their_lines(journal: Journal) -> None:
    def write(worker: int) -> None:
        for step in range(200):
            journal.append({"worker": worker, "step": step, "text": "x" * worker})

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = journal.read(0, 1 << 24)[0]
    assert len(records) == 800
    for worker in range(4):
        assert [r["step"] for r in records if r["worker"] == worker] == list(range(200))


def test_a_closed_journal_refuses_and_closes_twice(journal: Journal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(OSError, match="is closed"):
        journal.append({})


def test_a_record_that_did_not_fit_costs_only_itself(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append({"step": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:5]))  # a full disk
    with pytest.raises(OSError, match="No space left"):
        journal.append({"step": 2})
    monkeypatch.undo()
    journal.append({"step": 3})
    assert list(journal.records()) == [{"step": 1}, {"step": 3}]


def test_a_mark_beyond_the_end_is_forgotten(journal: Journal) -> None:
    journal.append({"step": 1})
    _, end = journal.read(0)
    journal.mark_delivered("a", end)
    assert Journal(journal.path).delivered("a") == end
    journal.mark_delivered("a", end + 1)
    assert Journal(journal.path).delivered("a") == 0


def test_a_damaged_mark_is_none(journal: Journal) -> None:
    for damaged in ("", "[]", '{"receiver": "a"}', '{"receiver": "a", "offset": null}'):
        journal.path.with_suffix(".delivered").write_text(damaged)
        assert journal.delivered("a") == 0
