"""AWS CLI v1: cp, sync, ls and rm of real files."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from servers import KIB, MIB, ClientTest, content, sha256


class AwsCli(ClientTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="millrace-cli-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def aws(self, *arguments, check=True):
        command = [sys.executable, "-m", "awscli", "--endpoint-url", self.endpoint, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        if check:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def test_cp_up_and_down_twice(self):
        for length in (4 * KIB, 20 * MIB + 1):
            key = self.key(f"{length}")
            source = self.folder / "source"
            source.write_bytes(content(length, length))
            self.aws("s3", "cp", source, f"s3://{self.bucket}/{key}")
            self.assertEqual(self.origin_sha256(key), sha256(source.read_bytes()))
            sink = self.folder / "sink"
            self.aws("s3", "cp", f"s3://{self.bucket}/{key}", sink)
            self.assertEqual(sha256(sink.read_bytes()), sha256(source.read_bytes()))
            sink.unlink()
            self.assert_no_origin_get(lambda: self.aws("s3", "cp", f"s3://{self.bucket}/{key}", sink))
            self.assertEqual(sha256(sink.read_bytes()), sha256(source.read_bytes()))

    def test_sync_ls_and_rm(self):
        prefix = self.key("tree")
        tree = self.folder / "tree"
        for number in range(6):
            file = tree / f"dir {number % 2}" / f"file {number}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(number * 100_000 + number, number))
        where = f"s3://{self.bucket}/{prefix}"
        self.aws("s3", "sync", tree, where)
        back = self.folder / "back"
        self.aws("s3", "sync", where, back)
        for file in (path for path in tree.rglob("*") if path.is_file()):
            self.assertEqual(sha256((back / file.relative_to(tree)).read_bytes()), sha256(file.read_bytes()))
        listed = self.aws("s3", "ls", "--recursive", where).stdout
        self.assertEqual(len(listed.splitlines()), 6, listed)
        self.aws("s3", "rm", "--recursive", where)
        self.assertEqual(self.aws("s3", "ls", "--recursive", where, check=False).stdout, "")
        gone = self.aws("s3", "cp", f"{where}/dir 1/file 1.bin", self.folder / "gone", check=False)
        self.assertNotEqual(gone.returncode, 0, "a removed object is still served")

    def test_standard_input_and_output(self):
        key = self.key()
        command = [sys.executable, "-m", "awscli", "--endpoint-url", self.endpoint, "s3", "cp"]
        subprocess.run([*command, "-", f"s3://{self.bucket}/{key}"], input=content(9 * MIB), check=True, timeout=60)
        done = subprocess.run([*command, f"s3://{self.bucket}/{key}", "-"], capture_output=True, check=True, timeout=60)
        self.assertEqual(sha256(done.stdout), sha256(content(9 * MIB)))


if __name__ == "__main__":
    unittest.main()
