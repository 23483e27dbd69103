"""A cluster of one machine for tests: Kubernetes' API for Jobs and pods, whose pods are processes.

No test reaches a real cluster. This one is spoken to over HTTP by Kubernetes' own clients. It makes
the pods of an indexed Job as the Job's controller does, with index, labels and host names, resolves
their variables, starts their commands as processes of this machine, and ends the Job by the rules
of its failure policy. It knows nothing of images, volumes and nodes; the host names of pods lead to
127.0.0.1, at a free port of each Job.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from support.serving import Handler, free_port, http_server

Object = dict[str, Any]
_JOBS, _PODS = "/apis/batch/v1/namespaces/", "/api/v1/namespaces/"
JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"


class Pod:
    """One pod of a Job, which is a process."""

    def __init__(self, job: Object, index: int, cluster: "SmallCluster") -> None:
        self.index, self.cluster = index, cluster
        template = job["spec"]["template"]
        name, labels = job["metadata"]["name"], dict(template["metadata"].get("labels") or {})
        labels |= {JOB_NAME: name, INDEX: str(index)}
        self.metadata = {"name": f"{name}-{index}", "labels": labels}
        self.metadata["namespace"] = job["metadata"]["namespace"]
        self.spec = {**template["spec"], "hostname": f"{name}-{index}"}
        [self.container] = self.spec["containers"]
        first = f"{name}-0.{self.spec['subdomain']}"
        self.environment = cluster.variables_of(self.container, labels, first)
        self.environment["JOB_COMPLETION_INDEX"] = str(index)
        self.log = Path(tempfile.mkdtemp(dir=cluster.folder)) / "log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*self.container["command"], *self.container["args"]],
                env={**cluster.image, **self.environment},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """As a container's: a signal's number after 128."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def end(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def to_object(self) -> Object:
        if told := self.cluster.pending.get(self.index):
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status = {"phase": "Pending", "conditions": [condition | {"message": told}]}
        else:
            code = self.exit_code
            phase = "Running" if code is None else "Failed" if code else "Succeeded"
            ended = {"terminated": {"exitCode": code}} if code is not None else {"running": {}}
            own = {"name": self.container["name"], "ready": code is None, "state": ended}
            own |= {"image": self.container["image"], "imageID": "", "restartCount": 0}
            status = {"phase": phase, "containerStatuses": [own]}
        found = {"metadata": self.metadata, "spec": self.spec, "status": status}
        return {"apiVersion": "v1", "kind": "Pod", **found}


class SmallCluster:
    """Jobs and their pods. `image` is the environment that every container begins with."""

    def __init__(self, folder: Path, image: Mapping[str, str]) -> None:
        self.folder, self.image = folder, dict(image)
        self.secrets: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Pod] = {}
        self.made: list[Object] = []  # every Job that was ever asked for
        self.pending: dict[int, str] = {}
        """Of which pods a Job has no machine, by their index, and what the scheduler says of it."""
        self._lock, self._ports = threading.RLock(), dict[str, int]()

    def variables_of(
        self, container: Object, labels: Mapping[str, str], host: str
    ) -> dict[str, str]:
        """Return a container's variables, as the kubelet resolves them, one after another."""
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            found |= self.secrets[source["secretRef"]["name"]]
        for each in container.get("env") or []:
            value = each.get("value", "")
            if "valueFrom" in each:
                path = each["valueFrom"]["fieldRef"]["fieldPath"]
                value = labels[re.fullmatch(r"metadata\.labels\['(.+)'\]", path)[1]]  # type: ignore[index]
            value = re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), value)
            found[each["name"]] = value
        # A name server would lead there; the port is the Job's own, for all are on one machine.
        there = f"127.0.0.1:{self._ports.setdefault(host, free_port())}"
        named = re.compile(rf"^{re.escape(host)}:\d+$")
        return {name: named.sub(there, value) for name, value in found.items()}

    def create(self, job: Object) -> Object:
        with self._lock:
            name = job["metadata"]["name"]
            self.jobs[name] = job
            self.made.append(job)
            for index in range(job["spec"]["completions"]):
                pod = Pod(job, index, self)
                self.pods[pod.metadata["name"]] = pod
        return job

    def delete_job(self, name: str) -> None:
        with self._lock:
            for pod in self._pods_of(name):
                pod.end()
                del self.pods[pod.metadata["name"]]
            self.jobs.pop(name, None)

    def _pods_of(self, job: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.metadata["labels"][JOB_NAME] == job]

    def look(self, name: str) -> Object | None:
        """Return a Job with its status, after what its controller does about pods that ended."""
        with self._lock:
            job = self.jobs.get(name)
            if job is None or job.get("status", {}).get("conditions"):
                return job
            codes = [pod.exit_code for pod in self._pods_of(name)]
            failed = [code for code in codes if code]
            condition = None
            if failed:
                condition = {"type": "Failed", "status": "True", "reason": _reason(job, failed[0])}
                for pod in self._pods_of(name):
                    pod.end()
            elif codes and all(code == 0 for code in codes):
                condition = {"type": "Complete", "status": "True"}
            job["status"] = {"conditions": [condition] if condition else []}
            return job

    def end(self) -> None:
        for name in list(self.jobs):
            self.delete_job(name)


def _reason(job: Object, code: int) -> str:
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    listed = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"]
    return "PodFailurePolicy" if any(code in each for each in listed) else "BackoffLimitExceeded"


def _fits(labels: Mapping[str, str], selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        name, operator, value = re.fullmatch(r"!?([^!=]+)(!?=|)(.*)", term).groups()  # type: ignore[union-attr]
        is_equal = labels.get(name) == value if operator else name in labels
        if is_equal == (term.startswith("!") or operator == "!="):
            return False
    return True


class _Handler(Handler):
    cluster: SmallCluster
    protocol_version = "HTTP/1.1"

    def give(self, value: Any, status: int = 200) -> None:
        if isinstance(value, bytes):
            self.answer(status, value, Content_Type="text/plain")
        else:
            self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def said(self) -> Any:
        return json.loads(self.body() or b"{}")

    def route(self) -> tuple[str, list[str], str]:
        """Return the kind, what of the path follows it, and the selector."""
        url = urlsplit(self.path)
        selector = parse_qs(url.query).get("labelSelector", [""])[0]
        root = _JOBS if url.path.startswith(_JOBS) else _PODS
        _, kind, *rest = url.path.removeprefix(root).split("/")
        return kind, rest, selector

    def do_POST(self) -> None:
        kind, _, _ = self.route()
        assert kind == "jobs", self.path
        self.give(self.cluster.create(self.said()), 201)

    def do_GET(self) -> None:
        kind, rest, selector = self.route()
        if rest and kind == "jobs":
            self.found(self.cluster.look(rest[0]))
        elif rest and rest[-1] == "log":
            self.give(self.cluster.pods[rest[0]].log.read_bytes())
        elif rest:
            pod = self.cluster.pods.get(rest[0])
            self.found(pod and pod.to_object())
        else:
            names = {"jobs": self.cluster.jobs, "pods": self.cluster.pods}.get(kind, {})
            found = [
                self.cluster.look(name) if kind == "jobs" else self.cluster.pods[name].to_object()
                for name in list(names)
            ]
            fit = [e for e in found if e and _fits(e["metadata"].get("labels") or {}, selector)]
            self.give({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": fit})

    def found(self, value: Object | None) -> None:
        missing = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        self.give(value or missing, 200 if value else 404)

    def do_PATCH(self) -> None:
        _, [name], _ = self.route()
        labels = self.said()["metadata"]["labels"]
        self.cluster.pods[name].metadata["labels"].update(labels)
        self.give(self.cluster.pods[name].to_object())

    def do_DELETE(self) -> None:
        kind, [name], _ = self.route()
        self.said()
        if kind == "jobs":
            self.cluster.delete_job(name)
        elif name in self.cluster.pods:
            self.cluster.pods.pop(name).end()
        self.give({"kind": "Status", "status": "Success"})


@contextlib.contextmanager
def small_cluster(folder: Path, image: Mapping[str, str]) -> Iterator[SmallCluster]:
    """Run a cluster; its `folder` then holds `config`, by which clients find it."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = SmallCluster(folder, image)
    with http_server(_Handler, cluster=cluster) as url:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "small",
            "clusters": [{"name": "small", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "small", "context": {"cluster": "small", "user": "test"}}],
        }
        (folder / "config").write_text(yaml.safe_dump(config))
        try:
            yield cluster
        finally:
            cluster.end()
