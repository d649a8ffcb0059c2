"""What real clients upload: compared by SHA-256 at the origin and read back through millrace, with and
without `write_through`. The origin of all of them is s3s-fs, which verifies signatures, payload hashes and
checksums, also those of trailers; it knows form uploads and `If-None-Match: *`."""

import concurrent.futures
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import boto3
import deltalake
import pyarrow
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from servers import (
    ACCESS_KEY, DIRECT, KIB, MIB, REGION, SECRET_KEY, ClientTest, arrow_filesystem, content, fetch, sha256,
)

# Lengths of single uploads, and of one that clients send in parts.
SMALL = (0, 1, 64 * KIB + 1, 3 * MIB)
LARGE = 18 * MIB + 77
# Of an empty object nothing is kept; a range of it is refused in a few words.
REFUSAL = 200


class Uploads(ClientTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        config = Config(s3={"addressing_style": "path"}, signature_version="s3v4", max_pool_connections=20)
        cls.s3 = boto3.client("s3", endpoint_url=cls.endpoint, config=config)
        folder = tempfile.TemporaryDirectory(prefix="millrace-uploads-")
        cls.addClassCleanup(folder.cleanup)
        cls.addClassCleanup(cls.s3.close)
        cls.folder = pathlib.Path(folder.name)

    def check(self, key, data, fetched_max=1):
        """At the origin, and read back: where writes are kept, without the origin sending it."""
        self.assertEqual(self.origin_sha256(key), sha256(data), "at the origin")
        url = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key})
        before = self.servers.origin_stats()["body_bytes_sent"]
        self.assertEqual(sha256(self.plain(url)), sha256(data), "read back")
        fetched = self.servers.origin_stats()["body_bytes_sent"] - before
        if self.write_through and not DIRECT:
            self.assertLessEqual(fetched, fetched_max, "what was kept was fetched")
        self.assertEqual(sha256(self.assert_no_origin_get(lambda: self.plain(url))), sha256(data), "warm")

    def plain(self, url):
        status, body, _ = fetch(url)
        self.assertEqual(status, 200, body[:500])
        return body

    def file(self, data):
        path = self.folder / f"file-{len(data)}"
        path.write_bytes(data)
        return path

    def sent(self, method, key):
        """The headers of what the origin has seen, by lower-cased name."""
        log = self.servers.origin_log(method, f"/{self.bucket}/{key}")
        return [{name.lower(): value for name, value in entry["headers"]} for entry in log]

    def run_client(self, *command, check=True, **environment):
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        if check:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done


class Boto3Uploads(Uploads):
    def test_put_object(self):
        for length in SMALL:
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata={"a": "b"})
                self.check(key, data, REFUSAL if length == 0 else 1)
                self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key=key)["Metadata"], {"a": "b"})

    def test_every_checksum(self):
        for algorithm in ("CRC32", "SHA1", "SHA256"):
            with self.subTest(algorithm=algorithm):
                key, data = self.key(algorithm), content(MIB, 3)
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=io.BytesIO(data), ChecksumAlgorithm=algorithm)
                self.assertIn(f"x-amz-checksum-{algorithm.lower()}", self.sent("PUT", key)[0])
                self.check(key, data)

    def test_an_upload_that_does_not_fit_its_checksum_is_refused_and_not_kept(self):
        key = self.key()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"the first")
        with self.assertRaises(ClientError):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"the second", ChecksumCRC32="AAAAAA==")
        # This origin stores first and compares then: whatever it has, millrace says the same.
        params = {"Bucket": self.bucket, "Key": key}
        here, there = (client.generate_presigned_url("get_object", Params=params) for client in (self.s3, self.direct))
        self.assertEqual(self.plain(here), self.plain(there))

    def test_upload_file_in_parts(self):
        key, data = self.key(), content(LARGE)
        transfer = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB, max_concurrency=4)
        self.s3.upload_file(str(self.file(data)), self.bucket, key, Config=transfer)
        self.assertEqual(len(self.sent("PUT", key)), 4)
        # The last part is shorter; where it began first, its bytes are fetched.
        self.check(key, data, fetched_max=LARGE - 18 * MIB + 1)

    def test_presigned_put(self):
        for length in SMALL:
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length + 9)
                url = self.s3.generate_presigned_url("put_object", Params={"Bucket": self.bucket, "Key": key})
                answer = urllib3.request("PUT", url, body=data)
                self.assertEqual(answer.status, 200, answer.data)
                self.check(key, data, REFUSAL if length == 0 else 1)

    def post(self, key, data, **more):
        form = self.s3.generate_presigned_post(self.bucket, key, **more)
        fields = {**form["fields"], "file": ("report.bin", data, "application/octet-stream")}
        answer = urllib3.request("POST", form["url"], fields=fields)
        self.assertIn(answer.status, (200, 201, 204), answer.data)

    def test_presigned_post_form(self):
        key = self.key()
        for turn in range(3):
            data = content(200_000 + turn, turn)
            self.post(key, data)
            # Form uploads are not kept; the one before must not be served.
            self.check(key, data, fetched_max=len(data) + 1)

    def test_of_many_that_create_one_key_one_does(self):
        key, start = self.key(), threading.Barrier(8)

        def create(number):
            start.wait()
            try:
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"by %d" % number, IfNoneMatch="*")
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]
            return number - 100

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = sorted(pool.map(create, range(8)))
        self.assertEqual(results[1:], [412] * 7)
        self.check(key, b"by %d" % (results[0] + 100), fetched_max=10)


class PyarrowUploads(Uploads):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.arrow = arrow_filesystem(cls.door)

    def test_aws_chunked_with_a_trailer(self):
        for length in (1, 100_000, LARGE):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                with self.arrow.open_output_stream(f"{self.bucket}/{key}") as stream:
                    stream.write(data)
                for headers in self.sent("PUT", key):
                    self.assertEqual(headers.get("x-amz-content-sha256"), "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                    self.assertEqual(headers.get("x-amz-trailer"), "x-amz-checksum-crc64nvme")
                    self.assertEqual(headers.get("transfer-encoding"), "chunked")
                # Parts of 10 MiB; the last one is shorter.
                self.check(key, data, fetched_max=length % (10 * MIB) + 1 if length > 10 * MIB else 1)
                with self.arrow.open_input_stream(f"{self.bucket}/{key}") as stream:
                    self.assertEqual(sha256(stream.read()), sha256(data))


class DeltaUploads(Uploads):
    def table(self, name):
        options = {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION, "conditional_put": "etag",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }
        return f"s3://{self.bucket}/{name}", options

    def test_each_version_of_a_table_has_one_writer(self):
        name, writers, commits = self.key("table"), 2, 8
        uri, options = self.table(name)

        def rows(writer, turn):
            first = (writer * commits + turn) * 100
            return pyarrow.table({"number": list(range(first, first + 100))})

        deltalake.write_deltalake(uri, rows(writers, 0), storage_options=options)
        start = threading.Barrier(writers)

        def append(writer):
            start.wait()
            for turn in range(commits):
                deltalake.write_deltalake(uri, rows(writer, turn), mode="append", storage_options=options)

        with concurrent.futures.ThreadPoolExecutor(writers) as pool:
            list(pool.map(append, range(writers)))
        table = deltalake.DeltaTable(uri, storage_options=options)
        self.assertEqual(table.version(), writers * commits)
        found = sorted(table.to_pyarrow_table()["number"].to_pylist())
        wanted = list(range(writers * commits * 100)) + list(range(1600, 1700))
        self.assertEqual(found, sorted(wanted))
        # What went by the wire: each version was created by exactly one writer.
        log = self.servers.origin_log("PUT", f"/{self.bucket}/{name}/_delta_log/")
        won, lost = {}, 0
        for entry in log:
            headers = {key.lower(): value for key, value in entry["headers"]}
            if headers.get("if-none-match") == "*":
                if entry["status"] == 200:
                    won[entry["target"]] = won.get(entry["target"], 0) + 1
                else:
                    self.assertEqual(entry["status"], 412)
                    lost += 1
        self.assertEqual(len(won), writers * commits + 1)
        self.assertEqual(set(won.values()), {1})
        print(f"{len(won)} commits, {lost} lost their race", file=sys.stderr)
        for target in won:
            key = target.split("?")[0].removeprefix(f"/{self.bucket}/")
            self.check(key, self.direct.get_object(Bucket=self.bucket, Key=key)["Body"].read(), fetched_max=1 << 20)


class AwsCliUploads(Uploads):
    def aws(self, *arguments):
        return self.run_client(sys.executable, "-m", "awscli", "--endpoint-url", self.endpoint, *arguments)

    def test_cp(self):
        for length in (5, 3 * MIB, LARGE):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                self.aws("s3", "cp", self.file(data), f"s3://{self.bucket}/{key}")
                # Parts of 8 MiB.
                self.check(key, data, fetched_max=length % (8 * MIB) + 1 if length > 8 * MIB else 1)
                back = self.folder / "back"
                self.aws("s3", "cp", f"s3://{self.bucket}/{key}", back)
                self.assertEqual(sha256(back.read_bytes()), sha256(data))

    def test_sync_overwrites_what_changed(self):
        prefix, tree = self.key("tree"), self.folder / "tree"
        for turn in range(2):
            files = {}
            for number in range(4):
                file = tree / f"dir {number % 2}" / f"file {number}"
                file.parent.mkdir(parents=True, exist_ok=True)
                files[file] = content(50_000 + number + turn * (number % 2), number + turn * 10)
                if turn == 0 or number % 2:
                    file.write_bytes(files[file])
                else:
                    files[file] = file.read_bytes()
            self.aws("s3", "sync", tree, f"s3://{self.bucket}/{prefix}")
            for file, data in files.items():
                fetched_max = 1 if turn == 0 or len(data) % 2 else len(data)
                self.check(f"{prefix}/{file.relative_to(tree)}", data, fetched_max=max(fetched_max, 1))


@unittest.skipUnless(shutil.which("s3cmd"), "s3cmd is not installed, and could not be (Debian package s3cmd)")
class S3cmdUploads(Uploads):
    def s3cmd(self, *arguments):
        return self.run_client(
            "s3cmd", "--config=/dev/null", f"--access_key={ACCESS_KEY}", f"--secret_key={SECRET_KEY}",
            f"--host={self.door}", f"--host-bucket={self.door}", f"--region={REGION}", "--no-ssl", "--no-progress", *arguments,
        )

    def test_put_and_get(self):
        for length in (5, 3 * MIB, LARGE):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                self.s3cmd("put", "--multipart-chunk-size-mb=6", self.file(data), f"s3://{self.bucket}/{key}")
                self.check(key, data)
                back = self.folder / "back"
                self.s3cmd("get", "--force", f"s3://{self.bucket}/{key}", back)
                self.assertEqual(sha256(back.read_bytes()), sha256(data))


@unittest.skipUnless(shutil.which("rclone"), "rclone is not installed, and could not be (Debian package rclone)")
class RcloneUploads(Uploads):
    def rclone(self, *arguments):
        settings = {
            "TYPE": "s3", "PROVIDER": "Other", "ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY,
            "REGION": REGION, "ENDPOINT": self.endpoint, "FORCE_PATH_STYLE": "true", "NO_CHECK_BUCKET": "true",
        }
        settings = {f"RCLONE_CONFIG_STORE_{name}": value for name, value in settings.items()}
        return self.run_client("rclone", "--config", "", *arguments, **settings)

    def test_copy_there_and_back(self):
        for length in (5, 3 * MIB, LARGE):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                cut = ("--s3-upload-cutoff", "6M", "--s3-chunk-size", "6M")
                self.rclone("copyto", *cut, self.file(data), f"store:{self.bucket}/{key}")
                self.check(key, data, fetched_max=length % (6 * MIB) + 1 if length > 6 * MIB else 1)
                back = self.folder / "back"
                self.rclone("copyto", f"store:{self.bucket}/{key}", back)
                self.assertEqual(sha256(back.read_bytes()), sha256(data))


def kept(case):
    """The same tests where writes are kept."""
    return type("Kept" + case.__name__, (case,), {"write_through": True, "__module__": __name__})


for _case in Uploads.__subclasses__():
    globals()["Kept" + _case.__name__] = kept(_case)
del _case


if __name__ == "__main__":
    unittest.main()
