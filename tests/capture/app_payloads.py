"""First payloads of applications, written from the layouts of their specifications (named in csrc/src/app).

``Talk`` is what a conversation says: alternating messages of client and server, over TCP or UDP.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TCP, UDP, SCTP = "tcp", "udp", "sctp"


@dataclass(frozen=True)
class Talk:
    """app: the name expected; messages: (from the client?, bytes); port: the server's, chosen to suggest nothing."""

    app: str
    messages: tuple[tuple[bool, bytes], ...]
    transport: str = TCP
    port: int = 40000
    attributes: dict[str, str] = field(default_factory=dict)


def client(app: str, *messages: bytes, transport: str = TCP, port: int = 40000, **attributes: str) -> Talk:
    """Only the client is heard."""
    return Talk(app, tuple((True, m) for m in messages), transport, port, attributes)


def both(app: str, *messages: bytes, transport: str = TCP, port: int = 40000, **attributes: str) -> Talk:
    """Client and server in turn."""
    return Talk(app, tuple((i % 2 == 0, m) for i, m in enumerate(messages)), transport, port, attributes)


def server_first(app: str, *messages: bytes, port: int = 40000, **attributes: str) -> Talk:
    return Talk(app, tuple((i % 2 == 1, m) for i, m in enumerate(messages)), TCP, port, attributes)


def u16(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def vector8(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def vector16(data: bytes) -> bytes:
    return u16(len(data)) + data


def size24(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


# ---- TLS


def extension(kind: int, body: bytes) -> bytes:
    return u16(kind) + vector16(body)


def client_hello(
    *, name: str = "www.example.org", alpn: tuple[str, ...] = ("h2", "http/1.1"), grease: bool = True,
    ciphers: tuple[int, ...] = (0x1301, 0x1302, 0xC02F), ech: bool = False, padding: int = 0, version: int = 0x0303,
) -> bytes:  # fmt: skip
    """A ClientHello message with its header (RFC 8446, section 4.1.2)."""
    suites = ((0x2A2A,) if grease else ()) + ciphers
    versions = ((0x3A3A,) if grease else ()) + (0x0304, 0x0303)
    extensions = extension(0x4A4A, b"") if grease else b""
    if name:
        extensions += extension(0, vector16(b"\0" + vector16(name.encode())))
    extensions += extension(10, vector16(u16(0x001D, 0x0017)))
    extensions += extension(11, vector8(b"\0"))
    if alpn:
        extensions += extension(16, vector16(b"".join(vector8(p.encode()) for p in alpn)))
    extensions += extension(13, vector16(u16(0x0403, 0x0804)))
    extensions += extension(43, vector8(u16(*versions)))
    if ech:
        extensions += extension(0xFE0D, b"\0" * 40)
    if padding:
        extensions += extension(21, b"\0" * padding)
    body = (
        u16(version) + bytes(range(32)) + vector8(b"") + vector16(u16(*suites)) + vector8(b"\0") + vector16(extensions)
    )
    return b"\x01" + size24(body)


def server_hello(*, suite: int = 0xC02F, version: int = 0x0303, tls13: bool = False, alpn: str = "") -> bytes:
    extensions = extension(43, u16(0x0304)) if tls13 else b""
    if alpn:
        extensions += extension(16, vector16(vector8(alpn.encode())))
    body = u16(version) + bytes(range(32)) + vector8(b"") + u16(suite) + b"\0" + vector16(extensions)
    return b"\x02" + size24(body)


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else b"\x82" + u16(size)
    return bytes([tag]) + length + body


def certificate(common: str, *names: str) -> bytes:
    """A Certificate message with one certificate that has these names and nothing else of use (RFC 5280)."""

    def name(text: str) -> bytes:
        return der(0x30, der(0x31, der(0x30, der(6, b"\x55\x04\x03"), der(0x0C, text.encode()))))

    algorithm = der(0x30, der(6, b"\x2a\x86\x48"))
    alternative = der(0x30, *(der(0x82, n.encode()) for n in names))
    extensions = der(0xA3, der(0x30, der(0x30, der(6, b"\x55\x1d\x11"), der(4, alternative))))
    tbs = der(
        0x30, der(0xA0, der(2, b"\x02")), der(2, b"\x01"), algorithm, name("issuer"), der(0x30), name(common),
        der(0x30, algorithm), extensions,
    )  # fmt: skip
    whole = der(0x30, tbs, algorithm, der(3, b"\0"))
    return b"\x0b" + size24(size24(size24(whole)))


def record(data: bytes, *, kind: int = 22, version: int = 0x0301) -> bytes:
    return bytes([kind]) + u16(version) + vector16(data)


def dtls_record(message: bytes, *, sequence: int = 0, offset: int = 0, size: int | None = None) -> bytes:
    """A fragment of a handshake message in a DTLS record; ``message`` with its TLS header."""
    body = message[4:]
    part = body[offset:] if size is None else body[offset : offset + size]
    fragment = message[:4] + u16(sequence) + offset.to_bytes(3, "big") + size24(part)
    return b"\x16" + u16(0xFEFD) + u16(0) + b"\0" * 5 + bytes([sequence]) + vector16(fragment)


# ---- others


def dns_question(name: str, *, kind: int = 1, flags: int = 0x0100, answers: int = 0) -> bytes:
    labels = b"".join(vector8(label.encode()) for label in name.split(".")) + b"\0"
    return u16(7, flags, 1, answers, 0, 0) + labels + u16(kind, 1)


def dns_answer(name: str) -> bytes:
    return dns_question(name, flags=0x8180, answers=1) + u16(0xC00C, 1, 1) + u32(60) + vector16(b"\x0a\0\0\1")


def smb2(command: int, *, response: bool, body: bytes) -> bytes:
    header = b"\xfeSMB" + struct.pack("<HHIHHIIQIIQ16x", 64, 0, 0, command, 1, int(response), 0, 0, 0, 0, 0)
    return b"\0" + size24(header + body)


def rpc_call(program: int, version: int) -> bytes:
    return u32(77, 0, 2, program, version, 0, 0, 0, 0, 0)


def kerberos_request() -> bytes:
    realm = der(0xA2, der(0x1B, b"EXAMPLE.ORG"))
    body = der(0xA4, der(0x30, der(0xA0, der(3, b"\0\0\0\0\0")), realm))
    return der(0x6A, der(0x30, der(0xA1, der(2, b"\5")), der(0xA2, der(2, b"\x0a")), body))


def le16(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def le32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def mysql_packet(sequence: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([sequence]) + body


MYSQL_GREETING = mysql_packet(
    0, b"\x0a8.0.35\0" + le32(9) + b"saltsalt\0" + b"\xff\xff\x21\x02\0" + b"\0" * 13 + b"moresalt1234\0"
)


def tds(kind: int, body: bytes) -> bytes:
    return bytes([kind, 1]) + u16(len(body) + 8) + b"\0\0\1\0" + body


def cotp(kind: int, parameters: bytes) -> bytes:
    header = bytes([6 + len(parameters) if kind != 0xF0 else 2, kind]) + (b"\0\0\0\1\0" if kind != 0xF0 else b"\x80")
    return b"\3\0" + u16(4 + len(header) + len(parameters)) + header + parameters


SELECTORS = b"\xc1\2\1\0\xc2\2\1\2\xc0\1\x0a"  # of both ends, and the largest packet


def rtp(sequence: int, *, source: int = 0x11223344, kind: int = 0) -> bytes:
    return bytes([0x80, kind]) + u16(sequence) + u32(160 * sequence, source) + b"\xd5" * 160


def stun(kind: int, attributes: bytes = b"") -> bytes:
    return u16(kind, len(attributes)) + u32(0x2112A442) + b"transaction!" + attributes


def ike(version: int, exchange: int) -> bytes:
    body = b"\0" * 40
    return b"initiate" + b"\0" * 8 + bytes([33, version, exchange, 8]) + u32(0, 28 + len(body)) + body


def bittorrent_utp(kind: int, connection: int, sequence: int, acknowledged: int) -> bytes:
    return bytes([kind << 4 | 1, 0]) + u16(connection) + u32(1000, 0, 65536) + u16(sequence, acknowledged)


def diameter() -> bytes:
    avp = u32(264) + b"\x40" + size24(b"")[:0] + (8 + 4).to_bytes(3, "big") + b"host"
    return b"\1" + (20 + len(avp)).to_bytes(3, "big") + b"\x80" + (257).to_bytes(3, "big") + u32(0, 1, 2) + avp


def sctp_data(identifier: int, body: bytes) -> bytes:
    return b"\0\3" + u16(16 + len(body)) + u32(1) + u16(0, 0) + u32(identifier) + body


def h2_headers(block: bytes) -> bytes:
    return len(block).to_bytes(3, "big") + b"\1\5" + u32(1) + block


def l2tp_attribute(kind: int, value: bytes) -> bytes:
    return u16(0x8000 | 6 + len(value), 0, kind) + value


L2TP_START = u16(0xC802, 28, 0, 0, 0, 0) + l2tp_attribute(0, u16(1)) + l2tp_attribute(2, u16(0x100))
H2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
HTTP_REQUEST = b"GET /index.html?q=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: tester/1\r\n\r\n"
HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nServer: unit\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
HELLO, HELLO_DONE = (
    record(client_hello()),
    record(server_hello() + certificate("a.test", "b.test", "a.test") + b"\x0e\0\0\0"),
)
ALPN = {"sni": "www.example.org", "alpn": "h2,http/1.1"}

TALKS: list[Talk] = [
    # Security layers
    client("tls", HELLO, **ALPN, tls_version="TLSv1.3"),
    both(
        "tls",
        HELLO,
        HELLO_DONE,
        tls_version="TLSv1.2",
        tls_cipher="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        certificate_names="a.test,b.test",
    ),
    both(
        "tls",
        HELLO,
        record(server_hello(suite=0x1301, tls13=True)) + record(b"\1", kind=20),
        tls_version="TLSv1.3",
        tls_cipher="TLS_AES_128_GCM_SHA256",
    ),
    both("tls", HELLO, record(server_hello(alpn="h2")), alpn_chosen="h2"),
    client("tls", record(client_hello()[:50]) + record(client_hello()[50:]), **ALPN),
    client("tls", record(client_hello(ech=True, name="public.example")), sni="public.example", ech="outer"),
    client("tls", record(b"x" * 100, kind=23, version=0x0303) * 2),
    client("tls", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\1\0\x80" * 7 + b"c" * 16, tls_version="SSLv2"),
    client(
        "dtls",
        dtls_record(b"\1" + size24(client_hello()[4:][:35] + b"\0" + client_hello()[39:])),
        transport=UDP,
        **ALPN,
    ),
    client("ssh", b"SSH-2.0-OpenSSH_9.6 comment\r\n", client_software="SSH-2.0-OpenSSH_9.6 comment"),
    server_first(
        "ssh",
        b"SSH-1.99-Server\n",
        b"SSH-2.0-Client\r\n",
        server_software="SSH-1.99-Server",
        client_software="SSH-2.0-Client",
    ),
    client("wireguard", b"\1\0\0\0" + b"k" * 144, transport=UDP),
    client("openvpn", b"\x38sessionid"[:9] + b"\0" * 5, transport=UDP),
    client("ipsec", ike(0x20, 34), transport=UDP, port=500, protocol_version="IKEv2"),
    client("ipsec", b"\0\0\0\0" + ike(0x10, 2), transport=UDP, port=4500, protocol_version="IKEv1"),
    # The web
    both(
        "http",
        HTTP_REQUEST,
        HTTP_ANSWER,
        http_method="GET",
        http_host="www.example.org",
        http_path="/index.html?q=1",
        http_status="200",
        user_agent="tester/1",
        server_software="unit",
        content_type="text/html",
    ),
    client("http", b"PROPFIND http://other.test/x HTTP/1.1\r\n\r\n", http_host="other.test", http_method="PROPFIND"),
    both(
        "websocket",
        b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\n\r\n",
        http_path="/chat",
    ),
    both(
        "http",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        HELLO,
        http_method="CONNECT",
        sni="www.example.org",
    ),
    both("elasticsearch", HTTP_REQUEST, b"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\n\r\n"),
    client(
        "http2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + size24(b"\x82\x86\x84\x41\x01a") + b"",
        transport=TCP,
    ),
    client(
        "http2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + b"\0\0\0\4\0\0\0\0\0"
        + b"\0\0\x06\1\5\0\0\0\1"
        + b"\x82\x86\x84\x41\x01a",
        http_method="GET",
        http_path="/",
        http_host="a",
    ),
    client("rtsp", b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    client("ssdp", b"M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\n\r\n", transport=UDP),
    client("wsd", b"<?xml?><e xmlns='http://schemas.xmlsoap.org/ws/2005/04/discovery'/>", transport=UDP),
    # Names and networks
    both(
        "dns",
        dns_question("www.example.org"),
        dns_answer("www.example.org"),
        transport=UDP,
        port=53,
        dns_name="www.example.org",
        dns_type="A",
        dns_status="NOERROR",
    ),
    client("dns", dns_question("www.example.org", kind=65), transport=UDP, dns_type="HTTPS"),
    both("dns", vector16(dns_question("example.org")), vector16(dns_answer("example.org")), dns_name="example.org"),
    client(
        "mdns",
        dns_question("_http._tcp.local", kind=12, flags=0),
        transport=UDP,
        port=5353,
        dns_name="_http._tcp.local",
    ),
    client("llmnr", dns_question("host", flags=0), transport=UDP, port=5355),
    client(
        "netbios", dns_question("FDFEEBFEEJECCACACACACACACACACAAA", kind=32), transport=UDP, port=137, dns_name="STATIB"
    ),
    client("netbios", b"\x11\2" + u16(1) + b"\x0a\0\0\1" + u16(138, 20, 0) + b"x" * 20, transport=UDP, port=138),
    client("ntp", b"\x23" + b"\0" * 47, transport=UDP, port=123, protocol_version="4"),
    client("dhcp", b"\1\1\6\0" + b"\0" * 232 + u32(0x63825363) + b"\x35\1\1\xff", transport=UDP, port=67),
    client("dhcpv6", b"\1abc" + u16(1, 4) + b"duid", transport=UDP, port=547),
    client(
        "snmp",
        der(0x30, der(2, b"\1"), der(4, b"public"), der(0xA0, der(2, b"\1"))),
        transport=UDP,
        protocol_version="2c",
    ),
    client(
        "snmp",
        der(0x30, der(2, b"\3"), der(0x30, der(2, b"\1"), der(2, b"\5"), der(4, b"\4"), der(2, b"\3"))),
        transport=UDP,
        protocol_version="3",
    ),
    client("syslog", b"<34>Oct 11 22:14:15 host su: failed", transport=UDP),
    client("syslog", b"48 <165>1 2003-10-11T22:14:15Z host app - ID1 - text", protocol_version="RFC 5424"),
    client("tftp", b"\0\1file.txt\0octet\0", transport=UDP, port=69, service="file.txt"),
    client("netflow", u16(9, 1) + u32(1, 2, 3, 4) + u16(0, 8) + b"abcd", transport=UDP, protocol_version="9"),
    client("ipfix", u16(10, 24) + u32(1, 2, 3) + u16(2, 8) + b"abcd", transport=UDP),
    client("sflow", u32(5, 1, 0x0A000001, 0, 1, 2, 1, 1, 20) + b"x" * 20, transport=UDP),
    client("rip", b"\2\2\0\0" + u16(2, 0) + u32(0x0A000000, 0xFF000000, 0, 1), transport=UDP, port=520),
    client("bgp", b"\xff" * 16 + u16(29) + b"\1\4" + u16(64512, 180) + b"\x0a\0\0\1\0"),
    client("wol", b"\xff" * 6 + b"\2\0\0\0\0\1" * 16, transport=UDP),
    # Identity
    client("kerberos", kerberos_request(), transport=UDP, service="EXAMPLE.ORG"),
    client("kerberos", u32(len(kerberos_request())) + kerberos_request(), service="EXAMPLE.ORG"),
    client("ldap", der(0x30, der(2, b"\1"), der(0x60, der(2, b"\3"), der(4, b"cn=a"), der(0x80, b"pw")))),
    client("radius", b"\1\7" + u16(20 + 8) + b"a" * 16 + b"\1\x08nemo12"[:8], transport=UDP, port=1812),
    client("diameter", diameter()),
    client("tacacs", b"\xc0\1\1\0" + u32(9, 4) + b"body"),
    # Files and procedures
    both(
        "smb",
        smb2(0, response=False, body=le16(36, 1) + b"\0" * 32),
        smb2(0, response=True, body=le16(65, 1, 0x0311) + b"\0" * 60),
        smb_dialect="3.1.1",
    ),
    client("smb", b"\0" + size24(b"\xffSMB\x72" + b"\0" * 27 + b"\0\x0c\0\2NT LM 0.12\0")),
    client("nfs", rpc_call(100003, 3), transport=UDP, service="nfs", protocol_version="3"),
    client("nfs", u32(0x80000000 | 40) + rpc_call(100003, 4), service="nfs"),
    client("rpc", rpc_call(100000, 2), transport=UDP, service="portmapper"),
    client(
        "dcerpc",
        b"\5\0\x0b\3\x10\0\0\0" + le16(72, 0) + le32(1) + b"\0" * 16 + bytes(range(16)) + b"\0" * 24,
        service="03020100-0504-0706-0809-0a0b0c0d0e0f",
    ),
    server_first("ftp", b"220 FTP server ready\r\n", b"USER a\r\n", server_software=" FTP server ready"),
    client("rsync", b"@RSYNCD: 31.0\n"),
    client("git", b"0032git-upload-pack /project.git\0host=example.org\0"),
    client("thrift", u32(28) + b"\x80\1\0\1" + u32(7) + b"getUser" + u32(1) + b"\0" * 9, service="getUser"),
    client("thrift", b"\x82\x21\1\4ping\0", service="ping"),
    client("thrift", u32(9) + b"\x82\x21\1\4ping\0", service="ping"),
    client("dubbo", u16(0xDABB) + b"\xc2\0" + b"\0" * 8 + u32(4) + b"body"),
    # Mail, news, chat
    server_first("smtp", b"220 mx.example.org ESMTP\r\n", b"EHLO me\r\n", client_software="EHLO me"),
    server_first(
        "smtp",
        b"220 mx ESMTP\r\n",
        b"EHLO me\r\n",
        b"250 STARTTLS\r\n",
        b"STARTTLS\r\n",
        b"220 go\r\n",
        HELLO,
        HELLO_DONE,
        starttls="yes",
        sni="www.example.org",
        tls_version="TLSv1.2",
    ),
    server_first("pop3", b"+OK ready\r\n", b"CAPA\r\n"),
    server_first("imap", b"* OK ready\r\n", b"a1 CAPABILITY\r\n"),
    server_first("nntp", b"200 news.example.org ready\r\n", b"GROUP a.b\r\n"),
    client("irc", b"NICK a\r\nUSER a 0 * :A\r\n"),
    client("xmpp", b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='a'>"),
    # Data bases
    server_first("mysql", MYSQL_GREETING, server_software="8.0.35"),
    client("postgresql", u32(41, 3 << 16) + b"user\0me\0database\0books\0psql\0x\0\0"[:33], service="books"),
    both("postgresql", u32(8, 80877103), b"S", HELLO, HELLO_DONE, starttls="yes", sni="www.example.org"),
    client("mssql", tds(18, b"\0" + u16(6, 6) + b"\xff" + b"\0" * 6)),
    client("mssql", b"\4INSTANCE\0", transport=UDP, port=1434),
    client(
        "oracle",
        u16(58 + 40, 0) + b"\1\0\0\0" + u16(314, 300) + b"\0" * 46 + b"(DESCRIPTION=(CONNECT_DATA=(SID=ORCL)))  ",
        service="ORCL",
    ),
    client("db2", u16(16) + b"\xd0\x41" + u16(1, 10, 0x1041) + b"\0" * 6),
    client("mongodb", le32(16 + 4 + 11, 1, 0, 2004, 0) + b"test.$cmd\0x", service="test"),
    client("redis", b"*1\r\n$4\r\nPING\r\n"),
    both("redis", b"PING\r\n", b"+PONG\r\n"),
    client("memcached", b"set key 0 60 5\r\nvalue\r\n"),
    both("memcached", b"version\r\n", b"VERSION 1.6.18\r\n"),
    both("memcached", b"mg key v\r\n", b"EN\r\n"),
    client("memcached", b"\x80\0" + u16(3) + b"\0\0\0\0" + u32(3, 0) + b"\0" * 8 + b"key"),
    client("cassandra", b"\4\0\0\0\5\0\0\0\0"),
    client("cassandra", b"\x42\0\0\0\5\0\0\0\0"),
    client("cassandra", b"\4\0\0\0\1" + u32(22) + u16(1) + vector16(b"CQL_VERSION") + vector16(b"3.0.0")),
    client("cassandra", b"\4\0\0\1\7" + u32(27) + u32(20) + b"SELECT * FROM system" + b"\0\1\0"),
    client("elasticsearch", b"ES" + u32(20) + b"\0" * 8 + b"\0" + u32(7170099) + b"x" * 7),
    client("zookeeper", u32(44, 0) + b"\0" * 8 + u32(10000) + b"\0" * 8 + u32(16) + b"\0" * 16),
    # Messages
    # A large Produce request, of which the rest is not captured: no transaction, all replicas acknowledge.
    client(
        "kafka",
        u32(5000) + u16(0, 7) + u32(1) + vector16(b"producer-1") + b"\xff\xff\xff\xff" + u32(1500),
        client_software="producer-1",
    ),
    client("kafka", u32(17) + u16(3, 1) + u32(1) + vector16(b"rdkafka"), client_software="rdkafka"),
    client("amqp", b"AMQP\0\0\x09\1", protocol_version="0-9-1"),
    client("amqp", b"AMQP\0\1\0\0", protocol_version="1.0"),
    client(
        "mqtt",
        b"\x10\x12" + vector16(b"MQTT") + b"\4\2\0\x3c" + vector16(b"sensor"),
        protocol_version="3.1.1",
        client_software="sensor",
    ),
    client(
        "mqtt",
        b"\x10\x1a" + vector16(b"MQTT") + b"\5\2\0\x3c" + vector8(b"\x21\0\x14\x27\0\0\1\0") + vector16(b"meter"),
        protocol_version="5.0",
        client_software="meter",
    ),
    server_first("nats", b'INFO {"server_id":"x"}\r\n'),
    client("pulsar", u32(12, 8) + b"\x08\2\x12\4\x0a\2ab"),
    client("rocketmq", u32(30, 26) + b'{"code":34,"language":"X"}'),
    client("zmtp", b"\xff" + b"\0" * 8 + b"\x7f\3\0NULL" + b"\0" * 16),
    client("stomp", b"CONNECT\naccept-version:1.2\nhost:a\n\n\0"),
    client("smpp", u32(16, 0x15, 0, 1)),
    client("coap", b"\x40\1\0\1\xb1a", transport=UDP, port=5683),
    # Voice
    client("sip", b"INVITE sip:a@b SIP/2.0\r\nUser-Agent: phone\r\n\r\n", transport=UDP, client_software="phone"),
    client("rtp", rtp(1), rtp(2), transport=UDP),
    client("rtcp", b"\x80\xc8" + u16(6) + b"\0" * 24, transport=UDP),
    client("stun", stun(1), transport=UDP),
    client("mgcp", b"RSIP 1 aaln/1@a MGCP 1.0\r\n", transport=UDP),
    client("megaco", b"MEGACO/1 [10.0.0.1]:2944", transport=UDP),
    client("sap", b"\x20\0" + u16(1) + b"\x0a\0\0\1application/sdp\0v=0", transport=UDP),
    # Screens and shells
    client("rdp", cotp(0xE0, b"Cookie: mstshash=me\r\n\1\0\x08\0\1\0\0\0"), service="me"),
    server_first("vnc", b"RFB 003.008\n", protocol_version="003.008"),
    client("citrix", b"\x7f\x7fICA\0"),
    client("telnet", b"\xff\xfd\x18\xff\xfd\x20"),
    client("x11", b"l\0" + le16(11, 0, 0, 0, 0)),
    both("socks", b"\5\1\0", b"\5\0"),
    both(
        "socks",
        b"\5\1\0",
        b"\5\0",
        b"\5\1\0\3\6a.test\1\xbb",
        b"\5\0\0\1\x0a\0\0\1\4\xd2",
        HELLO,
        HELLO_DONE,
        **ALPN,
        tls_version="TLSv1.2",
    ),
    both(
        "socks",
        b"\5\2\0\2",
        b"\5\2",
        b"\1\2me\2pw",
        b"\1\0",
        b"\5\1\0\1\x0a\0\0\2\1\xbb",
        b"\5\0\0\1\x0a\0\0\1\4\xd2",
        HELLO,
        HELLO_DONE,
        sni="www.example.org",
        tls_cipher="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    # Peers
    client("bittorrent", b"\x13BitTorrent protocol" + b"\0" * 48),
    client("bittorrent", b"d1:ad2:id20:" + b"x" * 20 + b"e1:q4:ping1:t2:aa1:y1:qe", transport=UDP),
    both("bittorrent", bittorrent_utp(4, 7, 1, 0), bittorrent_utp(2, 7, 99, 1), transport=UDP),
    client("dropbox", b'{"host_int": 1}', transport=UDP),
    client("bjnp", b"BJNP\1\1" + b"\0" * 10, transport=UDP),
    # Industry
    client("modbus", u16(1, 0, 6) + b"\1\3" + u16(0, 10), port=502),
    client("s7comm", cotp(0xE0, SELECTORS), cotp(0xF0, b"\x32\1\0\0\0\0\0\x08\0\0")),
    client("dnp3", b"\x05\x64\5\xc0\1\0\0\4\xe9\x21"),
    client("iec104", b"\x68\4\7\0\0\0"),
    client("opcua", b"HELF" + le32(40) + b"\0" * 32),
    client("bacnet", b"\x81\x0b" + u16(12) + b"\1\x20\xff\xff\0\xff\x10\x08", transport=UDP),
    client("ethernet-ip", le16(0x65, 4) + b"\0" * 20 + le16(1, 0), port=44818),
    client("fins", b"FINS" + u32(12, 0, 0, 0)),
    # Tunnels' control, and routers among themselves
    client("l2tp", L2TP_START, transport=UDP),
    client("l2tp", u16(0xC802, 12, 7, 0, 1, 1), transport=UDP),
    client("pptp", u16(156, 1) + u32(0x1A2B3C4D) + u16(1, 0, 0x100, 0) + b"\0" * 140),
    client("bfd", b"\x20\xc0\3\x18" + u32(1, 0, 1_000_000, 1_000_000, 0), transport=UDP, port=3784),
    client("gtp", b"\x40\1" + u16(9) + b"\0\0\1\0" + b"\3\0\1\0\5", transport=UDP, port=2123),
    client("gtp", b"\x32\1" + u16(4) + u32(0) + b"\0\1\0\0", transport=UDP, port=2123),
    client("hsrp", b"\1\x28\2\0\6\4" + b"\0" * 36, transport=UDP, port=1985),
    client(
        "bfd", b"\x20\xc4\3\x20" + u32(1, 0, 1_000_000, 1_000_000, 0) + b"\1\x08\1secret"[:8], transport=UDP, port=4784
    ),
    client("hsrp", b"\0\0\x10\3\x0a\x78\1\0cisco\0\0\0\x0a\0\0\1", transport=UDP, port=1985),
    # Others
    client("ymsg", b"YMSG" + u16(16, 0, 0, 0x57) + u32(0, 0)),
    client("aerospike", b"\2\1\0\0\0\0\0\x0bnode\nbuild\n"),
    client("aerospike", b"\2\3\0\0\0\0\0\x16" + b"\x16\1" + b"\0" * 20),
    client("etcd", H2_START + h2_headers(b"\x83\x86\x44\x16/etcdserverpb.KV/Range\x5f\x10application/grpc")),
    server_first("ftps", b"220 FTP\r\n", b"AUTH TLS\r\n", b"234 go\r\n", HELLO, sni="www.example.org", starttls="yes"),
    client("discord", u16(1, 70) + u32(0x1234) + b"\0" * 66, transport=UDP),
    client("rtmp", b"\3" + u32(77, 0) + b"r" * 1528),
    client("h323", b"\x0e\x40\0\1\6\0\x08\x91\x4a\0\4" + b"\x80\0\0", transport=UDP),
    client("h323", b"\3\0" + u16(14) + b"\x08\2\0\1\5\4\3\x88\x93\xa5"),
    client("rlogin", b"\0root\0admin\0xterm/38400\0"),
    client("teamviewer", b"\x17\x24\x0a\x20\0\0\0\0", port=5938),
    client("spotify", b"SpotUdp0" + b"\0" * 36, transport=UDP),
    client(
        "profinet",
        b"\4\0\x20\0\x10\0\0\0"
        + b"o" * 16
        + b"i" * 16
        + b"a" * 16
        + le32(0, 1, 0)
        + le16(0, 0xFFFF, 0xFFFF, 4, 0)
        + b"\0\0"
        + b"args",
        transport=UDP,
        port=34964,
    ),
    both("tpkt", cotp(0xE0, SELECTORS), cotp(0xD0, SELECTORS), cotp(0xF0, b"\x0d\1\0\0"), cotp(0xF0, b"\x0e\1\0\0")),
    # SCTP
    client("m2ua", sctp_data(2, b"\1\0\1\1" + u32(8)), transport=SCTP),
    client("sua", sctp_data(4, b"\1\0\1\1" + u32(8)), transport=SCTP),
    client("ngap", sctp_data(60, b"\0\x15\0\1"), transport=SCTP),
    client("m3ua", sctp_data(3, b"\1\0\1\1" + u32(8)), transport=SCTP),
    client("s1ap", sctp_data(18, b"\0\x11\0\1"), transport=SCTP),
]

# What looks like an application and is none.
OTHERS: list[tuple[str, Talk]] = [
    ("noise", client("", bytes((i * 167 + 13) & 255 for i in range(300)))),
    (
        "noise in datagrams",
        client("", *(bytes((i * 31 + n * 77) & 255 for i in range(200)) for n in range(4)), transport=UDP),
    ),
    ("text", client("", b"hello there, this is nobody's protocol\r\nand goes on\r\n")),
    ("an HTTP method alone", client("", b"GET")),
    ("a TLS header alone", client("", b"\x16\x03\x01\x02\x00")),
    ("one packet that could be RTP", client("", rtp(1), transport=UDP)),
    ("two packets of different RTP sources", client("", rtp(1, source=1), rtp(2, source=2), transport=UDP)),
    ("zeros", client("", b"\0" * 200)),
    ("zeros in datagrams", client("", b"\0" * 200, b"\0" * 200, transport=UDP)),
    ("IKE of another length", client("", ike(0x20, 34) + b"\0\0\0\0", transport=UDP, port=500)),
    (
        "Diameter's header with a command of nobody",
        client("", b"\1" + (20).to_bytes(3, "big") + b"\x80\0\7\0" + b"\0" * 12),
    ),
    ("one byte again and again, which begins an APDU", client("", b"h" * 60)),
    ("an APDU with a type that does not exist", client("", b"h\x0e\0\0\0\0\x29\1\3\0\1\0\1\0\0\0")),
    ("DNP3 whose check is another", client("", b"\x05\x64\5\xc0\1\0\0\4\xaa\xbb")),
    ("a magic packet for everybody", client("", b"\xff" * 102, transport=UDP)),
    ("BFD without discriminator", client("", b"\x20\xc0\3\x18" + b"\0" * 20, transport=UDP, port=3784)),
    ("HSRP in a state that does not exist", client("", b"\0\0\3" + b"\0" * 17, transport=UDP, port=1985)),
    ("DHCPv6 with half an option", client("", b"\1abc\0\1\0\4duid\0\2", transport=UDP, port=547)),
    ("text to Teredo's server", client("", b"hello, is this Teredo? " * 4, transport=UDP, port=3544)),
    ("text to Geneve's port", client("", b"\0\0\0\1 small numbers", transport=UDP, port=6081)),
    ("text like CoAP's answers, twice", client("", b"AEmit1x1y1z", b"AEmit1x1y1z", transport=UDP)),
    ("Q.931 without a message", client("", b"\3\0" + u16(14) + b"\x08\2\0\1\x11\4\3\x88\x93\xa5")),
    (
        "text like an OpenVPN reset, twice",
        client("", b"8-bit text, sent again", b"8-bit text, sent again", transport=UDP),
    ),
    ("BFD to another port", client("", b"\x20\xc0\3\x18" + u32(1, 0, 1_000_000, 1_000_000, 0), transport=UDP)),
    ("L2TP's flags with others set", client("", u16(0xC8F2, 40) + b"\0" * 36, transport=UDP)),
    ("L2TP without its message type", client("", u16(0xC802, 40) + b"\0" * 36, transport=UDP)),
    ("a question with a class that does not exist", client("", dns_question("a.b")[:-2] + u16(77), transport=UDP)),
    ("Modbus's header with a function that does not exist", client("", u16(1, 0, 6) + b"\1\x50" + u16(0, 10))),
]
