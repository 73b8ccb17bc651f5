"""Rulesets as Docker, kube-proxy, Calico, ufw, firewalld, libvirt, netavark and OpenWrt write them: their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshsieve.engine import Engine, load

DUMPS = Path(__file__).parent / "dumps"
HOST = ("192.168.1.10/24",)
OUT, LAN = "198.51.100.9", "192.168.1.77"
BRIDGE = "br-3f0a91c1e6d2"
CALI = "cali1a2b3c4d5e6"


def docker() -> Engine:
    return load([DUMPS / "docker.rules", DUMPS / "docker.ipset"], table="all", local_addresses=HOST)


def kube_proxy() -> Engine:
    # `-m statistic` picks an endpoint: its rules are undecided, all others are not.
    return load([DUMPS / "kube-proxy.rules"], table="all", local_addresses=HOST, strict=False)


def calico() -> Engine:
    return load([DUMPS / "calico.rules", DUMPS / "calico.ipset"])


def ufw() -> Engine:
    return load([DUMPS / "ufw.rules"], local_addresses=HOST, strict=False)


def firewalld() -> Engine:
    return load(
        [DUMPS / "firewalld.nft"], table="all", local_addresses=("198.51.100.1/24", "192.168.1.1/24"), strict=False
    )


def libvirt() -> Engine:
    return load([DUMPS / "libvirt.nft"])


def netavark() -> Engine:
    return load([DUMPS / "netavark.nft"], table="all", local_addresses=HOST)


def kube_proxy_nft() -> Engine:
    return load([DUMPS / "kube-proxy.nft"], table="all", local_addresses=HOST, strict=False)


def openwrt() -> Engine:
    return load([DUMPS / "fw4.nft"], table="all", local_addresses=("192.168.1.1/24",), strict=False)


# (engine, sentence, packet, incoming, outgoing interface, action)
CASES: list[tuple[Any, str, str, str, str, str]] = [
    (docker, "a published port leads to its container", f"tcp {OUT}:1 > 192.168.1.10:8080", "eth0", BRIDGE, "ALLOW"),
    (docker, "a container may open to the outside", f"tcp 172.17.0.2:1 > {OUT}:443", "docker0", "eth0", "ALLOW"),
    (docker, "nobody outside reaches it directly", f"tcp {OUT}:1 > 172.17.0.2:5432", "eth0", "docker0", "DROP"),
    (docker, "networks are isolated", "tcp 172.17.0.2:1 > 172.18.0.3:80", "docker0", BRIDGE, "DROP"),
    (docker, "replies pass", f"tcp {OUT}:443 > 172.18.0.3:1 ct_state 2", "eth0", BRIDGE, "ALLOW"),
    (docker, "the user's own rules come first", "tcp 203.0.113.5:1 > 192.168.1.10:8080", "eth0", BRIDGE, "DROP"),
    (docker, "and sets", "tcp 198.51.100.7:1 > 192.168.1.10:8080", "eth0", BRIDGE, "DROP"),
    (kube_proxy, "a service with one endpoint", "tcp 10.244.1.9:1 > 10.96.0.1:443", "cni0", "eth0", "ALLOW"),
    (kube_proxy, "a service without endpoints", "tcp 10.244.1.9:1 > 10.96.7.7:80", "cni0", "eth0", "REJECT"),
    (kube_proxy, "localnet from elsewhere", f"tcp {OUT}:1 > 127.0.0.1:10250", "eth0", "", "DROP"),
    (kube_proxy, "a packet marked to be dropped", f"tcp {OUT}:1 > 192.168.1.10:22 mark 32768", "eth0", "", "DROP"),
    (kube_proxy, "an unmarked one", f"tcp {OUT}:1 > 192.168.1.10:22", "eth0", "", "ALLOW"),
    (kube_proxy, "invalid packets are not forwarded", "tcp 10.244.1.9:1 > 10.244.2.4:80 ct_state 4", "a", "b", "DROP"),
    (calico, "a policy accepts by its mark", "tcp 10.244.9.7:1 > 10.244.1.3:80", "eth0", CALI, "ALLOW"),
    (calico, "another port", "tcp 10.244.9.7:1 > 10.244.1.3:22", "eth0", CALI, "DROP"),
    (calico, "another source", "tcp 10.244.8.7:1 > 10.244.1.3:80", "eth0", CALI, "DROP"),
    (calico, "an interface of no workload", "tcp 10.244.9.7:1 > 10.244.1.3:80", "eth0", "cali99", "DROP"),
    (calico, "a profile accepts what leaves", f"tcp 10.244.1.3:1 > {OUT}:443", CALI, "eth0", "ALLOW"),
    (calico, "no VXLAN out of workloads", f"udp 10.244.1.3:1 > {OUT}:4789", CALI, "eth0", "DROP"),
    (calico, "replies pass", "tcp 10.9.9.9:80 > 10.244.1.3:1 ct_state 2", "eth0", CALI, "ALLOW"),
    (ufw, "an application profile", f"tcp {OUT}:1 > 192.168.1.10:443", "eth0", "", "ALLOW"),
    (ufw, "a banned address", "tcp 192.0.2.44:1 > 192.168.1.10:22", "eth0", "", "REJECT"),
    (ufw, "limited connections depend on those before", f"tcp {OUT}:1 > 192.168.1.10:22", "eth0", "", "UNDECIDED"),
    (ufw, "NetBIOS is dropped", f"udp {OUT}:1 > 192.168.1.10:137", "eth0", "", "DROP"),
    (ufw, "the loopback passes", "tcp 127.0.0.1:1 > 127.0.0.1:5432", "lo", "", "ALLOW"),
    (ufw, "DHCP answers pass", f"udp {LAN}:67 > 192.168.1.10:68", "eth0", "", "ALLOW"),
    (ufw, "nothing else", f"tcp {OUT}:1 > 192.168.1.10:8080", "eth0", "", "DROP"),
    (firewalld, "ssh in zone public", f"tcp {OUT}:1 > 198.51.100.1:22", "eth0", "", "ALLOW"),
    (firewalld, "another port", f"tcp {OUT}:1 > 198.51.100.1:23", "eth0", "", "REJECT"),
    (firewalld, "a rich rule", "tcp 10.1.2.9:1 > 198.51.100.1:3306", "eth0", "", "ALLOW"),
    (firewalld, "a packet with the mark of a rule", f"tcp {OUT}:1 > 198.51.100.1:99 mark 100", "eth0", "", "ALLOW"),
    (firewalld, "a forwarded port is accepted because it is translated", f"tcp {OUT}:1 > 198.51.100.1:8080", "eth0",
     "eth9", "ALLOW"),
    (firewalld, "IPv4 in IPv6 is refused", "tcp [2001:db8::1]:1 > [2002:a00::1]:80", "eth1", "eth1", "REJECT"),
    (libvirt, "a guest may open", f"tcp 192.168.122.5:1 > {OUT}:443", "virbr0", "eth0", "ALLOW"),
    (libvirt, "with its own address only", f"tcp 10.0.0.5:1 > {OUT}:443", "virbr0", "eth0", "REJECT"),
    (libvirt, "nobody opens to it", f"tcp {OUT}:1 > 192.168.122.5:22", "eth0", "virbr0", "REJECT"),
    (libvirt, "guests reach each other", "tcp 192.168.122.5:1 > 192.168.122.6:22", "virbr0", "virbr0", "ALLOW"),
    (netavark, "a published port", f"tcp {OUT}:1 > 192.168.1.10:8080", "eth0", "podman0", "ALLOW"),
    (netavark, "networks are isolated", "tcp 10.88.0.2:1 > 10.89.0.2:80", "podman0", "podman1", "DROP"),
    (netavark, "invalid packets", f"tcp {OUT}:1 > 10.88.0.2:80 ct_state 4", "eth0", "podman0", "DROP"),
    (kube_proxy_nft, "a service without endpoints", "tcp 10.244.1.9:1 > 10.96.5.9:80", "cni0", "eth0", "REJECT"),
    (kube_proxy_nft, "an address of no service", "tcp 10.244.1.9:1 > 10.96.77.7:80", "cni0", "eth0", "DROP"),
    (kube_proxy_nft, "a service with one endpoint", "tcp 10.244.1.9:1 > 10.96.0.1:443", "cni0", "eth0", "ALLOW"),
    (openwrt, "lan to wan", f"tcp {LAN}:1 > {OUT}:443", "br-lan", "eth1", "UNDECIDED"),  # by the hour, for one host
    (openwrt, "lan to wan, another host", f"tcp 192.168.1.78:1 > {OUT}:443", "br-lan", "eth1", "ALLOW"),
    (openwrt, "wan to lan", f"tcp {OUT}:1 > 192.168.1.78:22", "eth1", "br-lan", "REJECT"),
    (openwrt, "wan to lan: IPsec", f"esp {OUT} > 192.168.1.78", "eth1", "br-lan", "ALLOW"),
    (openwrt, "replies", f"tcp {OUT}:443 > 192.168.1.78:1 ct_state 2", "eth1", "br-lan", "ALLOW"),
]  # fmt: skip


@pytest.fixture(scope="module")
def engines() -> dict[Any, Engine]:
    return {made: made() for made in {case[0] for case in CASES}}


@pytest.mark.parametrize(("made", "sentence", "packet", "iif", "oif", "expected"), CASES,
                         ids=[f"{c[0].__name__}: {c[1]}" for c in CASES])  # fmt: skip
def test_dump(
    engines: dict[Any, Engine], made: Any, sentence: str, packet: str, iif: str, oif: str, expected: str
) -> None:
    found = engines[made].explain(packet, iif=iif, oif=oif)
    assert found.action == expected, str(found)
