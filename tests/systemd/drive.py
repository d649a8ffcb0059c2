"""Drives the units of millrace under a real systemd: drive.py PERF, called by run.sh inside the namespaces that systemd was booted in.

The units are those of config/, in /etc/systemd/system; the program is /usr/bin/millrace. Exit code 0 if all held.
"""

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

ORIGIN, ADMIN, DOOR = ("127.0.0.1", 9000), ("127.0.0.1", 9180), ("127.0.0.1", 80)
OBJECT = "/gen/300000/1/object"
SETTINGS = """
[listener]
http = ["127.0.0.1:80"]
[routing]
origin = "http://127.0.0.1:9000"
[ram]
size = "64MiB"
[disk]
dir = "/var/cache/millrace"
size = "256MiB"
[server]
drain = "2s"
[log]
access = "/var/log/millrace/access.log"
"""
CACHE, LOGS = pathlib.Path("/var/cache/private/millrace"), pathlib.Path("/var/log/private/millrace")


def systemctl(*words, check=True):
    done = subprocess.run(["systemctl", "--no-pager", *words], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, f"systemctl {words}: {done.stdout}{done.stderr}{journal()}"
    return done.stdout


def journal():
    return subprocess.run(["journalctl", "--no-pager", "-n", "40", "-u", "millrace"], capture_output=True, text=True).stdout


def show(name):
    return systemctl("show", "--property", name, "--value", "millrace").strip()


def get(address, path, timeout=20):
    """Status, headers and body of an answer on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def is_ready():
    try:
        return get(ADMIN, "/readyz")[0] == 200
    except OSError:
        return False


def metric(start):
    lines = get(ADMIN, "/metrics")[2].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


def wait_for(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{journal()}"
        time.sleep(0.02)
    return value


def read_object():
    """The marks of the answer, whose body is right."""
    status, headers, body = get(DOOR, OBJECT)
    assert (status, body) == (200, WANTED), (status, len(body))
    return headers["X-Cache-Status"]


class Load:
    """Clients that each make a connection for every request, until told to stop."""

    def __enter__(self):
        self.stop, self.served, self.failures = threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.run) for _ in range(8)]
        for thread in self.threads:
            thread.start()
        wait_for("the load runs", lambda: self.served > 50)
        return self

    def run(self):
        while not self.stop.is_set():
            try:
                read_object()
                self.served += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))

    def more(self):
        wanted = self.served + 100
        wait_for("the load goes on", lambda: self.served > wanted)

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, f"{len(self.failures)} of {self.served} failed: {self.failures[:3]}"


def settings(text):
    file = pathlib.Path("/etc/millrace/millrace.toml")
    file.write_text(text)
    file.chmod(0o644)


def a_start_is_over_when_it_is_ready():
    # Without a certificate it does not come up, and systemd says so.
    settings(SETTINGS.replace("[listener]\n", '[listener]\ntls = ["127.0.0.1:8443"]\n') + '[tls]\ncert_file = "/none"\nkey_file = "/none"\n')
    begun = subprocess.run(["systemctl", "start", "millrace"], capture_output=True, timeout=60)
    assert begun.returncode != 0, "a start without a certificate is a success"
    assert not is_ready()
    systemctl("stop", "millrace")
    systemctl("reset-failed", "millrace", check=False)
    settings(SETTINGS)
    systemctl("start", "--no-block", "millrace")
    seen = set()
    while (state := show("ActiveState")) != "active":
        seen.add(state)
        assert state in ("activating", "inactive"), state + journal()
    assert is_ready(), "active, and not ready"
    assert read_object() == "MISS"
    print(f"  before active: {', '.join(sorted(seen)) or 'nothing seen'}")


def it_runs_as_a_user_of_its_own_that_can_write():
    uid = os.stat(f"/proc/{show('MainPID')}").st_uid
    assert 61184 <= uid <= 65519, f"user {uid} is no dynamic one"
    written = wait_for("files in the cache directory", lambda: list(CACHE.rglob("*")))
    assert {os.lstat(file).st_uid for file in written} == {uid}
    wait_for("a line in the access log", lambda: (LOGS / "access.log").exists() and "gen" in (LOGS / "access.log").read_text())
    systemctl("restart", "millrace")
    # It serves before it has looked at all that is there.
    known = f"[{show('MainPID')}]"
    wait_for("the disk is known", lambda: any(known in line and "on disk is known" in line for line in journal().splitlines()))
    assert read_object() == "HIT", "the disk was not read after a restart"


def a_reload_reads_again():
    pid, before = show("MainPID"), metric('millrace_config_reloads_total{result="applied"')
    (LOGS / "access.log").rename(LOGS / "access.log.1")
    settings(SETTINGS + '[[rule]]\nmatch = "gen/**"\ntiers = []\n')
    systemctl("reload", "millrace")
    wait_for("it is applied", lambda: metric('millrace_config_reloads_total{result="applied"') > before, 5)
    assert read_object() == "PASS", "the new rule does not count"
    # Looking at the file would bring the rule as well, but never a new log.
    wait_for("the access log anew", (LOGS / "access.log").exists, 5)
    settings(SETTINGS)
    systemctl("reload", "millrace")
    wait_for("the rule is gone", lambda: read_object() == "HIT", 5)
    assert (show("MainPID"), show("ActiveState")) == (pid, "active")


def a_process_that_stands_still_is_restarted():
    drop_in = pathlib.Path("/etc/systemd/system/millrace.service.d/watchdog.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=2s\n")
    systemctl("daemon-reload")
    systemctl("restart", "millrace")
    pid = show("MainPID")
    time.sleep(3)
    assert show("MainPID") == pid, "the watchdog is not fed" + journal()
    os.kill(int(pid), signal.SIGSTOP)
    wait_for("another process", lambda: show("MainPID") not in (pid, "0") and show("ActiveState") == "active")
    assert show("NRestarts") == "1", show("NRestarts")
    assert "watchdog" in journal().lower(), journal()
    assert read_object() in ("HIT", "MISS")
    drop_in.unlink()
    systemctl("daemon-reload")


def a_hand_over_refuses_nobody():
    pid, restarts = show("MainPID"), show("NRestarts")
    # One that asks nothing keeps the old process for a while: the new one is not systemd's own child when it is named.
    idle = http.client.HTTPConnection(*DOOR)
    idle.request("GET", OBJECT)
    idle.getresponse().read()
    with Load() as load:
        systemctl("kill", "--signal", "USR2", "millrace")
        new = wait_for("another main process", lambda: (now := show("MainPID")) not in (pid, "0") and now)
        wait_for("the old one has gone", lambda: not os.path.exists(f"/proc/{pid}"))
        load.more()
    idle.close()
    assert (show("MainPID"), show("ActiveState"), show("NRestarts")) == (new, "active", restarts)
    print(f"  {load.served} requests, each on a connection of its own")


def stop(*units):
    systemctl("stop", *units)
    assert (show("Result"), show("ActiveState")) == ("success", "inactive"), show("Result") + journal()


def a_socket_of_systemd_waits_for_the_service():
    stop("millrace")
    systemctl("start", "millrace.socket")
    assert show("ActiveState") == "inactive"
    early = socket.create_connection(DOOR, timeout=30)
    early.sendall(f"GET {OBJECT} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = http.client.HTTPResponse(early)
    answer.begin()
    assert (answer.status, answer.read()) == (200, WANTED)
    early.close()
    wait_for("the service is active", lambda: show("ActiveState") == "active")
    with Load() as load:
        pid = show("MainPID")
        for _ in range(2):
            systemctl("restart", "millrace")
            load.more()
        assert show("MainPID") != pid
    print(f"  {load.served} requests, each on a connection of its own, over two restarts")
    a_hand_over_refuses_nobody()
    stop("millrace.socket", "millrace")


origin = subprocess.Popen([sys.argv[1], "origin", "--listen", "%s:%d" % ORIGIN], stdout=subprocess.DEVNULL)
try:
    WANTED = wait_for("the origin", lambda: socket.socket().connect_ex(ORIGIN) == 0 and get(ORIGIN, OBJECT)[2])
    assert len(WANTED) == 300_000
    for step in (
        a_start_is_over_when_it_is_ready,
        it_runs_as_a_user_of_its_own_that_can_write,
        a_reload_reads_again,
        a_process_that_stands_still_is_restarted,
        a_hand_over_refuses_nobody,
        a_socket_of_systemd_waits_for_the_service,
    ):
        begun = time.monotonic()
        print(step.__name__.replace("_", " "), flush=True)
        step()
        print(f"  ok, {time.monotonic() - begun:.1f} s", flush=True)
finally:
    origin.terminate()
    origin.wait()
