"""Who may call what, over the mesh's own policies: read ``docs/authorization.md`` first."""

from meshsieve.authz.authorizer import Authorizer, from_kubernetes, from_store
from meshsieve.authz.chain_authorizer import ChainAuthorizer
from meshsieve.authz.decision import Decision
from meshsieve.authz.from_envoy import from_envoy
from meshsieve.authz.settings import MeshSettings

__all__ = ["Authorizer", "ChainAuthorizer", "Decision", "MeshSettings", "from_envoy", "from_kubernetes", "from_store"]
