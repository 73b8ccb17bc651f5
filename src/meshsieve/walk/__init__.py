"""A request's way through every layer that knows something about it, in the order in which it meets them.

request -> the mesh as it is (who owns both addresses, who has a proxy, which identity)
        -> layers 2-4 at both ends -> route of the client's proxy or the ingress -> mTLS, authorization at the server
        -> endpoints
"""
