package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
)

const (
	// partBytes is the size of a part, and of the largest file uploaded in one request.
	partBytes = 64 << 20
	// maxParts is S3's limit; larger files have larger parts.
	maxParts = 10_000
	// partsAtOnce limits the concurrent requests of an upload. Parts are read from the file
	// as they are sent.
	partsAtOnce = 4
	// abortFor limits the cleanup after a failed upload.
	abortFor = 30 * time.Second
)

// errUploadGone means that the server does not know the upload (any more).
var errUploadGone = errors.New("the upload no longer exists")

// putParts is Put in parts, for files too large for one request. The file appears when the
// upload is completed, and the condition applies to that step. A failed upload is aborted,
// even if ctx has ended. If its process was killed, the next attempt at the file aborts it.
func (c *cloud) putParts(ctx context.Context, key string, body io.ReaderAt, size int64, when Condition) (_ Info,
	err error) {
	if when.Absent { // rather now than after all parts
		if info, err := c.statRetry(ctx, key); err == nil {
			return Info{}, &Error{info.Name, ErrChanged.Error(), ErrChanged}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return Info{}, err
		}
	}
	id, err := c.beginParts(ctx, key)
	if err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			if aerr := c.abort(ctx, key, id); aerr != nil {
				err = fmt.Errorf("%w (the incomplete upload could not be aborted: %s)", err, oneLine(aerr))
			}
		}
	}()
	part := max(partBytes, (size+maxParts-1)/maxParts)
	parts := make([]types.CompletedPart, (size+part-1)/part)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i := range parts {
		g.Go(func() (err error) {
			off := int64(i) * part
			parts[i], err = c.putPart(gctx, key, id, int32(i+1), io.NewSectionReader(body, off, min(part, size-off)))
			return err
		})
	}
	var info Info
	if err = g.Wait(); err == nil {
		info, err = c.completeParts(ctx, key, id, parts, when)
	}
	if errors.Is(err, errUploadGone) { // an answer was lost, or another attempt at the same file has brought it
		if _, serr := c.statRetry(ctx, key); serr == nil {
			err = &Error{c.name(key), ErrChanged.Error(), ErrChanged}
		}
	}
	if err != nil {
		return Info{}, err
	}
	info.Size = size
	c.abortOthers(ctx, key)
	return info, nil
}

func (c *cloud) statRetry(ctx context.Context, key string) (Info, error) {
	return stat(ctx, c, c.root.Join(key))
}

func (c *cloud) beginParts(ctx context.Context, key string) (id string, err error) {
	err = retry(ctx, c.name(key), func() (bool, error) {
		out, err := c.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: aws.String(c.root.Host), Key: aws.String(key), ContentType: aws.String("application/octet-stream"),
		})
		if err != nil {
			return false, c.error(key, err)
		}
		id = aws.ToString(out.UploadId)
		return false, nil
	})
	return id, err
}

func (c *cloud) putPart(ctx context.Context, key, id string, number int32,
	body *io.SectionReader) (part types.CompletedPart, err error) {
	err = retry(ctx, c.name(key), func() (bool, error) {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		out, err := c.s3.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: aws.String(c.root.Host), Key: aws.String(key), UploadId: aws.String(id),
			PartNumber: aws.Int32(number),
			Body:       body, ContentLength: aws.Int64(body.Size()),
		})
		if err != nil {
			return false, c.uploadError(key, err)
		}
		part = types.CompletedPart{
			PartNumber: aws.Int32(number), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32,
			ChecksumCRC32C:    out.ChecksumCRC32C,
			ChecksumCRC64NVME: out.ChecksumCRC64NVME, ChecksumSHA1: out.ChecksumSHA1,
			ChecksumSHA256: out.ChecksumSHA256,
		}
		return false, nil
	})
	return part, err
}

func (c *cloud) completeParts(ctx context.Context, key, id string, parts []types.CompletedPart,
	when Condition) (info Info, err error) {
	in := &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(c.root.Host), Key: aws.String(key), UploadId: aws.String(id),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}
	if when.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	if when.Version != "" {
		in.IfMatch = aws.String(when.Version)
	}
	err = retry(ctx, c.name(key), func() (bool, error) {
		out, err := c.s3.CompleteMultipartUpload(ctx, in)
		if err != nil {
			return false, c.uploadError(key, err)
		}
		info = Info{Name: c.name(key), Version: aws.ToString(out.ETag)}
		return false, nil
	})
	return info, err
}

// uploadError is error, plus errUploadGone.
func (c *cloud) uploadError(key string, err error) error {
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "NoSuchUpload" {
		return &Error{c.name(key), errUploadGone.Error(), errUploadGone}
	}
	return c.error(key, err)
}

// abort aborts an upload, even if ctx has ended.
func (c *cloud) abort(ctx context.Context, key, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortFor)
	defer cancel()
	return retry(ctx, c.name(key), func() (bool, error) {
		_, err := c.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
			Bucket: aws.String(c.root.Host), Key: aws.String(key), UploadId: aws.String(id),
		})
		if err == nil {
			return false, nil
		}
		if err = c.uploadError(key, err); errors.Is(err, errUploadGone) {
			return false, nil
		}
		return false, err
	})
}

// abortOthers aborts all uploads of a file that exists: of attempts that were killed,
// whose answer was lost, or that write the same bytes. If that is not allowed or fails,
// they stay, invisible in file listings.
func (c *cloud) abortOthers(ctx context.Context, key string) {
	var ids []string
	in := &s3.ListMultipartUploadsInput{Bucket: aws.String(c.root.Host), Prefix: aws.String(key)}
	for {
		var out *s3.ListMultipartUploadsOutput
		err := retry(ctx, c.name(key), func() (_ bool, err error) {
			if out, err = c.s3.ListMultipartUploads(ctx, in); err != nil {
				err = c.error(key, err)
			}
			return false, err
		})
		if err != nil {
			return
		}
		for _, u := range out.Uploads {
			if id := aws.ToString(u.UploadId); aws.ToString(u.Key) == key && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) == aws.ToString(in.KeyMarker) &&
			aws.ToString(out.NextUploadIdMarker) == aws.ToString(in.UploadIdMarker) {
			break
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
	for _, id := range ids {
		_ = c.abort(ctx, key, id) // it stays, as above
	}
}
