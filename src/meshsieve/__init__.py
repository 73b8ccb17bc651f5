"""meshsieve: what a network and a service mesh would do with a packet, a flow or a request, and why."""
