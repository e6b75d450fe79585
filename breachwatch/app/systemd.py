"""Telling systemd how the service is. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket


def sd_notify(*assignments: str) -> bool:
    """Send `READY=1`, `STATUS=...`, `STOPPING=1`, ... to the service manager; False when there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return False
    return True
