"""Starts `perf s3s` and `millrace serve` as processes for the client tests.

Environment: MILLRACE_BIN and PERF_BIN name the binaries. With DIRECT=1 there is no
millrace and clients talk to the origin itself: a check of the tests, not of the server.
"""

import atexit
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ACCESS_KEY = "AKIAMILLRACETEST0002"
SECRET_KEY = "millrace/clients+secret/0123456789abcdefg"
REGION = "us-east-1"
DIRECT = os.environ.get("DIRECT") == "1"

KIB = 1 << 10
MIB = 1 << 20

# Nothing of the caller's own set-up may reach a client under test.
for _name in list(os.environ):
    if _name.startswith("AWS_") or _name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        del os.environ[_name]
CLIENT_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
os.environ.update(CLIENT_ENVIRONMENT)

_ports = itertools.count(12_000)
_keys = itertools.count()


def arrow_filesystem(door):
    """pyarrow's filesystem (AWS SDK for C++) with `door` as its endpoint."""
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, scheme="http",
        endpoint_override=door, force_virtual_addressing=False,
    )


def free_address():
    """A loopback address that no other process uses: one network address for each process id."""
    _, a, b, c = os.getpid().to_bytes(4, "big")
    return f"127.{64 | (a & 0x3f)}.{b}.{c}:{next(_ports)}"


def wait_for(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return value


def fetch(url, method="GET"):
    """Status and body of a plain request, past any proxy setting."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def answers(url):
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


class Processes:
    """Servers that end with the Python process, and a folder that goes with them."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="millrace-clients-")
        self.processes = []
        atexit.register(self.stop)

    def spawn(self, *arguments):
        # MILLRACE_BIN would be taken for a setting.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        with open(self.root + ".log", "ab") as log:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.processes.append(process)

    def answers(self, url):
        """Whether a server answers there; fails at once when one of them has ended."""
        for process in self.processes:
            if process.poll() is not None:
                with open(self.root + ".log", errors="replace") as log:
                    raise AssertionError(f"{process.args[:2]} ended with {process.returncode}:\n{log.read()[-4000:]}")
        return answers(url)

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)
        for path in (self.root + ".log", self.root + ".toml"):
            if os.path.exists(path):
                os.unlink(path)

    def origin_stats(self):
        return json.loads(fetch(f"http://{self.stats_address}/stats")[1])

    def origin_gets(self):
        return self.origin_stats()["get_requests"]

    def origin_log(self, method, path):
        """The requests that the origin has seen with this method for paths that begin so."""
        log = json.loads(fetch(f"http://{self.stats_address}/log")[1])
        return [entry for entry in log if entry["method"] == method and entry["target"].startswith(path)]


class Servers(Processes):
    """The origin and the server in front of it."""

    def __init__(self, write_through=False):
        super().__init__()
        self.origin, self.stats_address = free_address(), free_address()
        self.spawn(
            os.environ["PERF_BIN"], "s3s", "--root", self.root, "--listen", self.origin, "--stats", self.stats_address,
            "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY,
        )
        wait_for("the origin answers", lambda: self.answers(f"http://{self.stats_address}/stats"))
        self.door = self.origin
        if not DIRECT:
            self.door, self.admin = free_address(), free_address()
            settings = self.root + ".toml"
            with open(settings, "w") as file:
                file.write("[cache]\nwrite_through = true\nwrite_percent_max = 40\n" if write_through else "")
            self.spawn(
                os.environ["MILLRACE_BIN"], "serve", "--listen", self.door, "--admin", self.admin,
                "--origin", f"http://{self.origin}", "--ram", "512MiB", "--cache-dir", "none", "--shards", "2",
                "--config", settings,
            )
            wait_for("millrace is ready", lambda: self.answers(f"http://{self.admin}/readyz"))
        self.endpoint = f"http://{self.door}"

    def held(self):
        """Gauges of what is in use right now, where they are not zero."""
        text = fetch(f"http://{self.admin}/metrics")[1].decode()
        pattern = r"^(millrace_(?:connections_open|requests_in_flight|fills_in_flight|fill_waiters|ram_leases)[^ ]*) (\S+)$"
        return {name: value for name, value in re.findall(pattern, text, re.M) if float(value) != 0}


_servers = {}


def shared(write_through=False):
    """One pair of servers of a kind for all test files of a run."""
    if write_through not in _servers:
        _servers[write_through] = Servers(write_through)
    return _servers[write_through]


def content(length, seed=0):
    """Bytes that look alike nowhere: SHAKE-256 of the seed, repeated with a prime period."""
    period = 1_048_583
    tile = hashlib.shake_256(seed.to_bytes(8, "big")).digest(min(length, period))
    return (tile * (length // max(len(tile), 1) + 1))[:length]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class ClientTest(unittest.TestCase):
    """A test with servers, a bucket of its own, and eyes on the origin."""

    # Whether the server keeps what is written through it.
    write_through = False

    @classmethod
    def setUpClass(cls):
        import boto3
        from botocore.config import Config

        cls.servers = shared(cls.write_through)
        cls.endpoint, cls.door = cls.servers.endpoint, cls.servers.door
        cls.direct = boto3.client(
            "s3", endpoint_url=f"http://{cls.servers.origin}",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        cls.bucket = re.sub("[^a-z0-9]", "-", cls.__name__.lower())
        cls.direct.create_bucket(Bucket=cls.bucket)

    def key(self, name="object"):
        return f"{self.id().rsplit('.', 1)[-1]}/{next(_keys)}/{name}"

    def origin_sha256(self, key):
        """What the origin itself has."""
        return sha256(self.direct.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def assert_no_origin_get(self, read):
        """Runs `read` and asserts that it was answered without a GET at the origin."""
        before = self.servers.origin_gets()
        value = read()
        if not DIRECT:
            self.assertEqual(self.servers.origin_gets() - before, 0, "a second read reached the origin")
        return value

    @classmethod
    def tearDownClass(cls):
        cls.direct.close()
