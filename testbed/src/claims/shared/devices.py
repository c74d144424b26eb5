# Uses the devices that a pool may open, as the job's user.
import fcntl
import os
import subprocess
import sys


def opened(path):
    try:
        return os.open(path, os.O_RDWR)
    except OSError:
        return None


# KVM_GET_API_VERSION in linux/kvm.h.
kvm = opened("/dev/kvm")
print("kvm: closed" if kvm is None else f"kvm: version {fcntl.ioctl(kvm, 0xAE00)}")
print("fuse: closed" if opened("/dev/fuse") is None else "fuse: open")

# TUNSETIFF with IFF_TUN and IFF_NO_PI (linux/if_tun.h), in a network namespace of this user.
TUN = """
import fcntl, os, socket, struct
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"job0", 0x1001))
print("tun: made", *(name for _, name in socket.if_nameindex() if name != "lo"))
"""
if opened("/dev/net/tun") is None:
    print("tun: closed")
else:
    sys.stdout.flush()
    subprocess.run(["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", TUN], check=True)
