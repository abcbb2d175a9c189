"""Batches and servers on a local Ray cluster of several worker processes."""

from __future__ import annotations

import json
import urllib.request

import pytest

from fastcam import Explainer, FastcamError
from fastcam.batch.job import Job
from fastcam.batch.on_ray import run_on_ray
from fastcam.batch.run import run
from fastcam.batch.sources.opened import open_source
from fastcam.batch.table import files_of
from fastcam.serving.limits import Limits
from fastcam.serving.ray import application, asgi, replica
from support.batch_cases import encoded, model_file, pictures

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


def test_ray_serve_answers_as_the_call_does(tmp_path, cluster):
    from ray import serve

    path = model_file(tmp_path)
    serve.start(http_options={"host": "127.0.0.1", "port": 8173})
    try:
        serve.run(application([path], {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}, threads=1))
        at = "http://127.0.0.1:8173"
        found = []
        for _ in range(6):
            with urllib.request.urlopen(f"{at}/v1/explain?targets=upper thing".replace(" ", "%20"), encoded(0)) as one:
                found.append(json.load(one)["targets"][0])
        wanted = Explainer(path, threads=1)(encoded(0), "upper thing").to_dict()["images"][0]["targets"][0]
        assert all(one["box"] == wanted["box"] and one["score"] == pytest.approx(wanted["score"]) for one in found)
        with urllib.request.urlopen(f"{at}/v2/health/ready") as one:
            assert json.load(one) == {"ready": True}
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{at}/v1/explain", b"no picture")
    finally:
        serve.shutdown()


def test_what_is_wrong_is_said_before_anything_is_deployed(tmp_path):
    with pytest.raises(FastcamError, match="no model"):
        application([])
    with pytest.raises(FastcamError, match="unexpected keyword"):
        application(["a.cam.onnx"], nothing=1)
    with pytest.raises(FastcamError, match="no such file"):
        asgi(replica([tmp_path / "none.cam.onnx"], Limits()))
