"""Batches on a local Ray cluster of several worker processes."""

from __future__ import annotations

import pytest

from fastcam.batch.job import Job
from fastcam.batch.on_ray import run_on_ray
from fastcam.batch.run import run
from fastcam.batch.sources.opened import open_source
from fastcam.batch.table import files_of
from support.batch_cases import model_file, pictures

ray = pytest.importorskip("ray", reason="Ray is not installed: nothing ran on a cluster")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def cluster():
    """Of two cores, for all tests here: it takes seconds to start."""
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:
        pytest.skip(f"Ray is installed, but no cluster starts here ({error}): nothing ran on one")
    yield
    ray.shutdown()


def rows(folder):
    return [row for path in files_of(folder) for row in parquet.read_table(path).to_pylist()]


def test_two_actors_make_the_table_of_one_process_and_go_on_where_it_was_stopped(tmp_path, cluster):
    job = Job(model_file(tmp_path), (-1, "upper thing"), {"batch_size": 4, "threads": 1}, part=8)
    source = open_source(str(pictures(tmp_path / "p", 30, bad=(3,))))
    run(job, source, tmp_path / "here")
    done = run_on_ray(job, source, tmp_path / "there", "local", 2)
    assert (done.done, done.failed, done.share) == (30, 1, 1.0) and "0003.png" in done.first
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    (tmp_path / "there" / "part-000001.parquet").unlink()
    again = run_on_ray(job, source, tmp_path / "there", "local", 2)
    assert (again.before, again.done) == (22, 8) and rows(tmp_path / "there") == rows(tmp_path / "here")
