"""Istio: VirtualService, Gateway, DestinationRule, ServiceEntry and Sidecar as the proxies of a mesh see them.

    read_*.py       objects as typed data; what Istio refuses is refused here
    registry        services that a namespace sees, from Services and ServiceEntries
    delegates       root VirtualServices merged with their delegates
    scope           what one proxy imports: Sidecar, exportTo
    http_routes     rules of a VirtualService as routes
    sidecar, gateway, inbound   listeners and route configurations of a proxy
    analyzers*      findings of Istio's analyzers

Source: Istio API networking/v1; istio/istio pilot/pkg/networking/core, pilot/pkg/model, pkg/config/validation.
"""
