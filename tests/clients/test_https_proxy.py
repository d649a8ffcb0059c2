"""Clients that speak HTTPS, through HTTPS_PROXY (CONNECT) and through a tunnel door, to an origin behind TLS
whose authority they alone are told of: millrace reads nothing of it."""

import os
import pathlib
import shutil
import subprocess
import unittest

import boto3
from botocore.config import Config
from botocore.exceptions import ProxyConnectionError

from servers import DIRECT, MIB, ClientTest, content, fetch, free_address, sha256, shared, wait_for

NAME = "store.example"


@unittest.skipIf(DIRECT, "needs the proxy")
class HttpsProxy(ClientTest):
    @classmethod
    def setUpClass(cls):
        # Not the shared pair: an origin with TLS, and a server that leads to it by name.
        servers = cls.servers = shared()
        cls.folder = pathlib.Path(servers.root + "-tls")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        subprocess.run(
            [os.environ["PERF_BIN"], "certs", "--dir", cls.folder, "--name", NAME, "--name", free_address().split(":")[0]],
            check=True,
        )
        origin, stats = free_address(), free_address()
        cls.ca = str(cls.folder / "ca.pem")
        servers.spawn(
            os.environ["PERF_BIN"], "origin", "--listen", origin, "--stats", stats,
            "--tls-cert", str(cls.folder / "cert.pem"), "--tls-key", str(cls.folder / "key.pem"),
        )
        wait_for("the TLS origin answers", lambda: servers.answers(f"http://{stats}/stats"))
        cls.door, cls.tunnel, cls.admin, cls.tls = (free_address() for _ in range(4))
        settings = cls.folder / "millrace.toml"
        settings.write_text(f"""
[listener]
http = ["{cls.door}"]
tunnel = ["{cls.tunnel}"]
tls = ["{cls.tls}"]
[tls]
cert_file = "{cls.folder}/cert.pem"
key_file = "{cls.folder}/key.pem"
[[origin]]
name = "store"
url = "https://{origin}"
hosts = ["{NAME}"]
""")
        servers.spawn(
            os.environ["MILLRACE_BIN"], "serve", "--config", str(settings), "--admin", cls.admin,
            "--ram", "64MiB", "--cache-dir", "none", "--shards", "1",
        )
        wait_for("millrace is ready", lambda: servers.answers(f"http://{cls.admin}/readyz"))

    @classmethod
    def tearDownClass(cls):
        pass

    def opened(self, door):
        text = fetch(f"http://{self.admin}/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith(f'millrace_tunnels_opened_total{{door="{door}"')]
        return sum(float(line.split()[-1]) for line in lines)

    def boto(self, endpoint=f"https://{NAME}"):
        return boto3.client(
            "s3", endpoint_url=endpoint, verify=self.ca,
            config=Config(
                proxies={"https": f"http://{self.door}"}, s3={"addressing_style": "path"}, retries={"max_attempts": 0},
            ),
        )

    def test_boto3(self):
        client, data = self.boto(), content(20 * MIB + 1)
        before = self.opened("connect")
        client.put_object(Bucket="bucket", Key="key", Body=data)
        body = client.get_object(Bucket="bucket", Key="key")["Body"].read()
        self.assertEqual(sha256(body), sha256(data))
        self.assertGreater(self.opened("connect"), before)

    def test_boto3_is_told_that_a_host_is_no_destination(self):
        with self.assertRaises(ProxyConnectionError) as raised:
            self.boto("https://elsewhere.example").get_object(Bucket="bucket", Key="key")
        self.assertIn("403", str(raised.exception.kwargs["error"]))

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_curl_by_each_kind_of_proxy_and_by_the_tunnel_door(self):
        path = f"https://{NAME}/gen/1000000/1/object"
        # As an entry in the hosts file leads the name, and port 443, to millrace.
        hosts = ["--noproxy", "*", "--connect-to", f"{NAME}:443:{self.tunnel}"]
        digests = set()
        by_tls = ["--proxy", f"https://{self.tls}", "--proxy-cacert", self.ca]
        for door, how in (("connect", ["--proxy", f"http://{self.door}"]), ("connect", by_tls), ("sni", hosts)):
            before = self.opened(door)
            done = subprocess.run(["curl", "-sS", "--fail", "--cacert", self.ca, *how, path], capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(done.stdout), 1_000_000)
            digests.add(sha256(done.stdout))
            self.assertEqual(self.opened(door), before + 1)
        self.assertEqual(len(digests), 1)


if __name__ == "__main__":
    unittest.main()
