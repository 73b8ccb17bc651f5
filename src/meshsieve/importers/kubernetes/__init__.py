"""Kubernetes network policies: NetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy.

``cluster`` reads manifests into pods, namespaces, nodes and policies; ``selectors`` turns label selectors into pods;
``network_policy`` and ``admin_policy`` write the rules of the tiers; ``importer`` puts the tiers together.
"""
