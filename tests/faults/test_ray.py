"""The job on Ray, a real cluster of two actors on this machine, and into an object store."""

import os
import signal

import pytest
from faults.conftest import Refining

pytest.importorskip("ray", reason="the extra simgan-aug[ray]")

STORE = '''
"""An object store for tests: a folder, of which nothing can be appended to."""
import os
from fsspec.implementations.local import LocalFileSystem

class BucketFileSystem(LocalFileSystem):
    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("bucket://"))

    def open(self, path, mode="rb", **options):
        assert mode == "rb", "objects are read and put, nothing else"
        return super().open(path, mode, **options)

    def pipe_file(self, path, value, **options):
        with open(path + ".put", "wb") as file:
            file.write(value)
        os.replace(path + ".put", path)
'''


@pytest.fixture
def on_ray(tmp_path, refiner_file):
    refining = Refining(tmp_path, refiner_file, 60)
    refining.environment |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"}
    return refining


@pytest.fixture
def bucket(on_ray, tmp_path):
    """The same, whose result is to lie in an object store; returns its address."""
    about = tmp_path / "site" / "bucket-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "site" / "bucketfs.py").write_text(STORE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bucket\nVersion: 1.0\n")
    entry = "[fsspec.specs]\nbucket = bucketfs:BucketFileSystem\n"
    (about / "entry_points.txt").write_text(entry)
    on_ray.environment["PYTHONPATH"] = str(tmp_path / "site")
    on_ray.folder, on_ray.out = on_ray.out, f"bucket://{on_ray.out}"
    return on_ray


def test_ray_gives_the_files_that_one_process_gives(on_ray):
    code, said = on_ray.run("--engine", "ray", "--workers", 2)

    assert code == 0, said
    on_ray.check_whole()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_result_in_an_object_store_is_the_same(bucket, engine):
    code, said = bucket.run("--engine", engine, "--workers", 2)

    assert code == 0, said
    bucket.out = bucket.folder
    bucket.check_whole()


def test_a_job_on_ray_that_is_killed_goes_on(bucket):
    process = bucket.start("--engine", "ray", "--workers", 2)
    address, bucket.out = bucket.out, bucket.folder
    bucket.wait_for(10, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    bucket.check_visible()
    bucket.out = address

    code, said = bucket.run("--workers", 1)

    assert code == 0, said
    bucket.out = bucket.folder
    bucket.check_whole()


def test_an_actor_that_is_killed_is_replaced(on_ray):
    process = on_ray.start("--engine", "ray", "--workers", 2)
    on_ray.wait_for(5, process)
    os.kill(_actor(on_ray.out), signal.SIGKILL)
    out, errors = process.communicate(timeout=120)

    assert process.returncode == 0, out + errors
    on_ray.check_whole()


def _actor(out):
    """A process that keeps a journal and is not the job's own, which makes its first."""
    journals = sorted((out / ".simgan" / "journal").iterdir(), key=lambda p: p.stat().st_ctime)
    return int(journals[-1].name.rsplit("-", 2)[1])
