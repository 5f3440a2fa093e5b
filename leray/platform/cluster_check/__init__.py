"""Checks launch files of clusters before anything is started: `ray up` YAML, KubeRay manifests."""
