"""The mesh configuration among the objects: ConfigMap ``istio`` of the root namespace, key ``mesh``."""

from __future__ import annotations

from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping, load_documents
from meshsieve.mesh.objects import CORE, ObjectStore


def mesh_config(store: ObjectStore, root_namespace: str) -> Node | None:
    """None if the objects hold none.

    raises  PolicyError for text that is no mapping
    """
    found = store.find("ConfigMap", root_namespace, "istio", CORE)
    data = found.node.node("data") if found is not None else None
    text = data.text("mesh") if data is not None else None
    if found is None or data is None or text is None:
        return None
    documents = load_documents(text, f"{data.data.where('mesh')} mesh")
    if not documents:
        return None
    if not isinstance(documents[0], Mapping):
        raise data.error("expected a mapping", "mesh")
    return Node(documents[0], found.title)
