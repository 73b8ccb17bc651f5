"""Who may call what, over the mesh's own policies: read ``docs/authorization.md`` first."""

from meshsieve.authz.authorizer import Authorizer, from_kubernetes, from_store
from meshsieve.authz.decision import Decision
from meshsieve.authz.settings import MeshSettings

__all__ = ["Authorizer", "Decision", "MeshSettings", "from_kubernetes", "from_store"]
