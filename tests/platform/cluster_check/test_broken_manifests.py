"""KubeRay manifests with one mistake each: found, in the right line, for the right reason."""

import re

import pytest

from leray.platform.cluster_check.check import check_file

CHANGED = [
    ("raycluster", "ray.io/v1\n", "ray.io/v1alpha1\n", "write ray.io/v1"),
    ("raycluster", "kind: RayCluster", "kind: RayClusters", "did you mean RayCluster?"),
    ("raycluster", "name: leray\n", "name: Le_Ray\n", "not a name"),
    ("raycluster", '"2.60.0"', '"2.59.0"', "Ray 2.60.0 is installed here"),
    ("raycluster", '"2.60.0"', "2.60", 'write "2.60.0"'),
    ("raycluster", "mode: token", "mode: disabled", "authentication is off"),
    ("raycluster", "enableInTreeAutoscaling:", "enableInTreeAutoScaling:", "did you mean enable"),
    ("raycluster", "upscalingMode: Default", "upscalingMode: Fast", "allowed are Default"),
    ("raycluster", "idleTimeoutSeconds: 600", "idleTimeoutSeconds: 0", "after how many seconds"),
    ("raycluster", "serviceType: ClusterIP", "serviceType: LoadBalancer", "outside of Kubernetes"),
    ("raycluster", "serviceType: ClusterIP", "serviceType: NodePort", "outside of Kubernetes"),
    ("raycluster", 'num-cpus: "0"', "num-cpus: 0", "rayStartParams.num-cpus: 0 is not text"),
    ("raycluster", "/leray:0.1.0\n", "/leray:0.2.0\n", "LeRay 0.1.0 is installed here"),
    ("raycluster", "/leray:0.1.0\n", "/leray\n", "is not pinned"),
    ("raycluster", "image: REPLACE_ME_REGISTRY/leray:0.1.0\n", "image:\n", "image is missing"),
    ("raycluster", 'requests: {cpu: "4"', 'requests: {cpu: "2"', "Ray counts the limit"),
    ("raycluster", 'cpu: "4", memory: 16Gi', "cpu: four, memory: 16Gi", "is no quantity"),
    ("raycluster", "{name: outputs, mount", "{name: output, mount", "is not in volumes"),
    (
        "raycluster",
        "claimName: leray-outputs",
        "claimName: leray-output",
        "did you mean leray-outputs",
    ),
    ("raycluster", "{medium: Memory, ", "{medium: Disk, ", "has to be in memory"),
    (
        "raycluster",
        "containerPort: 8265}",
        "containerPort: 8265, hostPort: 8265}",
        "on the machine",
    ),
    ("raycluster", "sizeLimit: 6Gi", "sizeLimit: 4Gi", "raise sizeLimit 4Gi"),
    ("raycluster", "num-cpus:", "num_cpus:", "did you mean num-cpus?"),
    ("raycluster", "groupName: sim", "groupName: learner", "is there twice"),
    ("raycluster", "maxReplicas: 2", "maxReplicas: two", "maxReplicas: give a whole number"),
    ("raycluster", "role: learner", "role: 1", "label role: 1 is not text"),
    ("raycluster", "rayStartParams: {}", "rayStartParams: {labels: a=b}", "KubeRay refuses it"),
    ("raycluster", '\'"{\\"sim\\": 8}"\'', "'{\"sim\": 8}'", "lacks its inner quotes"),
    ("raycluster", '\'"{\\"sim\\": 8}"\'', "'\"{sim: 8}\"'", "is not JSON"),
    ("rayjob", "submissionMode: K8sJobMode", "submissionMode: K8sJob", "allowed are K8sJobMode"),
    (
        "rayjob",
        "shutdownAfterJobFinishes: true",
        "shutdownAfterJobFinishes: false",
        "the cluster stays",
    ),
    ("rayjob", "backoffLimit: 0", "backoffLimit: -1", "not a whole number >= 0"),
    ("rayjob", "backoffLimit: 0", "backofLimit: 0", "did you mean backoffLimit?"),
    (
        "raycluster",
        "          volumeMounts:",
        "          volumeMount:",
        "did you mean volumeMounts?",
    ),
    ("raycluster", "maxReplicas: 2", "maxReplica: 2", "did you mean maxReplicas?"),
    ("raycluster", "securityContext:", "securitiContext:", "did you mean securityContext?"),
    ("rayjob", "--env.type=gym", "--env.typ=gym", "entrypoint: --env.typ: unknown flag"),
    ("outputs-claim", "[ReadWriteMany]", "[ReadWriteOnce]", "all nodes write outputs"),
]

ELSEWHERE = [
    (
        "raycluster",
        "              - {name: shared-memory, mountPath: /dev/shm}\n",
        "",
        "shared-memory",
        "no container mounts it",
    ),
    ("raycluster", "  authOptions:\n    mode: token\n", "", "- name: ray-head", "without a token"),
    ("raycluster", '  rayVersion: "2.60.0"\n', "", "spec:", "rayVersion is missing"),
    ("raycluster", "  enableInTreeAutoscaling: true\n", "", "autoscalerOptions:", "nothing scales"),
    ("raycluster", "      minReplicas: 0\n", "", "- groupName: learner", "minReplicas: give"),
    (
        "raycluster",
        "    - groupName: learner\n      replicas",
        "    - replicas",
        "- replicas: 0",
        "groupName",
    ),
    (
        "raycluster",
        "    labels:\n      role: head\n",
        "    labels:\n      ray.io/market-type: spot\n",
        "ray.io/market-type",
        "the head on a spot machine",
    ),
    (
        "raycluster",
        "      spec:\n",
        "      spec:\n        hostNetwork: true\n",
        "hostNetwork",
        "opens Ray's ports",
    ),
    (
        "raycluster",
        "            ports:\n",
        "            env: [{name: RAY_AUTH_TOKEN, value: abc}]\n            ports:\n",
        "RAY_AUTH_TOKEN",
        "a token in plain sight",
    ),
    (
        "raycluster",
        "            ports:\n",
        "            env:\n"
        "              - name: TASK\n"
        "                valueFrom:\n"
        "                  configMapKeyRef: {name: tasks, key: first}\n"
        "            ports:\n",
        "configMapKeyRef",
        "ConfigMap tasks: is not defined here",
    ),
    (
        "raycluster",
        "        volumes:\n",
        "        volumes:\n          - {name: spare, emptyDir: {}}\n",
        "spare",
        "no container mounts it",
    ),
    ("rayjob", "env_runners=16", "env_runners=90", "workerGroupSpecs:", "90 sim, all nodes"),
    ("rayjob", "--policy.type=sac", "'--policy.type=sac", "entrypoint:", "close every quote"),
    (
        "outputs-claim",
        "  accessModes",
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: open}\nspec:\n  type: NodePort\n"
        "  accessModes",
        "type: NodePort",
        "Service of type NodePort",
    ),
    (
        "outputs-claim",
        "apiVersion",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData:\n  auth_token: abc\n"
        "---\napiVersion",
        "auth_token: abc",
        "in plain sight",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "reason"), CHANGED)
def test_a_mistake_is_found_in_its_line(vary, name, old, new, reason):
    variant = vary(f"{name}.yaml", old, new)
    found = [each.line for each in variant.findings.errors if reason in each.message]
    assert found == [variant.changed], variant.findings.text()


@pytest.mark.parametrize(("name", "old", "new", "where", "reason"), ELSEWHERE)
def test_a_mistake_is_found_where_it_belongs(vary, name, old, new, where, reason):
    variant = vary(f"{name}.yaml", old, new)
    errors = [each for each in variant.findings.errors if reason in each.message]
    assert errors, variant.findings.text()
    lines = variant.file.read_text().splitlines()
    assert where in lines[errors[0].line - 1], errors


def test_references_are_met_by_other_documents(vary, tmp_path):
    env = (
        "            env:\n"
        "              - name: TASK\n"
        "                valueFrom:\n"
        "                  configMapKeyRef: {name: tasks, key: first}\n"
        "              - name: HF_TOKEN\n"
        "                valueFrom:\n"
        "                  secretKeyRef: {name: hub, key: token}\n"
        "            ports:\n"
    )
    variant = vary("raycluster.yaml", "            ports:\n", env)
    tasks = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tasks}\ndata: {KEY: PandaReach-v3}\n"
    beside = variant.file.parent / "tasks.yaml"
    beside.write_text(tasks.replace("KEY", "first"))
    findings = check_file(variant.file)
    assert findings.errors == []
    secret = [each for each in findings.notes if "Secret hub" in each.message]
    assert [each.line for each in secret] == [variant.line_of("secretKeyRef")]
    beside.write_text(tasks.replace("KEY", "second"))
    errors = check_file(variant.file).errors
    assert [each.line for each in errors] == [variant.line_of("configMapKeyRef")]
    assert "has no key first; it has second" in errors[0].message


def test_a_token_by_environment_is_accepted(vary):
    variant = vary("raycluster.yaml", "  authOptions:\n    mode: token\n", "")
    assert len(variant.findings.errors) == 3, "one for each group"
    own = (
        r"\1\2\n\1env:\n\1  - {name: RAY_AUTH_MODE, value: token}\n"
        r"\1  - name: RAY_AUTH_TOKEN\n\1    valueFrom: {secretKeyRef: {name: ray, key: auth_token}}"
    )
    text = variant.file.read_text()
    variant.file.write_text(re.sub(r"^( +)(image: .*)$", own, text, flags=re.MULTILINE))
    assert check_file(variant.file).errors == []


def test_spot_workers_are_fine(vary):
    variant = vary(
        "raycluster.yaml",
        "    labels:\n        role: sim\n",
        "    labels: {ray.io/market-type: spot}\n",
    )
    assert variant.findings.errors == []


def test_a_job_for_a_cluster_that_is_there_needs_none_of_its_own(vary):
    variant = vary("rayjob.yaml", "  rayClusterSpec:", "  rayClusterSpec:")
    text = variant.file.read_text()
    lines = text[: text.index("  rayClusterSpec:")] + "  clusterSelector: {ray.io/cluster: leray}\n"
    variant.file.write_text(lines)
    assert check_file(variant.file).errors == []
    variant.file.write_text(lines.replace("--env.type=gym", "--env.typ=gym"))
    (error,) = check_file(variant.file).errors
    assert error.line == variant.line_of("--env.typ=gym")


def test_fields_newer_than_the_check_are_notes(vary):
    variant = vary(
        "raycluster.yaml", "  headGroupSpec:", "  networkIsolation: {}\n  headGroupSpec:"
    )
    assert variant.findings.errors == []
    notes = [each for each in variant.findings.notes if "networkIsolation" in each.message]
    assert [each.line for each in notes] == [variant.changed]


def test_services_are_checked_as_clusters_are(vary):
    variant = vary("raycluster.yaml", "kind: RayCluster", "kind: RayService")
    text = variant.file.read_text()
    head, spec = text.split("spec:\n", 1)
    spec = "".join(f"  {line}\n" for line in spec.splitlines())
    service = f'{head}spec:\n  serveConfigV2: "applications: []"\n  rayClusterConfig:\n{spec}'
    variant.file.write_text(service)
    assert check_file(variant.file).errors == []
    variant.file.write_text(service.replace('rayVersion: "2.60.0"', 'rayVersion: "2.61.0"'))
    (error,) = check_file(variant.file).errors
    assert error.line == variant.line_of('rayVersion: "2.61.0"')
