"""Requests out of files: NDJSON of requests, access logs of Envoy and Istio (JSON and their default text), HAR.

>>> from meshsieve import request_logs
>>> for request in request_logs.read("access.log"):                       # doctest: +SKIP
...     print(request.authority, request.path, request.observed["status"])

docs/request-logs.md says what each format gives, and what it cannot.
"""

from meshsieve.request_logs.reader import FORMATS, BadLine, RequestLog, read

__all__ = ["FORMATS", "BadLine", "RequestLog", "read"]
