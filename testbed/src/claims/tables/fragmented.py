"""Asks the resolver in a packet that is sent in three fragments. Fails without an answer to three queries."""
import socket
import struct

QUERY = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + b"\6github\3com\0" + struct.pack(">2H", 1, 1) + bytes(3000)
for line in open("/etc/resolv.conf"):
    if line.startswith("nameserver "):
        server = line.split()[1]
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(2)
for last in (False, False, True):
    asked.sendto(QUERY, (server, 53))
    try:
        asked.recv(512)
        break
    except TimeoutError:
        if last:
            raise
