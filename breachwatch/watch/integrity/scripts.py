"""What packages' scripts and triggers make: files that no package has sums of.

Nobody vouches for their content. That one was written while its maker ran is worth knowing and proves nothing, so it
lowers the severity by one and explains nothing.
"""

from __future__ import annotations

import re
from typing import Protocol

from breachwatch.watch.integrity.dpkg_log import Transaction

MADE_BY = tuple(
    (re.compile(path), re.compile(package))
    for path, package in (
        (rb"/etc/ld\.so\.cache~?", r"libc-bin"),
        (rb"/var/cache/ldconfig/.*", r"libc-bin"),
        (rb"/var/cache/man/.*", r"man-db"),
        (rb"/boot/initrd\.img-[^/]*", r"initramfs-tools|dracut|linux-image-.*"),
        (rb"/boot/grub/grub\.cfg(\.new)?", r"grub-.*|linux-image-.*"),
        (rb"/(?:usr/)?lib/modules/[^/]+/modules\.[a-z.]+", r"linux-(?:image|modules)-.*|.*-dkms"),
        (rb"/(?:etc|usr/lib|lib)/udev/hwdb\.bin", r"udev|systemd-hwe-hwdb"),
        (rb"/etc/mailcap", r"mailcap|mime-support"),
        (rb"/usr/share/(?:applications/mimeinfo\.cache|mime/.*|icons/.*/icon-theme\.cache)", r".*"),
    )
)
"""Path, and the packages whose scripts write it (all of them as in Debian 12)."""

COMPILED = re.compile(rb"(.+)/__pycache__/([^/]+)\.[a-z]+-\d+(?:\.opt-[12])?\.pyc")


class Owning(Protocol):
    """Who knows a package's files."""

    def owns(self, run: Transaction, path: bytes) -> bool:
        """True if the package says that the file is its own."""
        ...


def maker_of(path: bytes, run: Transaction, packages: Owning) -> bool:
    """True if the script that ran makes such a file; what Python compiled, if it is of the package's own source."""
    name = run.package.partition(":")[0]
    if any(made.fullmatch(path) and by.fullmatch(name) for made, by in MADE_BY):
        return True
    compiled = COMPILED.fullmatch(path)
    return compiled is not None and packages.owns(run, compiled[1] + b"/" + compiled[2] + b".py")
