"""Runs in a job: tries forbidden addresses and holds allowed connections until /tmp/go exists.

Arguments: forbidden addresses as HOST:PORT. Prints one line for each finding.
"""
import os
import select
import socket
import sys
import threading
import time

ECHO = ("198.51.100.7", 7)
WEB = ("198.51.100.7", 80)

done = threading.Event()
opened = {}
tries = {}
gaps = {"open connection": 0.0, "new connection": 0.0}
replaced = 0


def forbidden(target):
    """Begins a connection every 50 ms and watches each for a second."""
    host, port = target.rsplit(":", 1)
    pending = []
    while not done.is_set():
        begin = time.monotonic()
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((host, int(port)))
        pending.append((begin, s))
        tries[target] = tries.get(target, 0) + 1
        _, ready, _ = select.select([], [s for _, s in pending], [], 0)
        for s in ready:
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                opened[target] = opened.get(target, 0) + 1
        over = [(t, s) for t, s in pending if s in ready or begin - t > 1]
        for entry in over:
            entry[1].close()
            pending.remove(entry)
        time.sleep(max(0.0, 0.05 - (time.monotonic() - begin)))


def gap(kind, since):
    gaps[kind] = max(gaps[kind], time.monotonic() - since)


def held():
    global replaced
    last = time.monotonic()
    while not done.is_set():
        try:
            with socket.create_connection(ECHO, timeout=5) as s:
                s.settimeout(1)
                while not done.is_set():
                    s.sendall(b"x")
                    if not s.recv(1):
                        break
                    gap("open connection", last)
                    last = time.monotonic()
                    time.sleep(0.05)
        except OSError:
            pass
        if not done.is_set():
            replaced += 1
            gap("open connection", last)


def new():
    last = time.monotonic()
    while not done.is_set():
        try:
            socket.create_connection(WEB, timeout=1).close()
            gap("new connection", last)
            last = time.monotonic()
        except OSError:
            gap("new connection", last)
        time.sleep(0.05)


threads = [threading.Thread(target=forbidden, args=(t,)) for t in sys.argv[1:]]
threads += [threading.Thread(target=held), threading.Thread(target=new)]
for thread in threads:
    thread.start()
open("/tmp/probing", "w").close()
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
done.set()
for thread in threads:
    thread.join()
for target in sys.argv[1:]:
    print(f"forbidden {target} opened {opened.get(target, 0)} of {tries[target]}")
for kind, length in gaps.items():
    print(f"longest gap {kind} {length * 1000:.0f} ms")
print(f"connection replaced {replaced} times")
