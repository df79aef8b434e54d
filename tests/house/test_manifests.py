"""deploy/kubernetes and deploy/compose.yaml are what Kubernetes takes, and name what the code has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from house.test_docs import options

from feature_repo.ports import service_url, stack_params
from pipelines import cli
from serving.http.api import HEALTH

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kubernetes"
SCHEMAS = json.loads((ROOT / "tests/shops/kubernetes.json").read_text())
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    one
    for file in sorted(FOLDER.glob("*.yaml"))
    if file.name != "kustomization.yaml"
    for one in yaml.safe_load_all(file.read_text())
]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SOURCE = "".join(
    path.read_text()
    for room in ("feature_repo", "serving", "monitoring")
    for path in (ROOT / room).rglob("*.py")
)
ENDED = {"land", "refresh", "retrain", "email", "unseen", "retain"}


def named(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of a workload and its pod's spec."""
    for one in MANIFESTS:
        spec = one["spec"].get("jobTemplate", {}).get("spec", one["spec"])
        if "template" in spec:
            yield named(one), spec["template"]["spec"]


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, one) for name, pod in pods() for one in (*pod.get("initContainers", ()), *pod["containers"])
    ]


def faults(manifest: dict[str, Any]) -> list[str]:
    kind = SCHEMAS["kinds"][f"{manifest['apiVersion']} {manifest['kind']}"]
    schema = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMAS["$defs"]}
    return [
        f"{e.json_path}: {e.message[:200]}" for e in jsonschema.Draft7Validator(schema).iter_errors(manifest)
    ]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_kubernetes_own_schema_takes_it(manifest: dict[str, Any]) -> None:
    assert not faults(manifest)
    assert faults({**manifest, "spec": {**manifest["spec"], "replicaz": 2}})  # it can say no


def exists(command: list[str]) -> None:
    job, *rest = command
    assert job in cli.places(), job
    assert {word for word in rest if word.startswith("--")} <= options(job), command


def test_every_command_is_a_job_with_its_options() -> None:
    started = [one["args"] for _, one in containers() if "args" in one]
    ours = [one for one in COMPOSE["services"].values() if one["image"] == "endcap"]
    started += [one["command"] for one in ours if one.get("command")]
    for words in started:
        exists(words)
    first = [one["command"][-1] for _, one in containers() if "endcap shop" in str(one.get("command"))]
    first.append(COMPOSE["services"]["first"]["entrypoint"][-1].replace("$$", "$"))
    assert first[0] == first[1]
    for command in re.findall(r"endcap (\w+)", first[0]):
        assert command in cli.places()
    assert "bundle:" in (ROOT / "dvc.yaml").read_text()
    assert {words[0] for words in started} >= {*cli.FOREGROUND - {"storefront"}, "rails", "rollout", *ENDED}


def test_jobs_by_the_clock_end_run_once_and_at_the_hours_of_the_timers() -> None:
    jobs = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "CronJob"}
    assert set(jobs) == ENDED
    assert all(one["concurrencyPolicy"] == "Forbid" and one["timeZone"] == "Etc/UTC" for one in jobs.values())
    assert all(one["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0 for one in jobs.values())
    for job, hour in (("retrain", "01:00:00"), ("refresh", "05:00:00")):
        assert hour in (ROOT / f"deploy/systemd/endcap-{job}.timer").read_text()
        assert jobs[job]["schedule"].split()[1] == str(int(hour[:2]))


def test_every_variable_is_read_by_the_code_and_every_secret_is_a_reference() -> None:
    read = {*re.findall(r"\b(?:ENDCAP|REDIS)_[A-Z_]+", SOURCE), "SHOP"}
    read |= {f"ENDCAP_{name.upper()}_TOKEN" for name in ("secret", "publishable", "catalogue", "console")}
    for name, one in containers():
        for variable in one.get("env", ()):
            assert variable["name"] in read, (name, variable)
            if variable["name"] not in ("SHOP", "ENDCAP_SERVICE_URL"):
                assert variable["valueFrom"]["secretKeyRef"]["key"] == variable["name"]
    assert "Secret" not in {one["kind"] for one in MANIFESTS}
    for name, value in COMPOSE["x-endcap"]["environment"].items():
        assert name in read
        assert name == "ENDCAP_SERVICE_URL" or "${" in value


def test_ports_and_probes_are_those_of_the_service() -> None:
    port = stack_params().service_port
    service = next(one for name, one in containers() if name == "Deployment service")
    assert [one["containerPort"] for one in service["ports"]] == [port]
    assert service["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {service[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "startup")} == {"/livez"}
    assert {"/livez", "/readyz"} == set(HEALTH)
    where = [v["value"] for _, one in containers() for v in one.get("env", ()) if "SERVICE_URL" in v["name"]]
    assert {*where, COMPOSE["x-endcap"]["environment"]["ENDCAP_SERVICE_URL"]} == {f"http://service:{port}"}
    assert COMPOSE["services"]["service"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    console = stack_params().console_port
    assert COMPOSE["services"]["console"]["ports"] == [f"127.0.0.1:{console}:{console}"]
    probe = next(one for name, one in containers() if name == "Deployment console")["livenessProbe"]
    assert str(console) in probe["exec"]["command"][-1]


def test_nothing_runs_as_root_or_writes_beside_its_volumes() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], name
        volumes = {one["name"] for one in pod["volumes"]}
        for one in (*pod.get("initContainers", ()), *pod["containers"]):
            limits = one["securityContext"]
            assert limits["readOnlyRootFilesystem"] and not limits["allowPrivilegeEscalation"], name
            assert limits["capabilities"] == {"drop": ["ALL"]}
            assert one["resources"]["requests"]["cpu"] and one["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
    user = re.search(r"^USER (\d+):", (ROOT / "deploy/Containerfile").read_text(), re.M)
    assert user and {pod["securityContext"]["runAsUser"] for _, pod in pods()} == {int(user[1])}


def test_selectors_find_pods_and_the_kustomization_every_file() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in MANIFESTS if one["kind"] == "Deployment"
    ]
    for one in MANIFESTS:
        spec = one["spec"]
        wanted = spec.get("podSelector") or spec.get("selector") or {}
        wanted = wanted.get("matchLabels", wanted)
        if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment"):
            assert any(wanted.items() <= found.items() for found in labels), named(one)
    assert set(KUSTOMIZATION["resources"]) == {f.name for f in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_service_is_found_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_SERVICE_URL", "http://service:3000/")
    assert service_url() == "http://service:3000"
    monkeypatch.delenv("ENDCAP_SERVICE_URL")
    assert service_url() == f"http://127.0.0.1:{stack_params().service_port}"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_renders_every_manifest_with_the_image_s_full_name() -> None:
    command = ["kubectl", "kustomize", str(FOLDER)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    rendered = list(yaml.safe_load_all(ended.stdout))
    assert len(rendered) == len(MANIFESTS)
    assert not [found for one in rendered for found in faults(one)]
    assert "image: endcap\n" not in ended.stdout and ended.stdout.count("image: ") == len(containers())


@pytest.mark.skipif(not shutil.which("docker"), reason="docker is not installed")
def test_docker_itself_reads_the_compose_file() -> None:
    names = set(re.findall(r"\$\{(\w+):\?\}", (ROOT / "deploy/compose.yaml").read_text()))
    env = {"PATH": "/usr/bin:/bin:/usr/local/bin", **dict.fromkeys(names, "a-secret-of-tests")}
    command = ["docker", "compose", "-f", str(ROOT / "deploy/compose.yaml"), "config", "--quiet"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    if "is not a docker command" in ended.stderr or "unknown" in ended.stderr:
        pytest.skip("docker has no compose plugin here")
    assert ended.returncode == 0, ended.stderr
