"""Asks a resolver from one port after another, and prints the number of answers.

Arguments: the resolver's address, the number of ports.

A packet that gets no port is lost. The resolver answers one query after the other, so an answer to a query from the
first port follows the answers to all queries before it.
"""
import socket
import struct
import sys

RESOLVER = (sys.argv[1], 53)
PORTS = int(sys.argv[2])
# More would not fit the buffer of the resolver's socket.
BATCH = 50


def query(number):
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + b"\6github\3com\0" + struct.pack(">2H", 1, 1)


def open_socket():
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.connect(RESOLVER)
    return opened


first = open_socket()
first.settimeout(20)
sockets = []
answers = 0
for begin in range(0, PORTS, BATCH):
    batch = [open_socket() for _ in range(min(BATCH, PORTS - begin))]
    for opened in batch:
        opened.send(query(1))
    number = 2 + begin
    first.send(query(number))
    while struct.unpack(">H", first.recv(512)[:2]) != (number,):
        pass
    for opened in batch:
        opened.setblocking(False)
        try:
            answers += len(opened.recv(512)) > 0
        except BlockingIOError:
            pass
    sockets += batch
print(answers)
