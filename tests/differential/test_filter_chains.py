"""Filter-chain choice against the real Envoy: random chains, random connections.

``MESHSIEVE_CHAINS=200`` asks that many listeners instead of 25; each is asked 60 times.
"""

from __future__ import annotations

import os
import random

from meshsieve.mesh.listeners import FilterChain, Listener, TcpHandler
from tests.differential.envoy import envoy_binary, free_ports, running
from tests.differential.filter_chains import CLOSED, ask, envoy_listener, name_of, random_chains, random_connection

LISTENERS = int(os.environ.get("MESHSIEVE_CHAINS", "25"))
QUESTIONS = 60


def test_the_same_chain_takes_a_connection_here_and_in_envoy():
    envoy_binary()
    rng = random.Random(20)
    ports = free_ports(LISTENERS)
    ours, theirs = [], []
    for port in ports:
        chains = random_chains(rng)
        default = FilterChain(TcpHandler((("default", 1),))) if rng.random() < 0.5 else None
        ours.append(Listener("l", "0.0.0.0", port, tuple(chains), default))
        theirs.append(envoy_listener(port, chains, default is not None))
    differences = []
    chosen: set[str] = set()
    with running(theirs, [], ports[-1]):
        for listener in ours:
            for _ in range(QUESTIONS):
                connection = random_connection(rng)
                found = listener.chain(connection)
                here, there = CLOSED if found is None else name_of(found), ask(listener.port, connection)
                chosen.add(there)
                if here != there:
                    differences.append((listener.chains, connection, here, there))
    assert not differences, differences[0]
    assert {CLOSED, "default", "c0", "c1"} <= chosen  # all kinds of answers were met
