"""Drives millrace on a real NFS mount and checks every byte: drive.py MILLRACE CACHE_DIR SCENARIO [SHARE]

Runs on the NFS client's machine: an origin, the server under test and its clients, all on loopback. SHARE
is a folder that whoever owns the NFS server watches: a word in SHARE/ask wants something done to it
(pause, resume, stale, restart), SHARE/answer says that it was. Figures go to standard output; the
exit code is 0 if all held. Called by run.sh.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ORIGIN, DOOR, ADMIN = 7801, 7800, 7802
DEADLINE_S = 3.0
TILE = random.Random(1).randbytes((1 << 20) + 7)


def content(seed, start, end):
    """Bytes of an object; a byte of another object or at another place differs."""
    out, at = bytearray(), start + seed * 9973
    left = end - start
    while left:
        piece = TILE[at % len(TILE) :][:left]
        out += piece
        at += len(piece)
        left -= len(piece)
    return bytes(out)


class Origin:
    """Any /bucket/SIZE-SEED, ranges too."""

    def __init__(self):
        self.requests = 0
        listener = socket.create_server(("127.0.0.1", ORIGIN), backlog=256)
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rb")
        try:
            while line := stream.readline():
                headers = {}
                while header := stream.readline().strip():
                    name, value = header.split(b":", 1)
                    headers[name.lower()] = value.strip()
                self.requests += 1
                size, seed = map(int, re.match(rb"\S+ /bucket/(\d+)-(\d+)", line).groups())
                start, end, status, extra = 0, size, "200 OK", ""
                if wanted := re.match(rb"bytes=(\d+)-(\d*)", headers.get(b"range", b"")):
                    start = int(wanted[1])
                    end = min(size, int(wanted[2]) + 1) if wanted[2] else size
                    status = "206 Partial Content"
                    extra = f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
                head = (
                    f'HTTP/1.1 {status}\r\nContent-Length: {end - start}\r\nETag: "{size}-{seed}"\r\n'
                    f"Last-Modified: Wed, 12 Aug 2026 10:00:00 GMT\r\n{extra}\r\n"
                )
                connection.sendall(head.encode() + content(seed, start, end))
        except OSError:
            pass


class Client:
    """One connection; every answer is whole and right, or this fails."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", DOOR), timeout=60)

    def get(self, size, seed):
        begun = time.monotonic()
        self.socket.sendall(f"GET /bucket/{size}-{seed} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = bytearray()
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            assert piece, "the server ended the connection"
            data += piece
        at = data.index(b"\r\n\r\n") + 4
        head = bytes(data[:at]).decode()
        assert head.startswith("HTTP/1.1 200"), head
        body = data[at:]
        while len(body) < size:
            piece = self.socket.recv(1 << 20)
            assert piece, "a body was cut"
            body += piece
        assert body == content(seed, 0, size), f"wrong bytes of {size}-{seed}"
        word = re.search(r"(?i)x-cache-status: (\S+)", head)[1]
        return word, time.monotonic() - begun


class Server:
    def __init__(self, binary, directory, size="256MiB"):
        self.log = open("/tmp/millrace.log", "ab")
        flags = {
            "--listen": f"127.0.0.1:{DOOR}",
            "--admin": f"127.0.0.1:{ADMIN}",
            "--origin": f"http://127.0.0.1:{ORIGIN}",
            "--ram": "16MiB",
            "--shards": "1",
            "--cache-dir": directory,
            "--disk": size,
        }
        environment = os.environ | {
            "MILLRACE_DISK_DEADLINE": f"{int(DEADLINE_S * 1000)}ms",
            "MILLRACE_DISK_RESERVE": "0",
            "MILLRACE_SERVER_DRAIN": "3s",
        }
        arguments = [binary, "serve"] + [word for flag in flags.items() for word in flag]
        self.process = subprocess.Popen(
            arguments, env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        wait("the server", 60, lambda: self.page("/readyz").startswith("HTTP/1.1 200"))

    def page(self, path):
        try:
            with socket.create_connection(("127.0.0.1", ADMIN), timeout=10) as admin:
                admin.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                data = b""
                while piece := admin.recv(65536):
                    data += piece
                return data.decode()
        except OSError:
            assert self.process.poll() is None, "the server ended"
            return ""

    def metric(self, name):
        values = re.findall(rf"(?m)^millrace_{name}(?:{{[^}}]*}})? (\S+)$", self.page("/metrics"))
        return int(sum(map(float, values)))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self, word):
        """How many lines of the log end with it."""
        with open("/tmp/millrace.log", errors="replace") as log:
            return sum(line.rstrip().endswith(word) for line in log)

    def stop(self):
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            where(self.process)
            raise
        assert code == 0, f"exit {code}"
        return time.monotonic() - begun


def wait(what, limit_s, condition):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def await_copies(server, heads, limit_s=60):
    wait("copies on disk", limit_s, lambda: server.metric("disk_heads") >= heads
         and server.metric("disk_extents") >= heads and server.metric("disk_queued_bytes") == 0)


def await_fold(server):
    wait("the fold", 60, lambda: server.metric("disk_folding_shards") == 0)


OBJECTS = [(size, seed) for seed in range(32) for size in [(900, 70_000, 700_000, 2_500_000)[seed % 4]]]
HOT = [(4000, 1000 + seed) for seed in range(8)]


def fill(server):
    client = Client()
    for size, seed in OBJECTS:
        client.get(size, seed)
    await_copies(server, len(OBJECTS))


class Load:
    """While it runs: one client reads what is in RAM, four what is on disk, one what is new."""

    def __init__(self):
        self.stopping, self.failures = False, []
        self.hits, self.cold, self.new, self.words = [], [], [], {}
        bodies = [self.hot, self.fresh] + [lambda number=number: self.old(number) for number in range(4)]
        self.threads = [threading.Thread(target=self.guarded, args=(body,)) for body in bodies]
        for thread in self.threads:
            thread.start()

    def guarded(self, body):
        try:
            body()
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def hot(self):
        client, number = Client(), 0
        while not self.stopping:
            word, took = client.get(*HOT[number % len(HOT)])
            self.hits.append(took)
            if took > 1:
                print(f"  a read of what is in RAM took {took:.2f} s: {word}")
            number += 1
            time.sleep(0.01)

    def old(self, number):
        client = Client()
        while not self.stopping:
            word, took = client.get(*OBJECTS[number % len(OBJECTS)])
            self.cold.append(took)
            self.words[word] = self.words.get(word, 0) + 1
            number += 5
            time.sleep(0.05)

    def fresh(self):
        client, number = Client(), 0
        while not self.stopping:
            word, took = client.get(1_500_000, 5000 + number)
            self.new.append(took)
            number += 1
            time.sleep(0.2)

    def assert_hits_went_on(self):
        # One or the other may have left RAM, and is looked for on disk.
        assert self.hits[len(self.hits) * 9 // 10] < 0.5, "hits from RAM waited"

    def end(self, what):
        self.stopping = True
        for thread in self.threads:
            thread.join(timeout=90)
            assert not thread.is_alive(), "a client is stuck"
        assert not self.failures, self.failures
        for name, taken in (("from RAM", self.hits), ("on disk", self.cold), ("new", self.new)):
            taken.sort()
            middle, most = taken[len(taken) // 2] * 1e3, taken[-1] * 1e3
            print(f"  {what}: {len(taken)} reads {name}, median {middle:.1f} ms, longest {most:.0f} ms")
        print(f"  {what}: answers to reads of what is on disk: {self.words}")


def begin(binary, directory):
    """A process that finds everything on disk, and has the hot objects in RAM."""
    server = Server(binary, directory)
    fill(server)
    server.kill()
    server = Server(binary, directory)
    await_fold(server)
    client = Client()
    # What is read once only is the first to leave RAM.
    for size, seed in HOT * 4:
        client.get(size, seed)
    return server


def where(process):
    """What each thread of a process that does not end waits for."""
    folder = f"/proc/{process.pid}/task"
    for task in os.listdir(folder):
        said = []
        for name in ("comm", "wchan", "syscall", "stack"):
            try:
                with open(f"{folder}/{task}/{name}") as file:
                    said.append(file.read().strip().replace("\n", " "))
            except OSError:
                pass
        print("  ", task, *said)


def ask(share, word):
    with open(f"{share}/ask.new", "w") as out:
        out.write(word)
    os.rename(f"{share}/ask.new", f"{share}/ask")
    wait(f"{word} of the NFS server", 120, lambda: os.path.exists(f"{share}/answer"))
    os.unlink(f"{share}/answer")


def survives(origin, binary, directory, share):
    """Fill, kill -9, restart, hit."""
    for round in range(5):
        server = Server(binary, directory)
        await_fold(server)
        client, asked, words, begun = Client(), origin.requests, {}, time.monotonic()
        for size, seed in OBJECTS:
            word, _ = client.get(size, seed)
            words[word] = words.get(word, 0) + 1
        took = time.monotonic() - begun
        if round:
            assert words == {"HIT": len(OBJECTS)} and origin.requests == asked, words
        else:
            await_copies(server, len(OBJECTS))
        loaded = server.metric("disk_loaded_bytes_total")
        print(f"  round {round}: {words} in {took:.2f} s, {loaded} bytes from disk")
        server.kill()
    checked = subprocess.run([binary, "cache", "verify", directory], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    print("  verify:", checked.stdout.strip())


def paused(origin, binary, directory, share):
    """The NFS server stands still for 30 seconds."""
    server = begin(binary, directory)
    load = Load()
    time.sleep(3)
    load.end("before")
    load = Load()
    ask(share, "pause")
    time.sleep(30)
    late = server.metric("disk_errors_total")
    load.end("paused")
    load.assert_hits_went_on()
    assert max(load.cold) < 2 * DEADLINE_S + 4, "reads of what is on disk waited longer than their deadline"
    ask(share, "resume")
    begun, loaded = time.monotonic(), server.metric("disk_loaded_bytes_total")
    stored = server.metric("disk_stored_total")
    load = Load()
    wait("loads and copies after the pause", 90, lambda: server.metric("disk_loaded_bytes_total") > loaded
         and server.metric("disk_stored_total") > stored)
    print(f"  {late} operations failed; loads and copies again {time.monotonic() - begun:.1f} s after it went on")
    time.sleep(3)
    load.end("after")
    print(f"  SIGTERM: ended after {server.stop():.1f} s")


def stopped(origin, binary, directory, share):
    """SIGTERM while the NFS server stands still: all is done within the time to drain; the kernel lets a process go whose files are open
    there only when the server has answered that they are closed (NFSv4's CLOSE cannot be killed in a process that ends)."""
    server = begin(binary, directory)
    load = Load()
    ask(share, "pause")
    time.sleep(5)
    load.end("paused")
    begun, before = time.monotonic(), server.said("stopped")
    server.process.send_signal(signal.SIGTERM)
    wait("the end of the work", 10, lambda: server.said("stopped") > before)
    print(f"  SIGTERM: stopped after {time.monotonic() - begun:.1f} s with the NFS server standing still")
    ask(share, "resume")
    code = server.process.wait(timeout=60)
    assert code == 0, f"exit {code}"
    print(f"  the process was gone after {time.monotonic() - begun:.1f} s")


def restarted(origin, binary, directory, share):
    """The NFS server loses its power; segments that were open are gone afterwards."""
    server = begin(binary, directory)
    client = Client()
    for size, seed in OBJECTS:
        client.get(size, seed)
    load = Load()
    ask(share, "stale")
    ask(share, "restart")
    time.sleep(5)
    load.end("restarted")
    load.assert_hits_went_on()
    wait("the directory to answer", 90, lambda: os.listdir(directory))
    load, stored = Load(), server.metric("disk_stored_total")
    wait("copies after the restart", 90, lambda: server.metric("disk_stored_total") > stored + 8)
    load.end("after")
    loaded = server.metric("disk_loaded_bytes_total")
    load = Load()
    wait("loads after the restart", 90, lambda: server.metric("disk_loaded_bytes_total") > loaded)
    load.end("after that")
    print(f"  {server.metric('disk_errors_total')} operations failed")
    print(f"  SIGTERM: ended after {server.stop():.1f} s")


def full(origin, binary, directory, share):
    """The export is smaller than the cache's budget."""
    server = Server(binary, directory, size="1GiB")
    client = Client()
    for seed in range(150):
        client.get(1_500_000, 9000 + seed)
    wait("the queue to be written or dropped", 60, lambda: server.metric("disk_queued_bytes") == 0)
    dropped = server.metric("disk_dropped_total")
    print(f"  {server.metric('disk_stored_total')} stored, {dropped} dropped, {server.metric('disk_errors_total')} errors")
    assert dropped > 0, "the export was not full"
    # The youngest first: the oldest have gone to make room.
    words = {}
    for seed in reversed(range(150)):
        word, _ = client.get(1_500_000, 9000 + seed)
        words[word] = words.get(word, 0) + 1
    print(f"  read again: {words}")
    assert words.get("HIT", 0) > 5
    server.kill()
    checked = subprocess.run([binary, "cache", "verify", directory], capture_output=True, text=True)
    print("  verify:", checked.stdout.strip())
    assert checked.returncode == 0, checked.stdout
    server = Server(binary, directory, size="1GiB")
    await_fold(server)
    client, words = Client(), {}
    for seed in range(150):
        word, _ = client.get(1_500_000, 9000 + seed)
        words[word] = words.get(word, 0) + 1
    print(f"  after kill -9: {words}")
    assert words.get("HIT", 0) > 5
    server.stop()


def main():
    binary, directory, scenario = sys.argv[1:4]
    share = sys.argv[4] if len(sys.argv) > 4 else None
    print(f"{scenario}: kernel {os.uname().release}", flush=True)
    try:
        globals()[scenario](Origin(), binary, directory, share)
    except Exception as error:
        print(f"FAILED {type(error).__name__}: {error}")
        with open("/tmp/millrace.log", errors="replace") as log:
            print("".join(log.readlines()[-25:]))
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


main()
