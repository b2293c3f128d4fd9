package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob/s3blob"

	"surprisal/internal/place"
)

const s3Hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; " +
	"for a public bucket end the URL with ?anonymous=true"

// openS3 opens a bucket of S3 or of a compatible server. The URL's query takes precedence
// over AWS_ENDPOINT_URL, AWS_REGION and the rest of the SDK's environment.
func openS3(ctx context.Context, root place.Place) (bucket, error) {
	q, err := url.ParseQuery(root.Query)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(tune)),
		// One attempt per call; retry decides about more.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		return nil, &Error{root.String(), "invalid AWS settings: " + oneLine(err), nil}
	}
	if q.Get("anonymous") == "true" {
		cfg.Credentials = aws.AnonymousCredentials{}
	}
	if r := q.Get("region"); r != "" {
		cfg.Region = r
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if e := q.Get("endpoint"); e != "" {
			o.BaseEndpoint = aws.String(e)
		}
		if o.Region == "" {
			o.Region = "us-east-1"
		}
		style := q.Get("use_path_style")
		if style == "" {
			style = os.Getenv("AWS_S3_USE_PATH_STYLE")
		}
		var serr error
		if o.UsePathStyle, serr = strconv.ParseBool(style); serr != nil {
			o.UsePathStyle = o.BaseEndpoint != nil // servers of one's own have no host for each bucket
		}
		if o.BaseEndpoint != nil {
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	b, err := s3blob.OpenBucket(ctx, client, root.Host, nil)
	if err != nil {
		return nil, &Error{root.String(), oneLine(err), nil}
	}
	return &cloud{root: root, b: b, s3: client, hint: s3Hint}, nil
}

// putS3 makes a single PUT, so that no part of a file is left to clean up.
func (c *cloud) putS3(ctx context.Context, key string, body io.ReadSeeker, size int64, when Condition) (Info, error) {
	in := &s3.PutObjectInput{
		Bucket: aws.String(c.root.Host), Key: aws.String(key), Body: body, ContentLength: aws.Int64(size),
		ContentType: aws.String("application/octet-stream"),
	}
	if when.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	if when.Version != "" {
		in.IfMatch = aws.String(when.Version)
	}
	out, err := c.s3.PutObject(ctx, in)
	if err != nil {
		return Info{}, c.error(key, err)
	}
	return Info{Name: c.name(key), Size: size, Version: aws.ToString(out.ETag)}, nil
}

// s3Error classifies the SDK's error.
func (c *cloud) s3Error(name string, err error) error {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var resp *awshttp.ResponseError
	status, header := 0, http.Header(nil)
	if errors.As(err, &resp) {
		status = resp.HTTPStatusCode()
		if resp.Response != nil {
			header = resp.Response.Header
		}
	}
	region := ""
	if header != nil {
		region = header.Get("X-Amz-Bucket-Region")
	}
	switch {
	case code == "NoSuchBucket":
		return &Error{name, "bucket " + c.root.Host +
			" not found: check the name, and AWS_ENDPOINT_URL if the server is not Amazon's", fs.ErrNotExist}
	case code == "SlowDown" || code == "RequestTimeout" || code == "RequestTimeTooSkewed" && status >= 500:
		return &transient{err: fmt.Errorf("%s (HTTP %d)", code, status), after: retryAfter(header, time.Now())}
	case status == http.StatusMovedPermanently || code == "AuthorizationHeaderMalformed" ||
		code == "PermanentRedirect" ||
		code == "IllegalLocationConstraintException":
		if region == "" {
			region = "its region"
		}
		return &Error{name, "the bucket is in another region: set AWS_REGION to " + region +
			", or end the URL with ?region=" + region, nil}
	case code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch" || code == "ExpiredToken" ||
		code == "InvalidToken":
		return &Error{name, "credentials rejected (" + code + "): " + s3Hint, ErrDenied}
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return &Error{name, fmt.Sprintf("access denied (HTTP %d): check the bucket's name and the credentials "+
			"(AWS_ACCESS_KEY_ID, AWS_PROFILE), which need s3:GetObject, s3:ListBucket and, for --out, s3:PutObject",
			status), ErrDenied}
	case code == "PreconditionFailed" || status == http.StatusPreconditionFailed:
		return &Error{name, ErrChanged.Error(), ErrChanged}
	case code == "ConditionalRequestConflict" || status == http.StatusConflict:
		return &transient{err: fmt.Errorf("%s (HTTP %d)", code, status)}
	case status/100 == 2: // the answer's body was cut short
		return networkError(err)
	case status != 0:
		return statusError(name, status, code, header)
	}
	if isNoCredentials(err) {
		return &Error{name, "no credentials: " + s3Hint, ErrDenied}
	}
	return networkError(err)
}
