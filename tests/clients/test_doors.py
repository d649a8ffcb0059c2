"""The TLS door with boto3 and objects of many sizes; and several millraces behind one name, one of which is killed under load.
Other clients at the TLS door are in `test_ways`."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

from servers import DIRECT, KIB, MIB, REGION, ClientTest, content, fetch, free_address, sha256, wait_for

CRT_READS = """
import hashlib, sys, time
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client
region, endpoint, bucket, rounds, *keys = sys.argv[1:]
client = MountpointS3Client(region=region, endpoint=endpoint, force_path_style=True)
for number in range(int(rounds)):
    for key in keys:
        print(hashlib.sha256(b"".join(client.get_object(bucket, key))).hexdigest(), flush=True)
"""


def may_mount():
    """Whether a mount namespace of our own can be had."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def in_place_of(mounts, command):
    """`command` with other files or folders where these are, seen by it alone."""
    lines = [f"mount --bind {theirs} {place}" for place, theirs in mounts.items()]
    return ["unshare", "--mount", "sh", "-ec", "\n".join(lines + ['exec "$@"']), "sh", *command]


class Door(ClientTest):
    """Millraces of the test's own in front of the shared origin."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="millrace-doors-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, settings="", door=None):
        door, admin = door or free_address(), free_address()
        file = self.folder / f"{admin}.toml"
        file.write_text(settings)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        process = subprocess.Popen(
            [
                os.environ["MILLRACE_BIN"], "serve", "--listen", door, "--admin", admin, "--config", str(file),
                "--origin", f"http://{self.servers.origin}", "--ram", "256MiB", "--cache-dir", "none", "--shards", "1",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for("millrace is ready", lambda: self.servers.answers(f"http://{admin}/readyz"))
        return process, door, admin


@unittest.skipIf(DIRECT, "needs the door")
class TlsDoor(Door):
    def setUp(self):
        super().setUp()
        self.address = free_address()
        host = self.address.rsplit(":", 1)[0]
        subprocess.run(
            [os.environ["PERF_BIN"], "certs", "--dir", str(self.folder), "--name", host],
            check=True, stdout=subprocess.DEVNULL,
        )
        settings = f'[listener]\ntls = ["{self.address}"]\n[tls]\n'
        settings += f'cert_file = "{self.folder}/cert.pem"\nkey_file = "{self.folder}/key.pem"\n'
        self.start(settings)
        self.endpoint = f"https://{self.address}"
        self.authority = self.folder / "ca.pem"

    def test_boto3(self):
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, verify=str(self.authority),
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        self.addCleanup(client.close)
        for length in (0, 1, 4 * KIB, 20 * MIB + 7):
            key, data = self.key(f"{length}"), content(length, length)
            client.put_object(Bucket=self.bucket, Key=key, Body=data)
            self.assertEqual(self.origin_sha256(key), sha256(data))
            for _ in range(2):
                self.assertEqual(sha256(client.get_object(Bucket=self.bucket, Key=key)["Body"].read()), sha256(data))
            read = lambda: client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            self.assertEqual(sha256(self.assert_no_origin_get(read)), sha256(data))


@unittest.skipIf(DIRECT, "needs millrace")
@unittest.skipUnless(may_mount(), "needs a mount namespace for names of its own")
class Several(Door):
    """DNS with several addresses, as /etc/hosts says it to the client alone."""

    def served(self, admin):
        text = fetch(f"http://{admin}/metrics")[1].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("millrace_requests_total"))

    def test_one_of_three_is_killed_under_load_and_no_download_fails(self):
        keys = {}
        for number in range(8):
            key, data = self.key(f"{number}"), content(12 * MIB + number, number)
            self.direct.put_object(Bucket=self.bucket, Key=key, Body=data)
            keys[key] = sha256(data)
        first = free_address()
        network, port = first.rsplit(".", 1)[0], first.rsplit(":", 1)[1]
        doors = [f"{network}.{host}:{port}" for host in (201, 202, 203)]
        processes, _, admins = zip(*(self.start(door=door) for door in doors))
        hosts = self.folder / "hosts"
        lines = [f"{door.rsplit(':', 1)[0]} millrace.example" for door in doors]
        hosts.write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
        rounds = 6
        command = in_place_of(
            {"/etc/hosts": hosts},
            [sys.executable, "-c", CRT_READS, REGION, f"http://millrace.example:{port}", self.bucket, str(rounds), *keys],
        )
        clients = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        wanted = list(keys.values()) * rounds
        # In the middle of it: the first downloads are over, most are not.
        for _ in range(4):
            self.assertEqual(clients[0].stdout.readline().strip(), wanted.pop(0))
        served = [self.served(admin) for admin in admins]
        busiest = served.index(max(served))
        self.assertGreater(served[busiest], 0)
        processes[busiest].send_signal(signal.SIGKILL)
        for number, client in enumerate(clients):
            output, errors = client.communicate(timeout=240)
            self.assertEqual(client.returncode, 0, errors)
            self.assertEqual(output.split(), wanted if number == 0 else list(keys.values()) * rounds)
        others = [process.poll() is None for number, process in enumerate(processes) if number != busiest]
        self.assertEqual(others, [True, True])


if __name__ == "__main__":
    unittest.main()
