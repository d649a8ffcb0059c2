"""Every way from a client to millrace, for each of three clients: AWS CLI, boto3, and Mountpoint's client on the CRT.

The origin verifies signatures and speaks TLS alone, with a certificate of an authority of our own. Names are Amazon S3's, led here by what a
site would use: a hosts file, a proxy setting, an endpoint. Each client writes an object and reads it twice. Where millrace reads the bytes,
the second read makes no GET at the origin; where it is a tunnel, the tunnel is counted, and every read is the origin's.
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from servers import ACCESS_KEY, DIRECT, MIB, SECRET_KEY, Processes, content, fetch, free_address, sha256, wait_for
from test_doors import in_place_of, may_mount

REGION = "eu-central-1"
STORE = f"s3.{REGION}.amazonaws.com"
BUCKET = "ways"
CLIENTS = ("awscli", "boto3", "crt")
# Where a name leads that a client should not have asked for by itself: to nobody.
NOBODY = "127.255.255.254"


def own_ip(number):
    """One of three loopback addresses that are this process's alone, port 80 and 443 included."""
    _, a, b, c = os.getpid().to_bytes(4, "big")
    return f"127.{(64, 128, 192)[number] | (a & 0x3f)}.{b}.{c}"


def may_bind_low_ports():
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        return os.geteuid() == 0 or int(file.read()) <= 80


class World(Processes):
    """The origin, one millrace in front of it alone, and one that leads to Amazon S3's names; all TLS with one certificate."""

    def __init__(self):
        super().__init__()
        self.front, self.store_tls, self.store = (own_ip(number) for number in range(3))
        self.single, self.single_tls, self.proxy_tls = free_address(), free_address(), free_address()
        self.stats_address, self.single_admin, self.names_admin = free_address(), free_address(), free_address()
        self.folder = pathlib.Path(self.root) / "ways"
        self.buckets = pathlib.Path(self.root) / "buckets"
        (self.buckets / BUCKET).mkdir(parents=True)
        hosts = {self.front, self.single_tls.rsplit(":", 1)[0], self.proxy_tls.rsplit(":", 1)[0], self.store}
        self.perf("certs", "--dir", self.folder, *flags("--name", STORE, f"{BUCKET}.{STORE}", *sorted(hosts)))
        self.trust()
        self.spawn_origin()
        self.spawn_millraces()

    def perf(self, *arguments):
        subprocess.run([os.environ["PERF_BIN"], *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def trust(self):
        """What stands where the system's authorities do, for clients that ask nobody else."""
        self.authorities = self.folder / "authorities"
        self.authorities.mkdir()
        shutil.copy(self.folder / "ca.pem", self.authorities / "ca.pem")
        shutil.copy(self.folder / "ca.pem", self.authorities / "ca-certificates.crt")
        if shutil.which("openssl"):
            subprocess.run(["openssl", "rehash", self.authorities], check=True, capture_output=True)

    def spawn_origin(self):
        self.spawn(
            os.environ["PERF_BIN"], "s3s", "--root", self.buckets, "--listen", f"{self.store}:443",
            "--stats", self.stats_address, "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY,
            "--tls-cert", self.folder / "cert.pem", "--tls-key", self.folder / "key.pem",
            *flags("--domain", STORE, self.single, self.single_tls),
        )
        wait_for("the origin answers", lambda: self.answers(f"http://{self.stats_address}/stats"))

    def spawn_millraces(self):
        certificate = f'cert_file = "{self.folder}/cert.pem"\nkey_file = "{self.folder}/key.pem"\n'
        single = self.folder / "single.toml"
        single.write_text(f"""
[listener]
http = ["{self.single}"]
tls = ["{self.single_tls}"]
[tls]
{certificate}
[routing]
origin = "https://{self.store}"
[upstream]
ca_file = "{self.folder}/ca.pem"
""")
        names = self.folder / "names.toml"
        endpoints = "".join(f'[[endpoint]]\nhost = "{host}"\naddresses = ["{self.store}"]\n' for host in (STORE, f"*.{STORE}"))
        names.write_text(f"""
[listener]
http = ["{self.front}:80"]
tunnel = ["{self.front}"]
tls = ["{self.store_tls}", "{self.proxy_tls}"]
[tls]
{certificate}
[upstream]
ca_file = "{self.folder}/ca.pem"
{endpoints}
""")
        for settings, admin in ((single, self.single_admin), (names, self.names_admin)):
            self.spawn(
                os.environ["MILLRACE_BIN"], "serve", "--config", settings, "--admin", admin, "--ram", "256MiB",
                "--cache-dir", "none", "--shards", "1",
            )
        for admin in (self.single_admin, self.names_admin):
            wait_for("millrace is ready", lambda: self.answers(f"http://{admin}/readyz"))

    def tunnels(self, door):
        text = fetch(f"http://{self.names_admin}/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith("millrace_tunnels_opened_total{")]
        return sum(float(line.split()[-1]) for line in lines if f'door="{door}"' in line)

    def origin_gets(self, key):
        return len([entry for entry in self.origin_log("GET", "/") if entry["target"].partition("?")[0].endswith(f"/{key}")])

    def client(self, kind, endpoint="", style="virtual", leads=NOBODY, **proxies):
        """A client whose hosts file leads the store's names to `leads`, or else nowhere."""
        program = pathlib.Path(__file__).with_name("ways_client.py")
        command = [sys.executable, str(program), kind, REGION, BUCKET, endpoint, style]
        if may_mount():
            hosts = self.folder / f"hosts-{leads}"
            hosts.write_text(f"127.0.0.1 localhost\n{leads} {STORE} {BUCKET}.{STORE}\n")
            command = in_place_of({"/etc/hosts": hosts, "/etc/ssl/certs": self.authorities}, command)
        authority = str(self.folder / "ca.pem")
        environment = {
            **os.environ, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority, "PYTHONDONTWRITEBYTECODE": "1", **proxies,
            **{name.lower(): value for name, value in proxies.items()},
        }
        return Client(command, environment)


def flags(name, *values):
    return [word for value in values for word in (name, value)]


class Client:
    """A client process: a line to it, a line from it."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise AssertionError(f"{words}: {self.process.communicate(timeout=20)[1][-2000:]}")
        return answer


@unittest.skipIf(DIRECT, "needs millrace")
@unittest.skipUnless(may_bind_low_ports(), "needs ports 80 and 443")
class Ways(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.data = content(9 * MIB + 1)
        cls.file = cls.world.folder / "data"
        cls.file.write_bytes(cls.data)

    @classmethod
    def tearDownClass(cls):
        cls.world.stop()

    def each(self, tunnel=None, **way):
        """Lets each client write and read by this way: through the tunnels of a door, or else by a cache."""
        tunnels = lambda: sum(map(self.world.tunnels, (tunnel,) if tunnel else ("sni", "connect")))
        before = tunnels()
        with concurrent.futures.ThreadPoolExecutor(len(CLIENTS)) as pool:
            runs = {kind: pool.submit(self.one, kind, tunnel, way) for kind in CLIENTS}
        for kind, run in runs.items():
            with self.subTest(client=kind):
                run.result()
        after = tunnels()
        if tunnel:
            self.assertGreaterEqual(after - before, len(CLIENTS), "somebody came by no tunnel")
        else:
            self.assertEqual(after, before, "somebody came by a tunnel")

    def one(self, kind, tunnel, way):
        key, wanted = f"{self.id().rsplit('.', 1)[-1]}-{kind}", sha256(self.data)
        with self.world.client(kind, **way) as client:
            client("put", key, self.file)
            self.assertEqual(sha256((self.world.buckets / BUCKET / key).read_bytes()), wanted, "what the origin has")
            self.assertEqual(client("get", key), wanted)
            before = self.world.origin_gets(key)
            self.assertGreater(before, 0)
            self.assertEqual(client("get", key), wanted)
            again = self.world.origin_gets(key) - before
        if tunnel:
            self.assertGreater(again, 0, "a tunnel answered by itself")
        else:
            self.assertEqual(again, 0, "a second read reached the origin")

    def test_single_origin(self):
        self.each(endpoint=f"http://{self.world.single}", style="path")

    @unittest.skipUnless(may_mount(), "needs a mount namespace: the CRT trusts the system's folder")
    def test_tls_door(self):
        self.each(endpoint=f"https://{self.world.single_tls}", style="path")

    @unittest.skipUnless(may_mount(), "needs a mount namespace for a hosts file")
    def test_hosts_file(self):
        for style in ("virtual", "path"):
            with self.subTest(style=style):
                self.each(endpoint=f"http://{STORE}", style=style, leads=self.world.front)

    @unittest.skipUnless(may_mount(), "needs a mount namespace for a hosts file")
    def test_hosts_file_and_https(self):
        self.each(tunnel="sni", leads=self.world.front)

    @unittest.skipUnless(may_mount(), "needs a mount namespace for a hosts file")
    def test_hosts_file_and_https_with_a_certificate_of_that_name(self):
        self.each(leads=self.world.store_tls)

    def test_http_proxy(self):
        self.each(endpoint=f"http://{STORE}", HTTP_PROXY=f"http://{self.world.front}:80")

    @unittest.skipUnless(may_mount(), "needs a mount namespace: the CRT trusts the system's folder")
    def test_https_proxy(self):
        self.each(tunnel="connect", HTTPS_PROXY=f"http://{self.world.front}:80")

    @unittest.skipUnless(may_mount(), "needs a mount namespace: the CRT trusts the system's folder")
    def test_https_proxy_by_tls(self):
        self.each(tunnel="connect", HTTPS_PROXY=f"https://{self.world.proxy_tls}")


if __name__ == "__main__":
    unittest.main()
