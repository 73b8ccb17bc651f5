"""What a change of policy does: which connections and requests are answered otherwise under a new policy than under an
old one, from the policies alone and in the traffic of captures and logs.

``connections``    layers 2-4, exact, by set algebra over the rules
``authorization``  who may call whom with which method, exact where the policies can be decided symbolically
``routes``         where requests go, by requests made from everything that the tables compare with
``traffic``        flows and requests that were really there
"""
