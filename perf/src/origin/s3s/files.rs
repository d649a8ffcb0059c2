//! `s3s-fs` with one change: bodies are read in large pieces.
//!
//! Called by the S3 service in place of `s3s_fs::FileSystem`. That crate reads a body 4 KiB at a time, each through a
//! hop to a blocking thread, which holds one client at some 0.1 GiB/s and would make any proxy look good. Everything
//! else is passed to it unchanged. Invariant: its own answer decides; only the stream behind it is exchanged, and
//! only if the file still has the length that the answer tells.

use std::io::SeekFrom;
use std::path::{Component, Path, PathBuf};

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput,
    StreamingBlob, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

const PIECE_BYTES: usize = 1 << 20;

/// The folder as an S3 store.
#[derive(Debug)]
pub struct Files {
    inner: s3s_fs::FileSystem,
    root: PathBuf,
}

impl Files {
    /// The store on this folder.
    pub fn new(root: &Path) -> Result<Files, s3s_fs::Error> {
        Ok(Files {
            inner: s3s_fs::FileSystem::new(root)?,
            root: root.to_path_buf(),
        })
    }

    /// The body of an answer, from the file itself; `None` leaves the answer's own.
    async fn body(
        &self,
        bucket: &str,
        key: &str,
        output: &GetObjectOutput,
    ) -> Option<StreamingBlob> {
        let plain = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        };
        let path = Path::new(bucket).join(key);
        if !plain(&path) {
            return None;
        }
        let length = u64::try_from(output.content_length?).ok()?;
        let (start, total) = match &output.content_range {
            None => (0, length),
            Some(range) => start_and_total(range)?,
        };
        let mut file = File::open(self.root.join(path)).await.ok()?;
        if file.metadata().await.ok()?.len() != total {
            return None;
        }
        file.set_max_buf_size(PIECE_BYTES);
        file.seek(SeekFrom::Start(start)).await.ok()?;
        Some(StreamingBlob::wrap(ReaderStream::with_capacity(
            file.take(length),
            PIECE_BYTES,
        )))
    }
}

/// Reads `bytes 0-9/100`.
fn start_and_total(range: &str) -> Option<(u64, u64)> {
    let (window, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((window.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Passes operations on.
macro_rules! pass {
    ($($operation:ident: $input:ty => $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Files {
            $(async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.inner.$operation(request).await
            })*

            async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let mut response = self.inner.get_object(request).await?;
                if let Some(body) = self.body(&bucket, &key, &response.output).await {
                    response.output.body = Some(body);
                }
                Ok(response)
            }
        }
    };
}

pass! {
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput;
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
    copy_object: CopyObjectInput => CopyObjectOutput;
    create_bucket: CreateBucketInput => CreateBucketOutput;
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
    delete_bucket: DeleteBucketInput => DeleteBucketOutput;
    delete_object: DeleteObjectInput => DeleteObjectOutput;
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput;
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput;
    head_bucket: HeadBucketInput => HeadBucketOutput;
    head_object: HeadObjectInput => HeadObjectOutput;
    list_buckets: ListBucketsInput => ListBucketsOutput;
    list_objects: ListObjectsInput => ListObjectsOutput;
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output;
    list_parts: ListPartsInput => ListPartsOutput;
    put_object: PutObjectInput => PutObjectOutput;
    upload_part: UploadPartInput => UploadPartOutput;
    upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_read() {
        assert_eq!(start_and_total("bytes 5-9/100"), Some((5, 100)));
        assert_eq!(start_and_total("bytes */100"), None);
    }
}
