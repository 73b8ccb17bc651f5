"""Istio's analyzers: findings about configuration that loads and still does not do what it says.

An analyzer is a function from a ``World`` to ``Diagnostic``s, whose code is the name of Istio's message; the message
begins with its number. Objects are read loosely here: what is of a wrong type counts as absent, since refusing it is
the readers' work.
Source: istio/istio pkg/config/analysis (analyzers, msg/messages.yaml).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from meshsieve.mesh.istio.analyzers_annotations import ANNOTATION_ANALYZERS
from meshsieve.mesh.istio.analyzers_control_plane import CONTROL_PLANE_ANALYZERS
from meshsieve.mesh.istio.analyzers_destination import DESTINATION_ANALYZERS
from meshsieve.mesh.istio.analyzers_gateway import GATEWAY_ANALYZERS
from meshsieve.mesh.istio.analyzers_platform import PLATFORM_ANALYZERS
from meshsieve.mesh.istio.analyzers_virtual_service import VIRTUAL_SERVICE_ANALYZERS
from meshsieve.mesh.istio.analyzers_workload import WORKLOAD_ANALYZERS
from meshsieve.mesh.istio.world import Finding, World
from meshsieve.mesh.objects import ObjectStore
from meshsieve.policy import Diagnostic

# Annotation of an object: numbers of findings that it does not want, or *.
SUPPRESS = "galley.istio.io/analyze-suppress"

Analyzer = Callable[[World], Iterator[Finding]]
Level = Literal["error", "warning", "note"]

# By Istio's names.
ANALYZERS: dict[str, Analyzer] = {
    **VIRTUAL_SERVICE_ANALYZERS,
    **GATEWAY_ANALYZERS,
    **DESTINATION_ANALYZERS,
    **WORKLOAD_ANALYZERS,
    **PLATFORM_ANALYZERS,
    **CONTROL_PLANE_ANALYZERS,
    **ANNOTATION_ANALYZERS,
}
# Istio leaves it out as well unless asked: most of its findings are about annotations that every installation has.
NOISY = frozenset({"annotations.AlphaAnalyzer"})
USUAL = tuple(name for name in ANALYZERS if name not in NOISY)

# Number and level of every message that the analyzers give.
MESSAGES: dict[str, tuple[int, Level]] = {
    "Deprecated": (2, "warning"),
    "ReferencedResourceNotFound": (101, "error"),
    "NamespaceNotInjected": (102, "note"),
    "PodMissingProxy": (103, "warning"),
    "MisplacedAnnotation": (107, "warning"),
    "UnknownAnnotation": (108, "warning"),
    "ConflictingMeshGatewayVirtualServiceHosts": (109, "error"),
    "ConflictingSidecarWorkloadSelectors": (110, "error"),
    "MultipleSidecarsWithoutWorkloadSelectors": (111, "error"),
    "VirtualServiceDestinationPortSelectorRequired": (112, "error"),
    "DeploymentAssociatedToMultipleServices": (116, "warning"),
    "PortNameIsNotUnderNamingConvention": (118, "note"),
    "InvalidRegexp": (122, "warning"),
    "NamespaceMultipleInjectionLabels": (123, "warning"),
    "InvalidAnnotation": (125, "warning"),
    "NoMatchingWorkloadsFound": (127, "warning"),
    "NoServerCertificateVerificationDestinationLevel": (128, "error"),
    "NoServerCertificateVerificationPortLevel": (129, "warning"),
    "VirtualServiceUnreachableRule": (130, "warning"),
    "VirtualServiceIneffectiveMatch": (131, "note"),
    "VirtualServiceHostNotFoundInGateway": (132, "warning"),
    "ServiceEntryAddressesRequired": (134, "warning"),
    "DeprecatedAnnotation": (135, "note"),
    "AlphaAnnotation": (136, "note"),
    "DeploymentConflictingPorts": (137, "warning"),
    "GatewayDuplicateCertificate": (138, "warning"),
    "InvalidWebhook": (139, "error"),
    "IngressRouteRulesNotAffected": (140, "warning"),
    "InvalidApplicationUID": (144, "warning"),
    "ConflictingGateways": (145, "error"),
    "ImageAutoWithoutInjectionWarning": (146, "warning"),
    "ImageAutoWithoutInjectionError": (147, "error"),
    "NamespaceInjectionEnabledByDefault": (148, "note"),
    "JwtClaimBasedRoutingWithoutRequestAuthN": (149, "error"),
    "ExternalNameServiceTypeInvalidPortName": (150, "warning"),
    "EnvoyFilterUsesRelativeOperation": (151, "warning"),
    "EnvoyFilterUsesReplaceOperationIncorrectly": (152, "error"),
    "EnvoyFilterUsesAddOperationIncorrectly": (153, "error"),
    "EnvoyFilterUsesRemoveOperationIncorrectly": (154, "error"),
    "EnvoyFilterUsesRelativeOperationWithProxyVersion": (155, "warning"),
    "InvalidTelemetryProvider": (157, "warning"),
    "PodsIstioProxyImageMismatchInNamespace": (158, "warning"),
    "ConflictingTelemetryWorkloadSelectors": (159, "error"),
    "MultipleTelemetriesWithoutWorkloadSelectors": (160, "error"),
    "InvalidGatewayCredential": (161, "error"),
    "GatewayPortNotDefinedOnService": (162, "warning"),
    "ReferencedInternalGateway": (165, "warning"),
    "IneffectiveSelector": (166, "warning"),
    "UnknownDestinationRuleHost": (172, "warning"),
    "DestinationRuleSubsetNotSelectPods": (173, "error"),
}
# Messages whose number is not known here.
UNNUMBERED: dict[str, Level] = {
    "ConflictingServiceEntryProtocol": "warning",
    "EnvoyFilterMayClearRouteCache": "warning",
    "JwksUriFetchUnrestricted": "warning",
    "LightstepProviderStillUsed": "warning",
    "NegativeConditionStatus": "warning",
    "UnsupportedDestinationRuleWorkloadSelector": "warning",
    "GatewayAPICRDVersionBelowMinimum": "warning",
}


def analyze(store: ObjectStore, names: Iterable[str] = USUAL, *, default_gateway: bool = True) -> list[Diagnostic]:
    """Findings of the named analyzers, in the order of the objects.

    default_gateway  the installation's own ingress gateway (label ``istio: ingressgateway`` in istio-system) is taken
                     to run, as Istio's own tool does for files
    """
    world = World(store, default_gateway)
    found = [finding for name in names for finding in ANALYZERS[name](world)]
    found = [finding for finding in found if not _suppressed(finding)]
    found.sort(key=lambda f: f.object.order)
    return [diagnostic(finding) for finding in found]


def _suppressed(finding: Finding) -> bool:
    """Whether the object itself says that it does not want this finding."""
    number, _ = MESSAGES.get(finding.code, (0, "note"))
    words = {word.strip() for word in finding.object.annotations.get(SUPPRESS, "").split(",")}
    return "*" in words or f"IST{number:04}" in words


def diagnostic(finding: Finding) -> Diagnostic:
    if finding.code in MESSAGES:
        number, level = MESSAGES[finding.code]
        return Diagnostic(
            finding.code, f"IST{number:04}: {finding.message}", finding.where, finding.object.title, level=level
        )
    level = UNNUMBERED[finding.code]
    return Diagnostic(finding.code, finding.message, finding.where, finding.object.title, level=level)
