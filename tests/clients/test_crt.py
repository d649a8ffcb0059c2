"""Mountpoint's client on the AWS CRT (s3torchconnectorclient): parallel ranges with If-Match,
to an endpoint, and through HTTP_PROXY in absolute form."""

import os
import subprocess
import sys
import unittest

from s3torchconnectorclient import S3Exception
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

from servers import DIRECT, KIB, MIB, REGION, ClientTest, content, sha256

PROXIED_READ = """
import hashlib, sys
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client
region, endpoint, bucket, key = sys.argv[1:]
client = MountpointS3Client(region=region, endpoint=endpoint, force_path_style=True, max_attempts=2)
print(hashlib.sha256(b"".join(client.get_object(bucket, key))).hexdigest())
"""


class Crt(ClientTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = MountpointS3Client(region=REGION, endpoint=cls.endpoint, force_path_style=True, max_attempts=2)

    def read(self, key):
        return b"".join(self.client.get_object(self.bucket, key))

    def test_put_then_get_twice_and_the_second_is_a_hit(self):
        for length in (1, 4 * KIB, 8 * MIB, 40 * MIB + 7):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                stream = self.client.put_object(self.bucket, key)
                stream.write(data)
                stream.close()
                self.assertEqual(self.origin_sha256(key), sha256(data))
                self.assertEqual(sha256(self.read(key)), sha256(data))
                self.assertEqual(sha256(self.assert_no_origin_get(lambda: self.read(key))), sha256(data))

    def test_ranges(self):
        key, data = self.key(), content(30 * MIB)
        self.direct.put_object(Bucket=self.bucket, Key=key, Body=data)
        for first, end in ((0, 10), (7 * MIB, 17 * MIB + 1), (30 * MIB - 1, 30 * MIB)):
            for _ in range(2):
                part = b"".join(self.client.get_object(self.bucket, key, start=first, end=end))
                self.assertEqual(sha256(part), sha256(data[first:end]))

    def test_head_and_delete(self):
        # No listing: this origin's listings carry no ETag, which the client insists on.
        key = self.key()
        self.direct.put_object(Bucket=self.bucket, Key=key, Body=b"xx")
        self.assertEqual(self.client.head_object(self.bucket, key).size, 2)
        self.assertEqual(self.read(key), b"xx")
        self.client.delete_object(self.bucket, key)
        with self.assertRaises(S3Exception):
            self.read(key)

    @unittest.skipIf(DIRECT, "needs the proxy")
    def test_through_http_proxy_in_absolute_form(self):
        key, data = self.key(), content(20 * MIB)
        self.direct.put_object(Bucket=self.bucket, Key=key, Body=data)

        def read():
            done = subprocess.run(
                [sys.executable, "-c", PROXIED_READ, REGION, "http://store.example", self.bucket, key],
                env={**os.environ, "HTTP_PROXY": self.endpoint, "http_proxy": self.endpoint},
                capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.strip()

        self.assertEqual(read(), sha256(data))
        self.assertEqual(self.assert_no_origin_get(read), sha256(data))


if __name__ == "__main__":
    unittest.main()
