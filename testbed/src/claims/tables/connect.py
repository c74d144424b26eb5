"""Opens connections to an address until one fails, prints their number, and holds them.

Arguments: the address, the port, the largest number of connections, the time for which they are held, in seconds.
"""
import socket
import sys
import time

DESTINATION = (sys.argv[1], int(sys.argv[2]))
held = []
for _ in range(int(sys.argv[3])):
    opened = socket.socket()
    opened.settimeout(2)
    try:
        opened.connect(DESTINATION)
    except OSError:
        break
    held.append(opened)
print(len(held), flush=True)
time.sleep(int(sys.argv[4]))
