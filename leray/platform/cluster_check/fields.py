"""Names of the fields of KubeRay manifests and of the pods in them."""

import difflib

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings

_KNOWN = {
    "RayJob": """
        activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint
        entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata
        preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes
        submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished""",
    "RayService": """
        excludeHeadPodFromServeSvc rayClusterConfig rayClusterDeletionDelaySeconds serveConfigV2
        serveService upgradeStrategy""",
    "cluster": """
        authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions
        headGroupSpec headServiceAnnotations managedBy rayVersion suspend upgradeStrategy
        workerGroupSpecs""",
    "autoscalerOptions": """
        env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext
        upscalingMode version volumeMounts""",
    "head group": """
        enableIngress headService labels rayStartParams resources serviceType template""",
    "worker group": """
        groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams
        replicas resources scaleStrategy suspend template""",
    "pod": """
        activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy
        enableServiceLinks hostAliases hostIPC hostNetwork hostPID hostUsers hostname
        imagePullSecrets initContainers nodeName nodeSelector os overhead preemptionPolicy priority
        priorityClassName readinessGates resourceClaims restartPolicy runtimeClassName schedulerName
        schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN
        shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations
        topologySpreadConstraints volumes""",
    "container": """
        args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports
        readinessProbe resizePolicy resources restartPolicy securityContext startupProbe stdin
        stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts
        workingDir""",
}


def check_fields(entry: Entry, kind: str, findings: Findings) -> None:
    """Check the names of a mapping's fields; those unlike any known one may be newer than this.

    Args:
        entry: the mapping.
        kind: what it describes: `RayJob`, `cluster`, `pod`, ...
        findings: unknown names are added.
    """
    known = _KNOWN[kind].split()
    for name, field in entry.mapping.items():
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, 1, 0.8)
        if near:
            findings.error(field, f"{name}: no field of a {kind}; did you mean {near[0]}?")
        else:
            findings.note(field, f"{name}: no known field of a {kind}; see that yours has it")
