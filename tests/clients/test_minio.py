"""minio-py: plain GETs, Content-MD5, its own way to sign."""

import io
import unittest

from minio import Minio
from minio.error import S3Error

from servers import ACCESS_KEY, KIB, MIB, REGION, SECRET_KEY, ClientTest, content, sha256


class MinioPy(ClientTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = Minio(cls.door, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region=REGION)

    def read(self, key, **more):
        answer = self.s3.get_object(bucket_name=self.bucket, object_name=key, **more)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def put(self, key, data):
        self.s3.put_object(
            bucket_name=self.bucket, object_name=key, data=io.BytesIO(data), length=len(data), part_size=8 * MIB
        )

    def test_put_then_get_twice_and_the_second_is_a_hit(self):
        for length in (1, 4 * KIB, 8 * MIB, 21 * MIB):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                self.put(key, data)
                self.assertEqual(self.origin_sha256(key), sha256(data))
                self.assertEqual(sha256(self.read(key)), sha256(data))
                self.assertEqual(sha256(self.assert_no_origin_get(lambda: self.read(key))), sha256(data))

    def test_ranges_stat_list_and_remove(self):
        key, data = self.key(), content(12 * MIB)
        self.put(key, data)
        for offset, length in ((0, 10), (8 * MIB - 5, 10), (MIB, 9 * MIB)):
            for _ in range(2):
                part = self.read(key, offset=offset, length=length)
                self.assertEqual(sha256(part), sha256(data[offset:offset + length]))
        self.assertEqual(self.s3.stat_object(bucket_name=self.bucket, object_name=key).size, len(data))
        listed = self.s3.list_objects(bucket_name=self.bucket, prefix=key)
        self.assertEqual([item.object_name for item in listed], [key])
        self.s3.remove_object(bucket_name=self.bucket, object_name=key)
        with self.assertRaises(S3Error):
            self.read(key)


if __name__ == "__main__":
    unittest.main()
