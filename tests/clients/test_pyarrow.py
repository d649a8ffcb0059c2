"""pyarrow's filesystem (AWS SDK for C++): aws-chunked uploads with trailers, many small ranges."""

import unittest

import pyarrow
import pyarrow.parquet
from pyarrow import fs

from servers import KIB, MIB, ClientTest, arrow_filesystem, content, sha256


class Pyarrow(ClientTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = arrow_filesystem(cls.door)

    def test_write_then_read_twice_and_the_second_is_a_hit(self):
        for length in (4 * KIB, 8 * MIB, 25 * MIB + 9):
            with self.subTest(length=length):
                key, data = self.key(f"{length}"), content(length, length)
                path = f"{self.bucket}/{key}"
                with self.s3.open_output_stream(path) as stream:
                    stream.write(data)
                self.assertEqual(self.origin_sha256(key), sha256(data))

                def read():
                    with self.s3.open_input_stream(path) as stream:
                        return stream.read()

                self.assertEqual(sha256(read()), sha256(data))
                self.assertEqual(sha256(self.assert_no_origin_get(read)), sha256(data))

    def test_random_reads_of_a_file(self):
        key, data = self.key(), content(10 * MIB)
        self.direct.put_object(Bucket=self.bucket, Key=key, Body=data)
        with self.s3.open_input_file(f"{self.bucket}/{key}") as file:
            self.assertEqual(file.size(), len(data))
            for step in range(40):
                first = step * 262_139
                self.assertEqual(file.read_at(5_000, first), data[first:first + 5_000])

    def test_a_parquet_table_comes_back(self):
        table = pyarrow.table({"number": list(range(50_000)), "word": [f"word {n % 97}" for n in range(50_000)]})
        path = f"{self.bucket}/{self.key('table.parquet')}"
        pyarrow.parquet.write_table(table, path, filesystem=self.s3, row_group_size=5_000)
        for _ in range(2):
            back = pyarrow.parquet.read_table(path, columns=["word"], filesystem=self.s3)
            self.assertTrue(back.equals(table.select(["word"])))

    def test_listing_and_deleting(self):
        prefix = f"{self.bucket}/{self.key('dir')}"
        for name in ("a", "b"):
            with self.s3.open_output_stream(f"{prefix}/{name}") as stream:
                stream.write(name.encode())
        found = self.s3.get_file_info(fs.FileSelector(prefix))
        self.assertEqual(sorted(info.base_name for info in found), ["a", "b"])
        self.s3.delete_file(f"{prefix}/a")
        self.assertEqual(self.s3.get_file_info(f"{prefix}/a").type, fs.FileType.NotFound)


if __name__ == "__main__":
    unittest.main()
