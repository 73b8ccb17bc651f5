"""NSX distributed firewall: Policy API JSON (hierarchical bodies, answers, lists) and whole-inventory dumps.

``json_source`` reads JSON with positions, ``catalogue`` sorts any mix of files into typed ``objects`` (``terraform``
rewrites the state of the nsxt provider as such objects), ``groups`` and ``services`` evaluate what rules refer to,
``order`` puts the rules in walking order and ``firewall`` writes them as one layer. docs/importers/nsx.md says what is
supported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.layers import layers_of
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

# Names that only NSX objects carry.
_MARKS = re.compile(
    r'"(?:resource_type|security_policies|virtual_machines|virtual_network_interface|owner_vm_id|vm_members|'
    r'service_entries|source_groups|destination_groups)"|"type"\s*:\s*"nsxt_policy_'
)


class NsxImporter:
    name = "nsx"
    description = "NSX distributed firewall: Policy API JSON, inventory dumps, Terraform state (JSON)"

    def sniff(self, source: SourceFile) -> bool:
        head = source.text[:4096].lstrip("\ufeff \t\r\n")
        return head[:1] in ("{", "[") and '"nftables"' not in head and bool(_MARKS.search(source.text))

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """One layer "nsx-dfw" with the points of a packet's way through NSX (layers.py).

        raises  PolicyError
        """
        return layers_of(Catalogue.of(sources, options), options)
