package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azb "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // az
	_ "gocloud.dev/blob/gcsblob"   // gs
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"surprisal/internal/place"
)

// cloud is a bucket of S3, Google Cloud Storage or Azure. Versions are etags, or
// generations for gs.
type cloud struct {
	root place.Place
	b    *blob.Bucket
	s3   *s3.Client // if it is an s3 bucket
	hint string     // how to provide credentials
}

// openCloud opens a gs or az bucket with the provider's usual credentials.
func openCloud(ctx context.Context, root place.Place) (bucket, error) {
	url, hint := "gs://"+root.Host, "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
	if root.Scheme == "az" {
		url, hint = "azblob://"+root.Host, "set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID, _SECRET and AZURE_TENANT_ID"
	}
	b, err := blob.OpenBucket(ctx, url)
	if err != nil {
		return nil, &Error{root.String(), "no credentials: " + hint, ErrDenied}
	}
	return &cloud{root: root, b: b, hint: hint}, nil
}

func (c *cloud) name(key string) string { return c.root.Join(key).String() }

func (c *cloud) stat(ctx context.Context, key string) (Info, error) {
	a, err := c.b.Attributes(ctx, key)
	if err != nil {
		return Info{}, c.error(key, err)
	}
	info := Info{Name: c.name(key), Size: a.Size, Version: a.ETag, Modified: a.ModTime}
	var gs storage.ObjectAttrs
	if a.As(&gs) {
		info.Version = strconv.FormatInt(gs.Generation, 10)
	}
	return info, nil
}

func (c *cloud) get(ctx context.Context, want Info, key string, off, n int64) (io.ReadCloser, error) {
	r, err := c.b.NewRangeReader(ctx, key, off, n, &blob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var in *s3.GetObjectInput
		var gs **storage.ObjectHandle
		var az *azblob.DownloadStreamOptions
		switch {
		case as(&in):
			in.IfMatch = aws.String(want.Version)
		case as(&gs):
			g, err := strconv.ParseInt(want.Version, 10, 64)
			if err != nil {
				return &Error{want.Name, "its version is not a generation", ErrChanged}
			}
			*gs = (*gs).If(storage.Conditions{GenerationMatch: g})
		case as(&az):
			az.AccessConditions = ifMatch(want.Version)
		}
		return nil
	}})
	if err != nil {
		return nil, c.error(key, err)
	}
	// Some S3-compatible servers ignore If-Match.
	var got s3.GetObjectOutput
	if r.As(&got) && aws.ToString(got.ETag) != want.Version || r.Size() != want.Size {
		_ = r.Close()
		return nil, changed(want, aws.ToString(got.ETag), r.Size())
	}
	return r, nil
}

func changed(want Info, version string, size int64) error {
	return &Error{want.Name, fmt.Sprintf("%s: it was %s, %d bytes, and is %s, %d bytes", ErrChanged, want.Version,
		want.Size, version, size), ErrChanged}
}

func ifMatch(version string) *azb.AccessConditions {
	tag := azcore.ETag(version)
	return &azb.AccessConditions{ModifiedAccessConditions: &azb.ModifiedAccessConditions{IfMatch: &tag}}
}

const pageSize = 1000

func (c *cloud) page(ctx context.Context, prefix, token string) ([]Info, string, error) {
	at := blob.FirstPageToken
	if token != "" {
		at = []byte(token)
	}
	objects, next, err := c.b.ListPage(ctx, at, pageSize, &blob.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, "", c.error(prefix, err)
	}
	infos := make([]Info, 0, len(objects))
	for _, o := range objects {
		if o.IsDir || o.Key == "" || o.Key[len(o.Key)-1] == '/' {
			continue // an empty file that represents a folder
		}
		info := Info{Name: c.name(o.Key), Size: o.Size, Modified: o.ModTime}
		var a types.Object
		var g storage.ObjectAttrs
		var z container.BlobItem
		switch {
		case o.As(&a):
			info.Version = aws.ToString(a.ETag)
		case o.As(&g):
			info.Version = strconv.FormatInt(g.Generation, 10)
		case o.As(&z) && z.Properties != nil && z.Properties.ETag != nil:
			// Listings omit the quotes.
			info.Version = strconv.Quote(string(*z.Properties.ETag))
		}
		infos = append(infos, info)
	}
	return infos, string(next), nil
}

func (c *cloud) put(ctx context.Context, key string, body io.ReadSeeker, size int64, when Condition) (Info, error) {
	if c.s3 != nil {
		return c.putS3(ctx, key, body, size, when)
	}
	opts := &blob.WriterOptions{ContentType: "application/octet-stream", IfNotExist: when.Absent,
		BeforeWrite: func(as func(any) bool) error {
			var gs **storage.ObjectHandle
			var az *azblob.UploadStreamOptions
			switch {
			case when.Version == "":
			case as(&gs):
				g, err := strconv.ParseInt(when.Version, 10, 64)
				if err != nil {
					return &Error{c.name(key), "its version is not a generation", ErrChanged}
				}
				*gs = (*gs).If(storage.Conditions{GenerationMatch: g})
			case as(&az):
				az.AccessConditions = ifMatch(when.Version)
			}
			return nil
		}}
	if err := c.b.Upload(ctx, key, body, opts); err != nil {
		return Info{}, c.error(key, err)
	}
	return c.stat(ctx, key)
}

func (c *cloud) remove(ctx context.Context, key string) error {
	return c.error(key, c.b.Delete(ctx, key))
}

// error classifies an SDK's error.
func (c *cloud) error(key string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	name := c.name(key)
	if key == "" {
		name = c.root.String()
	}
	if c.s3 != nil {
		return c.s3Error(name, err)
	}
	var g *googleapi.Error
	var z *azcore.ResponseError
	status, code, header := 0, "", http.Header(nil)
	switch {
	case c.b.ErrorAs(err, &g):
		status, header = g.Code, g.Header
	case c.b.ErrorAs(err, &z):
		status, code = z.StatusCode, z.ErrorCode
		if z.RawResponse != nil {
			header = z.RawResponse.Header
		}
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return &Error{name, "file or bucket not found: check the name", fs.ErrNotExist}
	case gcerrors.PermissionDenied:
		return &Error{name, "access denied: " + c.hint, ErrDenied}
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return &Error{name, "a different version exists", ErrChanged}
	}
	if status != 0 && status/100 != 2 { // 2xx: the body was truncated
		return statusError(name, status, code, header)
	}
	return networkError(err)
}
