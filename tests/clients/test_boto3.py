"""boto3: every ordinary call, through millrace, against an origin that verifies signatures."""

import concurrent.futures
import io
import threading
import unittest

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from servers import KIB, MIB, ClientTest, content, fetch, sha256


class Boto3(ClientTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = cls.client()

    @classmethod
    def client(cls, **settings):
        config = Config(s3={"addressing_style": "path"}, signature_version="s3v4", max_pool_connections=20, **settings)
        return boto3.client("s3", endpoint_url=cls.endpoint, config=config)

    @classmethod
    def tearDownClass(cls):
        cls.s3.close()
        super().tearDownClass()

    def read(self, key, **more):
        return self.s3.get_object(Bucket=self.bucket, Key=key, **more)["Body"].read()

    def test_put_then_get_twice_and_the_second_is_a_hit(self):
        for length in (0, 1, 4 * KIB, 8 * MIB, 20 * MIB + 3):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
                self.assertEqual(self.origin_sha256(key), sha256(data))
                self.assertEqual(sha256(self.read(key)), sha256(data))
                again = self.assert_no_origin_get(lambda: self.read(key))
                self.assertEqual(sha256(again), sha256(data))

    def test_head_tells_length_and_etag_and_is_404_for_what_is_not_there(self):
        key, data = self.key(), content(4 * KIB)
        put = self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        self.read(key)
        head = self.s3.head_object(Bucket=self.bucket, Key=key)
        self.assertEqual((head["ContentLength"], head["ETag"]), (len(data), put["ETag"]))
        with self.assertRaises(ClientError) as caught:
            self.s3.head_object(Bucket=self.bucket, Key=key + "-not")
        self.assertEqual(caught.exception.response["ResponseMetadata"]["HTTPStatusCode"], 404)
        with self.assertRaises(self.s3.exceptions.NoSuchKey):
            self.read(key + "-not")

    def test_ranges_cold_and_warm(self):
        key, data = self.key(), content(20 * MIB)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        spans = [(0, 1), (0, 8 * MIB), (8 * MIB - 1, 8 * MIB + 1), (5, 12 * MIB), (20 * MIB - 1, 20 * MIB)]
        for first, end in spans:
            for turn in ("cold", "warm"):
                with self.subTest(first=first, end=end, turn=turn):
                    part = self.read(key, Range=f"bytes={first}-{end - 1}")
                    self.assertEqual(sha256(part), sha256(data[first:end]))
        self.assertEqual(self.read(key, Range="bytes=-100"), data[-100:])
        for first, end in spans:
            self.assert_no_origin_get(lambda: self.read(key, Range=f"bytes={first}-{end - 1}"))
        with self.assertRaises(ClientError) as caught:
            self.read(key, Range=f"bytes={len(data)}-")
        self.assertEqual(caught.exception.response["Error"]["Code"], "InvalidRange")

    def test_multipart_upload_and_parallel_download(self):
        key, data = self.key(), content(37 * MIB + 11)
        transfer = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=8 * MIB, max_concurrency=8)
        self.s3.upload_fileobj(io.BytesIO(data), self.bucket, key, Config=transfer)
        self.assertEqual(self.origin_sha256(key), sha256(data))

        def download():
            sink = io.BytesIO()
            self.s3.download_fileobj(self.bucket, key, sink, Config=transfer)
            return sha256(sink.getvalue())

        self.assertEqual(download(), sha256(data))
        self.assertEqual(self.assert_no_origin_get(download), sha256(data))

    def test_an_overwrite_is_read_at_once(self):
        key = self.key()
        for turn in range(10):
            text = b"version %d" % turn
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=text)
            self.assertEqual(self.read(key), text)
            self.assertEqual(self.read(key), text)

    def test_delete_and_multi_delete_are_seen_at_once(self):
        keys = [self.key("é & <b> %2F +") for _ in range(4)]
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=key.encode())
            self.assertEqual(self.read(key), key.encode())
        self.s3.delete_object(Bucket=self.bucket, Key=keys[0])
        self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys[1:3]]})
        for key in keys[:3]:
            with self.assertRaises(self.s3.exceptions.NoSuchKey):
                self.read(key)
        self.assertEqual(self.read(keys[3]), keys[3].encode())

    def test_copy_is_seen_at_once(self):
        source, target = self.key("source"), self.key("target")
        self.s3.put_object(Bucket=self.bucket, Key=source, Body=b"from here")
        self.s3.put_object(Bucket=self.bucket, Key=target, Body=b"to be replaced")
        self.assertEqual(self.read(target), b"to be replaced")
        self.s3.copy_object(Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": source})
        self.assertEqual(self.read(target), b"from here")

    def test_list_shows_what_was_just_written(self):
        prefix = self.key("")
        for number in range(3):
            self.s3.put_object(Bucket=self.bucket, Key=f"{prefix}{number}", Body=b"x")
            listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
            self.assertEqual(listed["KeyCount"], number + 1)
        names = [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]
        self.assertIn(self.bucket, names)

    def test_presigned_urls_read_write_and_range(self):
        key = self.key()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content(20 * MIB))
        url = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=600)
        for _ in range(2):
            status, body, _headers = fetch(url)
            self.assertEqual((status, sha256(body)), (200, sha256(content(20 * MIB))))
        other = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=500)
        self.assertEqual(self.assert_no_origin_get(lambda: fetch(other)[0]), 200)
        tampered = url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000").replace(key, key + "x")
        self.assertGreaterEqual(fetch(tampered)[0], 400)

    def test_metadata_and_headers_survive_a_hit(self):
        key = self.key()
        self.s3.put_object(
            Bucket=self.bucket, Key=key, Body=b"x", Metadata={"Colour": "blue green"},
            ContentType="text/plain", CacheControl="max-age=9", ContentDisposition='attachment; filename="a b"',
        )
        first, second = (self.s3.get_object(Bucket=self.bucket, Key=key) for _ in range(2))
        for name in ("ContentType", "ContentLength", "ETag", "LastModified", "Metadata"):
            self.assertEqual(first[name], second[name], name)
        self.assertEqual(second["Metadata"], {"colour": "blue green"})

    def test_a_wrong_secret_is_refused_for_what_is_not_cached(self):
        key = self.key()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")
        stranger = boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id="AKIANOBODY", aws_secret_access_key="wrong",
            config=Config(s3={"addressing_style": "path"}),
        )
        with self.assertRaises(ClientError) as caught:
            stranger.get_object(Bucket=self.bucket, Key=key)
        self.assertEqual(caught.exception.response["ResponseMetadata"]["HTTPStatusCode"], 403)
        self.assertEqual(self.read(key), b"x")

    def test_sixteen_threads_read_one_cold_object_right(self):
        key, data = self.key(), content(24 * MIB, 5)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        wanted, start = sha256(data), threading.Barrier(16)

        def read(_):
            start.wait()
            return sha256(self.read(key))

        before = self.servers.origin_gets()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            self.assertEqual(set(pool.map(read, range(16))), {wanted})
        self.assertLessEqual(self.servers.origin_gets() - before, 16)


if __name__ == "__main__":
    unittest.main()
