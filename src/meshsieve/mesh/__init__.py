"""The mesh: objects of a cluster (Istio, Gateway API, core Kubernetes, mixed) and what its proxies make of them.

``objects`` is the typed store that every reader shares, ``services`` and ``workloads`` the core objects behind names;
``istio`` and ``gateway_api`` turn the routing objects into routes.
"""
