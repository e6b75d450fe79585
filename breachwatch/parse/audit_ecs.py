"""What the parts of one audit event say, in ECS names and in the names that Sigma rules for auditd use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.address import ip_of
from breachwatch.parse.auditrecord import AuditRecord, socket_address

Fields = dict[str, FieldValue]

AUDITD = LogSource("linux", "", "auditd")
PROCESS = LogSource("linux", "process_creation", "auditd")

MAX_ARGUMENTS = 256
"""Arguments of one command that are kept."""

DATA = "auditd.data."
"""Behind it, values keep the names that the kernel gave them."""

SYSCALLS: Mapping[str, Mapping[int, str]] = {
    "c000003e": {
        2: "open", 41: "socket", 42: "connect", 43: "accept", 49: "bind", 50: "listen", 56: "clone", 57: "fork",
        58: "vfork",
        59: "execve", 62: "kill", 76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat",
        86: "link", 87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 94: "lchown",
        101: "ptrace", 105: "setuid", 106: "setgid", 113: "setreuid", 117: "setresuid", 133: "mknod", 155: "pivot_root",
        157: "prctl", 159: "adjtimex", 161: "chroot", 164: "settimeofday", 165: "mount", 166: "umount2", 169: "reboot",
        170: "sethostname", 171: "setdomainname", 175: "init_module", 176: "delete_module", 188: "setxattr",
        227: "clock_settime", 235: "utimes", 257: "openat", 258: "mkdirat", 260: "fchownat", 263: "unlinkat",
        264: "renameat", 265: "linkat", 266: "symlinkat", 268: "fchmodat", 280: "utimensat", 288: "accept4",
        304: "open_by_handle_at", 310: "process_vm_readv", 311: "process_vm_writev", 313: "finit_module",
        316: "renameat2", 317: "seccomp", 319: "memfd_create", 321: "bpf", 322: "execveat", 435: "clone3",
        437: "openat2",
    },
    "c00000b7": {
        5: "setxattr", 33: "mknodat", 34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat",
        39: "umount2", 40: "mount", 41: "pivot_root", 45: "truncate", 46: "ftruncate", 51: "chroot", 52: "fchmod",
        53: "fchmodat", 54: "fchownat", 55: "fchown", 56: "openat", 88: "utimensat", 105: "init_module",
        106: "delete_module", 112: "clock_settime", 117: "ptrace", 129: "kill", 142: "reboot", 144: "setgid",
        145: "setreuid", 146: "setuid", 147: "setresuid", 161: "sethostname", 162: "setdomainname", 167: "prctl",
        170: "settimeofday", 171: "adjtimex", 198: "socket", 200: "bind", 201: "listen", 202: "accept", 203: "connect",
        220: "clone", 221: "execve", 242: "accept4", 265: "open_by_handle_at", 270: "process_vm_readv",
        271: "process_vm_writev", 273: "finit_module", 276: "renameat2", 277: "seccomp", 279: "memfd_create",
        280: "bpf",
        281: "execveat", 435: "clone3", 437: "openat2",
    },
}  # fmt: skip
"""Names of system calls by machine, where auditd did not write them itself. Source: asm/unistd_64.h, asm-generic."""

_FILE, _PROCESS, _NETWORK = "file", "process", "network"
_BY_SYSCALL: Mapping[str, tuple[str, str]] = {
    "execve": (_PROCESS, "start"), "execveat": (_PROCESS, "start"), "fork": (_PROCESS, "start"),
    "vfork": (_PROCESS, "start"), "clone": (_PROCESS, "start"), "clone3": (_PROCESS, "start"),
    "kill": (_PROCESS, "end"), "ptrace": (_PROCESS, "access"), "process_vm_writev": (_PROCESS, "change"),
    "process_vm_readv": (_PROCESS, "access"), "setuid": (_PROCESS, "change"), "setgid": (_PROCESS, "change"),
    "setreuid": (_PROCESS, "change"), "setresuid": (_PROCESS, "change"),
    "open": (_FILE, "access"), "openat": (_FILE, "access"), "openat2": (_FILE, "access"),
    "open_by_handle_at": (_FILE, "access"), "creat": (_FILE, "creation"), "mkdir": (_FILE, "creation"),
    "mkdirat": (_FILE, "creation"), "mknod": (_FILE, "creation"), "mknodat": (_FILE, "creation"),
    "link": (_FILE, "creation"), "linkat": (_FILE, "creation"), "symlink": (_FILE, "creation"),
    "symlinkat": (_FILE, "creation"), "unlink": (_FILE, "deletion"), "unlinkat": (_FILE, "deletion"),
    "rmdir": (_FILE, "deletion"), "rename": (_FILE, "change"), "renameat": (_FILE, "change"),
    "renameat2": (_FILE, "change"), "chmod": (_FILE, "change"), "fchmod": (_FILE, "change"),
    "fchmodat": (_FILE, "change"), "chown": (_FILE, "change"), "fchown": (_FILE, "change"),
    "lchown": (_FILE, "change"), "fchownat": (_FILE, "change"), "truncate": (_FILE, "change"),
    "ftruncate": (_FILE, "change"), "setxattr": (_FILE, "change"), "utimensat": (_FILE, "change"),
    "connect": (_NETWORK, "connection"), "accept": (_NETWORK, "connection"), "accept4": (_NETWORK, "connection"),
    "bind": (_NETWORK, "info"), "listen": (_NETWORK, "info"), "socket": (_NETWORK, "info"),
    "init_module": ("driver", "start"), "finit_module": ("driver", "start"), "delete_module": ("driver", "end"),
}  # fmt: skip

_BY_TYPE: Mapping[str, tuple[str, str]] = {
    "USER_AUTH": ("authentication", "info"), "USER_ACCT": ("authentication", "info"),
    "USER_LOGIN": ("authentication", "start"),
    "USER_ERR": ("authentication", "info"), "USER_LOGOUT": ("authentication", "end"),
    "LOGIN": ("authentication", "start"),
    "CRED_ACQ": ("authentication", "info"), "CRED_DISP": ("authentication", "info"),
    "CRED_REFR": ("authentication", "info"),
    "USER_START": ("session", "start"), "USER_END": ("session", "end"), "USER_CMD": (_PROCESS, "start"),
    "ADD_USER": ("iam", "creation"), "DEL_USER": ("iam", "deletion"), "ADD_GROUP": ("iam", "creation"),
    "DEL_GROUP": ("iam", "deletion"), "USER_CHAUTHTOK": ("iam", "change"), "USER_MGMT": ("iam", "change"),
    "GRP_MGMT": ("iam", "change"), "GRP_CHAUTHTOK": ("iam", "change"), "ACCT_LOCK": ("iam", "change"),
    "ACCT_UNLOCK": ("iam", "change"), "USER_ROLE_CHANGE": ("iam", "change"), "ROLE_ASSIGN": ("iam", "change"),
    "CONFIG_CHANGE": ("configuration", "change"), "MAC_STATUS": ("configuration", "change"),
    "MAC_POLICY_LOAD": ("configuration", "change"), "FEATURE_CHANGE": ("configuration", "change"),
    "DAEMON_START": (_PROCESS, "start"), "DAEMON_END": (_PROCESS, "end"), "DAEMON_ABORT": (_PROCESS, "end"),
    "SERVICE_START": (_PROCESS, "start"), "SERVICE_STOP": (_PROCESS, "end"), "ANOM_ABEND": (_PROCESS, "end"),
    "SYSTEM_BOOT": ("host", "start"), "SYSTEM_SHUTDOWN": ("host", "end"), "KERN_MODULE": ("driver", "start"),
    "AVC": (_PROCESS, "info"), "USER_AVC": (_PROCESS, "info"), "SECCOMP": (_PROCESS, "info"),
    "NETFILTER_CFG": ("configuration", "change"), "TTY": (_PROCESS, "info"), "USER_TTY": (_PROCESS, "info"),
}  # fmt: skip

_IDS = (
    ("uid", "UID", "user.id", "user.name"),
    ("euid", "EUID", "user.effective.id", "user.effective.name"),
    ("gid", "GID", "user.group.id", "user.group.name"),
    ("auid", "AUID", "auditd.data.auid", "auditd.data.AUID"),
)
_OUTCOMES = {
    "yes": "success",
    "success": "success",
    "1": "success",
    "no": "failure",
    "failed": "failure",
    "0": "failure",
}
_KEPT = ("syscall", "key", "op", "tty", "terminal", "subj", "exit", "sig", "audit_enabled", "grantors", "unit", "vm",
         "a0", "a1", "a2", "a3")  # fmt: skip
"""Values that keep the kernel's name behind `auditd.data.`."""
_REGISTERS = frozenset({"a0", "a1", "a2", "a3"})
"""Of the system call; where a program was started, its arguments have these names."""
_UNSET = ("4294967295", "-1", "unset")


def ecs_fields(records: Sequence[AuditRecord], fields: Fields) -> LogSource:
    """Put what the records say into `fields`; returns where the event belongs."""
    kinds = tuple(dict.fromkeys(record.type for record in records))
    leading = next((record for record in records if record.type == "SYSCALL"), records[0])
    said: dict[str, str] = {}
    for record in (*reversed(records), leading):  # of a name that several have, the first one counts
        said.update(record.fields)
    fields["auditd.message_type"] = kinds[0] if len(kinds) == 1 else kinds
    fields["auditd.sequence"] = leading.serial
    syscall = _syscall(said, kinds)
    category, kind = _BY_SYSCALL.get(syscall) or _known(kinds) or ("host", "info")
    fields["event.category"], fields["event.type"] = (category,), (kind,)
    fields["event.action"] = syscall or leading.type.lower().partition("[")[0]
    fields["event.outcome"] = _OUTCOMES.get(
        said.get("success") or said.get("res") or said.get("result") or "", "unknown"
    )
    _people(said, fields)
    _process(said, records, fields)
    _paths(records, said, fields)
    _peer(said, category, fields)
    for name in _KEPT:
        if name in said and not (name in _REGISTERS and "process.args" in fields):
            fields[DATA + name] = said[name]
    if syscall:
        fields[DATA + "syscall"] = syscall
    is_start = syscall in {"execve", "execveat"} or "EXECVE" in kinds
    return PROCESS if is_start and fields["event.outcome"] != "failure" else AUDITD


def _known(kinds: Sequence[str]) -> tuple[str, str] | None:
    return next((_BY_TYPE[kind] for kind in kinds if kind in _BY_TYPE), None)


def _syscall(said: Mapping[str, str], kinds: Sequence[str]) -> str:
    if "SYSCALL" in said:
        return said["SYSCALL"][:64]
    number = said.get("syscall", "")
    if not number.isdecimal() or len(number) > 6 or "SYSCALL" not in kinds:  # noqa: PLR2004
        return ""
    return SYSCALLS.get(said.get("arch", ""), {}).get(int(number), number)


def _people(said: Mapping[str, str], fields: Fields) -> None:
    for number, name, id_field, name_field in _IDS:
        if said.get(number, _UNSET[0]) not in _UNSET:
            fields[id_field] = said[number]
        if said.get(name, _UNSET[-1]) not in _UNSET:
            fields[name_field] = said[name]
    if said.get("acct"):
        fields["user.name"] = said["acct"]  # whom it is about, not the daemon that says so
    elif said.get("id", "").isdecimal() and said.get("ID"):
        fields["user.name"] = said["ID"]
    if said.get("ses", _UNSET[0]) not in _UNSET:
        fields["auditd.session"] = said["ses"]


def _process(said: Mapping[str, str], records: Sequence[AuditRecord], fields: Fields) -> None:
    for name, ours in (("pid", "process.pid"), ("ppid", "process.parent.pid")):
        if said.get(name, "").isdecimal() and len(said[name]) <= 10:  # noqa: PLR2004
            fields[ours] = int(said[name])
    for name, ours in (
        ("exe", "process.executable"), ("comm", "process.name"), ("cwd", "process.working_directory"),
        ("proctitle", "process.title"),
    ):  # fmt: skip
        if name in said:
            fields[ours] = said[name]
    if arguments := _arguments(records):
        fields["process.args"] = tuple(arguments)
        fields["process.args_count"] = len(arguments)
        fields["process.command_line"] = " ".join(arguments)
        for number, value in enumerate(arguments[:16]):
            fields[f"{DATA}a{number}"] = value
    elif "cmd" in said:
        fields["process.command_line"] = said["cmd"]
    elif "proctitle" in said:
        fields["process.command_line"] = said["proctitle"]


def _arguments(records: Sequence[AuditRecord]) -> list[str]:
    """The command line of EXECVE records; one long argument comes in pieces (`a1[0]=`, `a1[1]=`)."""
    pieces: dict[int, dict[int, str]] = {}
    for record in records:
        if record.type != "EXECVE":
            continue
        for name, value in record.fields.items():
            number, _, piece = name[1:].rstrip("]").partition("[")
            if name[0] == "a" and number.isdecimal() and int(number) < MAX_ARGUMENTS:
                pieces.setdefault(int(number), {})[int(piece or 0)] = value
    return ["".join(value for _, value in sorted(parts.items())) for _, parts in sorted(pieces.items())]


def _paths(records: Sequence[AuditRecord], said: Mapping[str, str], fields: Fields) -> None:
    """The files an event is about; folders that only hold them (nametype=PARENT) are left out."""
    folder = said.get("cwd", "")
    found: dict[str, None] = {}
    for record in records:
        name = record.fields.get("name")
        if record.type != "PATH" or name is None or record.fields.get("nametype") == "PARENT":
            continue
        whole = name if name.startswith("/") or not folder else f"{folder.rstrip('/')}/{name}"
        found[whole] = None
    names = tuple(found)
    if names:
        fields["file.path"] = names[0] if len(names) == 1 else names
        fields["file.name"] = names[0].rpartition("/")[2]
        mode = next((record.fields["mode"] for record in records if "mode" in record.fields), "")
        if mode.isdecimal() and len(mode) <= 7:  # noqa: PLR2004
            fields["file.mode"] = mode[-4:]


def _peer(said: Mapping[str, str], category: str, fields: Fields) -> None:
    if (address := ip_of(said.get("addr", ""))) is not None:
        fields["source.ip"] = address
    if (found := socket_address(said.get("saddr", ""))) is None:
        return
    host, port = found
    if host == "unix":
        fields["auditd.socket"] = port
    elif category == _NETWORK:
        side = "source" if fields["event.action"] in {"accept", "accept4"} else "destination"
        fields[f"{side}.ip"], fields[f"{side}.port"] = host, port
