"""Who can read and write a data set, and what protects it: what the kernel says of its files, and nothing beyond that.

Sources: inode(7) for modes; acl(5) and nfs4_acl(5) for the extended attributes that hold lists; dm-crypt's ``CRYPT-``
prefix of a device's UUID (cryptsetup); FS_IOC_GET_ENCRYPTION_POLICY_EX (kernel: filesystems/fscrypt.rst); ``sec=krb5p``
and ``xprtsec=`` of nfs(5).
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import struct
from contextlib import suppress
from pathlib import Path

from bench.measure.node import Mount, mount_of
from probes.data.events import Access

_GET_POLICY = 0xC0096616
_ACLS = {"system.posix_acl_access": "posix", "system.posix_acl_default": "posix", "system.nfs4_acl": "nfs4"}
_ACL_USER, _ACL_GROUP, _ACL_MASK = 0x02, 0x08, 0x10
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "ceph", "beegfs", "gpfs", "9p")


def access(root: Path, modes: int, acls: bool) -> Access:
    """``modes``: those of all files, or-ed; ``acls``: whether any file has an access list. Raises OSError."""
    state = os.stat(root)
    inside = bool(state.st_mode & 0o001) and all(os.stat(above).st_mode & 0o001 for above in root.resolve().parents)
    mount = mount_of(root)
    options = set(mount.options.split(",")) if mount else set()
    return Access(
        owner=_user(state.st_uid),
        group=_group(state.st_gid),
        mode=f"{state.st_mode & 0o7777:04o}",
        others_read=inside and bool(modes & 0o004),
        others_write=inside and bool((modes | state.st_mode) & 0o002),
        access_list=acl(root) or ("some files" if acls else "none"),
        encrypted=_encrypted(root, mount),
        options=sorted(options & {"nodev", "nosuid", "noexec", "ro", "rw"}),
    )


def acl(path: Path) -> str | None:
    """The kind of list that a path carries beside its mode, and whom a POSIX one names: ``posix: user alice rw-``."""
    names: list[str] = []
    with suppress(OSError):
        names = os.listxattr(path)
        if (access := "system.posix_acl_access") in names:
            return f"posix: {', '.join(_named(os.getxattr(path, access))) or 'nobody by name'}"[:500]
    return next((kind for name, kind in _ACLS.items() if name in names), None)


def _named(data: bytes) -> list[str]:
    """Who is named, with what the mask leaves (Linux, include/uapi/linux/posix_acl_xattr.h: tag, permissions, id)."""
    entries = list(struct.iter_unpack("<HHI", data[4 : 4 + (len(data) - 4) // 8 * 8]))
    mask = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), 7)
    found = []
    for tag, rights, number in entries:
        bits = "".join(letter if rights & mask & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        if tag == _ACL_USER:
            found.append(f"user {_user(number)} {bits}")
        elif tag == _ACL_GROUP:
            found.append(f"group {_group(number)} {bits}")
    return found


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


def _encrypted(root: Path, mount: Mount | None) -> str | None:
    """What encrypts it at rest or on its way; "no" where nothing does, None where the kernel does not say."""
    if _policy(root):
        return "fscrypt"
    if mount is None:
        return None
    if mount.fstype in _NETWORK:
        words = mount.super_options.split(",")
        secure = [word for word in words if word == "sec=krb5p" or word in ("xprtsec=tls", "xprtsec=mtls", "seal")]
        return secure[0] if secure else "no" if mount.fstype in ("nfs", "nfs4") else None
    device = Path("/sys/dev/block", mount.device)
    return _crypt(device) if device.exists() else None


def _crypt(device: Path) -> str | None:
    """Whether a block device, or all that it stands on, is dm-crypt's."""
    with suppress(OSError):
        if (device / "dm/uuid").read_text().startswith("CRYPT-"):
            return "dm-crypt"
    below = [Path("/sys/class/block", one.name) for one in (device / "slaves").glob("*")]
    return "dm-crypt" if below and all(_crypt(one) == "dm-crypt" for one in below) else "no"


def _policy(root: Path) -> bool:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, _GET_POLICY, struct.pack("=Q", 24) + bytes(24))
    except OSError as error:
        return error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENODATA, errno.EINVAL, errno.EPERM)
    finally:
        os.close(folder)
    return True
