"""What the mesh as a whole says: trust domain, root namespace, path normalisation, proxies to trust, providers.

Given by hand, or read from Istio's mesh configuration: the ConfigMap ``istio`` (key ``mesh``) among the objects.
Source: istio/api mesh/v1alpha1 (MeshConfig).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshsieve.mesh.mesh_config import mesh_config
from meshsieve.mesh.objects import ObjectStore
from meshsieve.routes.http_options import HttpOptions

PathNormalization = Literal["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]
PATH_NORMALIZATIONS: tuple[PathNormalization, ...] = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
HTTP_OPTIONS: dict[PathNormalization, HttpOptions] = {
    "NONE": HttpOptions(),
    "BASE": HttpOptions(normalize_path=True),
    "MERGE_SLASHES": HttpOptions(normalize_path=True, merge_slashes=True),
    "DECODE_AND_MERGE_SLASHES": HttpOptions(
        normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD"
    ),
}


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """trusted_proxies      numTrustedProxies: addresses at the end of X-Forwarded-For that are to be trusted
    extension_providers  names of external authorizers; None: not known, any name is taken to exist
    """

    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    path_normalization: PathNormalization = "BASE"
    trusted_proxies: int = 0
    extension_providers: frozenset[str] | None = None

    @property
    def trust_domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.trust_domain, *self.trust_domain_aliases)))

    @property
    def http(self) -> HttpOptions:
        return HTTP_OPTIONS[self.path_normalization]


def read_settings(store: ObjectStore, root_namespace: str | None) -> MeshSettings:
    """The settings of the mesh configuration among the objects, else the defaults.

    raises  PolicyError
    """
    default = MeshSettings(root_namespace=root_namespace or "istio-system")
    mesh = mesh_config(store, default.root_namespace)
    if mesh is None:
        return default
    normalization = mesh.node("pathNormalization")
    wanted = (
        normalization.choice("normalization", ("DEFAULT", *PATH_NORMALIZATIONS), "BASE") if normalization else "BASE"
    )
    proxy = mesh.node("defaultConfig")
    topology = proxy.node("gatewayTopology") if proxy else None
    providers = mesh.nodes("extensionProviders")
    return MeshSettings(
        root_namespace or mesh.text("rootNamespace") or default.root_namespace,
        mesh.text("trustDomain") or default.trust_domain,
        tuple(mesh.texts("trustDomainAliases") or ()),
        next((n for n in PATH_NORMALIZATIONS if n == wanted), "BASE"),
        (topology.integer("numTrustedProxies", 0, 1000) if topology else None) or 0,
        frozenset(p.required_text("name") for p in providers) if providers is not None else None,
    )
