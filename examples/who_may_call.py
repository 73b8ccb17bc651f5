"""Who may call whom in a mesh, why one call is denied, and what a new policy would change.

python examples/who_may_call.py examples/bookinfo/policy/cluster.yaml examples/bookinfo/policy/authorization.yaml
"""

import sys

import meshsieve
from meshsieve.authz import Authorizer, from_kubernetes
from meshsieve.authz.matrix import matrix

FROZEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: freeze, namespace: bookinfo}
spec:
  action: DENY
  rules: [{to: [{operation: {notMethods: [GET]}}]}]
"""


def main(files: list[str]) -> None:
    az = from_kubernetes(files)
    open_calls = {(c.source, c.destination, c.method): c for c in matrix(az) if c.state != "denied"}
    for cell in open_calls.values():
        if cell.destination.startswith("bookinfo/"):
            needs = f"  depending on {', '.join(cell.depends_on)}" if cell.depends_on else ""
            print(f"{cell.source} may {cell.method} {cell.destination}{needs}")

    caller, address = az.caller("bookinfo/ratings-v1")
    call = meshsieve.Request(method="GET", path="/reviews/0", principal=caller, source_ip=address)
    print(az.decide(call, "bookinfo/reviews"))

    frozen = from_kubernetes([*files, FROZEN])
    lost = sorted(set(open_calls) - still_open(frozen))
    print(f"freezing takes {len(lost)} calls away, such as {' '.join(lost[0])}")


def still_open(az: Authorizer) -> set[tuple[str, str, str]]:
    return {(c.source, c.destination, c.method) for c in matrix(az) if c.state != "denied"}


if __name__ == "__main__":
    main(sys.argv[1:])
