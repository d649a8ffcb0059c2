"""One client of `test_ways`, in a process of its own: does what its standard input says, and answers each line by a line.

Lines are `put KEY FILE` and `get KEY`; the answer is the SHA-256 of what was sent or came. Arguments: the client (`awscli`, `boto3`,
`crt`), the region, the bucket, the endpoint (empty: the client's own), whether paths begin with the bucket (`path`, `virtual`). Proxies,
authorities and credentials are in the environment.
"""

import hashlib
import os
import sys
import tempfile


def sha256_of(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def awscli(region, bucket, endpoint, style):
    from awscli.clidriver import create_clidriver

    driver, folder = create_clidriver(), tempfile.mkdtemp(prefix="millrace-ways-")
    common = ["--region", region] + (["--endpoint-url", endpoint] if endpoint else [])

    def copy(source, target):
        code = driver.main([*common, "s3", "cp", "--only-show-errors", source, target])
        if code:
            raise SystemExit(code)

    def get(key):
        sink = os.path.join(folder, "sink")
        copy(f"s3://{bucket}/{key}", sink)
        digest = sha256_of(sink)
        os.unlink(sink)
        return digest

    return lambda key, file: copy(file, f"s3://{bucket}/{key}"), get


def boto3(region, bucket, endpoint, style):
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": style}, retries={"max_attempts": 1})
    client = boto3.client("s3", region_name=region, endpoint_url=endpoint or None, config=config)

    def get(key):
        return hashlib.sha256(client.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()

    return lambda key, file: client.upload_file(file, bucket, key), get


def crt(region, bucket, endpoint, style):
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

    client = MountpointS3Client(
        region=region, endpoint=endpoint or None, force_path_style=style == "path", max_attempts=2
    )

    def put(key, file):
        stream = client.put_object(bucket, key)
        with open(file, "rb") as content:
            stream.write(content.read())
        stream.close()

    return put, lambda key: hashlib.sha256(b"".join(client.get_object(bucket, key))).hexdigest()


put, get = {"awscli": awscli, "boto3": boto3, "crt": crt}[sys.argv[1]](*sys.argv[2:])
for line in sys.stdin:
    match line.split():
        case ["put", key, file]:
            put(key, file)
            print(sha256_of(file), flush=True)
        case ["get", key]:
            print(get(key), flush=True)
# Threads of the CRT need no farewell, and it can take its time over one.
os._exit(0)
