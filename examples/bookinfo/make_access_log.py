"""Writes access.log.gz: what the sidecars of the servers log of the requests in bookinfo.pcap, in Istio's JSON with one
field more, ``end_user``, which holds the header of that name.

    python examples/bookinfo/make_access_log.py
"""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

from meshsieve import http_requests

FOLDER = Path(__file__).parent


def main() -> None:
    lines = []
    for request in http_requests.read(FOLDER / "bookinfo.pcap").requests():
        seen = request.observed or {}
        if "status" not in seen:  # the connection was refused before there was a request to log
            continue
        assert request.time_ns is not None
        start = datetime.fromtimestamp(request.time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        server = f"{request.destination_ip}:{request.destination_port}"
        denied = seen["status"] == 403
        fields = {
            "start_time": f"{start}.{request.time_ns % 10**9 // 10**6:03}Z",
            "method": request.method,
            "path": request.path,
            "protocol": seen["protocol"],
            "response_code": seen["status"],
            "response_flags": "-",
            "response_code_details": "rbac_access_denied_matched_policy[none]" if denied else "via_upstream",
            "bytes_received": seen["request_body_bytes"],
            "bytes_sent": seen["response_body_bytes"],
            "duration": seen["duration_ns"] // 10**6,
            "x_forwarded_for": next(iter(request.header("x-forwarded-for")), None),
            "user_agent": next(iter(request.header("user-agent")), None),
            "authority": request.authority,
            "upstream_host": None if denied else server,
            "upstream_cluster": f"inbound|{request.destination_port}||",
            "downstream_local_address": server,
            "downstream_remote_address": f"{request.source_ip}:{request.source_port}",
            "requested_server_name": None,
            "route_name": "default",
            "end_user": next(iter(request.header("end-user")), None),
        }
        lines.append((request.time_ns, json.dumps(fields, separators=(",", ":"))))
    text = "".join(f"{line}\n" for _, line in sorted(lines))
    (FOLDER / "access.log.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
