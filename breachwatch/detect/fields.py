"""Field names of Sigma's taxonomy, and the ECS names under which our parsers (and Beats, auditd exporters) keep them.

A rule reads the name it was written with; where an event has no such field, it reads the first of these that is there.
So events that keep their own names (JSON of Sysmon for Linux, auditd) and lines that we parsed are judged alike.

Source: Sigma taxonomy appendix 2.1.0; ECS field reference 8/9 (process, url, http, user_agent, source, destination).
"""

from __future__ import annotations

from collections.abc import Mapping

Names = Mapping[str, tuple[str, ...]]

WEB: Names = {
    "c-ip": ("source.ip", "client.ip"),
    "src_ip": ("source.ip", "client.ip"),
    "c-uri": ("url.original",),
    "cs-uri": ("url.original",),
    "c-uri-path": ("url.path",),
    "c-uri-stem": ("url.path",),
    "cs-uri-stem": ("url.path",),
    "c-uri-query": ("url.query",),
    "cs-uri-query": ("url.query",),
    "c-uri-extension": ("url.extension",),
    "cs-method": ("http.request.method",),
    "cs-host": ("url.domain", "destination.domain"),
    "r-dns": ("url.domain", "destination.domain"),
    "cs-referer": ("http.request.referrer",),
    "cs-referrer": ("http.request.referrer",),
    "c-useragent": ("user_agent.original",),
    "cs-user-agent": ("user_agent.original",),
    "cs-username": ("user.name",),
    "cs-bytes": ("http.request.bytes", "http.request.body.bytes"),
    "sc-bytes": ("http.response.bytes", "http.response.body.bytes"),
    "sc-status": ("http.response.status_code",),
    "cs-version": ("http.version",),
    "date": ("@timestamp",),
}
"""Web servers and proxies."""

PROCESS: Names = {
    "Image": ("process.executable",),
    "CommandLine": ("process.command_line",),
    "ProcessId": ("process.pid",),
    "CurrentDirectory": ("process.working_directory",),
    "ParentImage": ("process.parent.executable",),
    "ParentCommandLine": ("process.parent.command_line",),
    "ParentProcessId": ("process.parent.pid",),
    "User": ("user.name",),
    "LogonId": ("process.entry_leader.entity_id",),
    "TargetFilename": ("file.path",),
    "DestinationIp": ("destination.ip",),
    "DestinationPort": ("destination.port",),
    "DestinationHostname": ("destination.domain",),
    "SourceIp": ("source.ip",),
    "SourcePort": ("source.port",),
    "Initiated": ("network.initiated",),
    "QueryName": ("dns.question.name",),
    "Computer": ("host.name",),
}
"""Processes, files and connections, as Sysmon for Linux names them."""

AUDITD: Names = {
    "type": ("auditd.message_type", "auditd.log.record_type", "event.action"),
    "exe": ("process.executable", "auditd.data.exe"),
    "comm": ("process.name", "auditd.data.comm"),
    "proctitle": ("process.title", "auditd.data.proctitle"),
    "name": ("file.path", "auditd.data.name"),
    "SYSCALL": ("auditd.data.syscall",),
    "syscall": ("auditd.data.syscall",),
    "key": ("auditd.data.key", "auditd.log.key"),
    "pid": ("process.pid",),
    "ppid": ("process.parent.pid",),
    "uid": ("user.id",),
    "euid": ("user.effective.id",),
    "auid": ("user.audit.id", "auditd.data.auid"),
    "cwd": ("process.working_directory",),
    **{f"a{number}": (f"auditd.data.a{number}",) for number in range(16)},
}
"""Audit records, as the kernel names their parts."""

GENERAL: Names = {
    "message": ("log.original",),
    "hostname": ("host.name",),
    "src_ip": ("source.ip",),
    "src_port": ("source.port",),
    "dst_ip": ("destination.ip",),
    "dst_port": ("destination.port",),
}
"""Any other source."""

WEB_CATEGORIES = frozenset({"webserver", "proxy", "web"})
PROCESS_CATEGORIES = frozenset(
    {"process_creation", "file_event", "file_delete", "file_change", "file_access", "network_connection", "dns_query"}
)


def names_for(category: str, product: str, service: str) -> Names:
    """The names that the fields of rules for one log source may also go by here."""
    if category in WEB_CATEGORIES or (not category and product in {"nginx", "apache"}):
        return WEB
    if category in PROCESS_CATEGORIES:
        return PROCESS
    if service == "auditd":
        return AUDITD
    return GENERAL
