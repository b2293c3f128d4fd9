package place

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxBytes bounds a path or a URL.
const maxBytes = 4096

// Place is where a file or a folder is: an absolute local path, or a URL of a
// bucket, of a web server or of the Hugging Face hub. A URL's path is taken as
// it is written: nothing in it is percent-decoded.
type Place struct {
	Scheme string // empty for a local path; else s3, gs, az, https or hf
	Host   string // bucket, container or host; for hf the repository: datasets/OWNER/NAME or OWNER/NAME
	Rev    string // of hf: a branch, a tag or a commit; empty for main
	Key    string // within the host, without leading slash; the whole path for a local one
	Query  string // of s3, sorted: anonymous, endpoint, region, use_path_style
}

// schemes lists what places of each scheme can be.
var schemes = map[string]struct{ input, out, model bool }{
	"":      {true, true, true},
	"s3":    {true, true, false},
	"gs":    {true, true, false},
	"az":    {true, true, false},
	"https": {true, false, false},
	"hf":    {true, false, true},
}

var (
	schemePrefix = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://`)
	bucketName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,221}$`)
	webHost      = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	hubName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$`)
	hubRev       = regexp.MustCompile(`^(refs/(convert|pr)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hubSpecial   = regexp.MustCompile(`^(refs/(?:convert|pr)/[^/]+)(?:/(.*))?$`)
	s3Query      = regexp.MustCompile(`\?(?:anonymous|endpoint|region|use_path_style)=[^?#]*$`)
	anyQuery     = regexp.MustCompile(`\?[A-Za-z0-9_.-]+=`)
	s3Region     = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
)

// IsURL reports whether s is a URL rather than a path.
func IsURL(s string) bool { return schemePrefix.MatchString(s) }

// Parse parses a place from a manifest or a job message, which may be hostile. Its error
// contains no part of a URL that may be secret.
func Parse(s string) (Place, error) {
	p, err := ParseArg(s)
	if err != nil {
		return p, err
	}
	if strings.ContainsAny(p.Key, "?#") && p.Scheme != "" {
		return p, errQuery(p.redacted())
	}
	return p, nil
}

func errQuery(place string) error {
	return fmt.Errorf("%s has a query or a fragment: only s3 URLs may have a query, "+
		"with endpoint, region, use_path_style and anonymous; "+
		"signed URLs are refused, because manifests would contain the signature", place)
}

// ParseArg is Parse for a person's argument, whose path may be a glob.
func ParseArg(s string) (Place, error) {
	if len(s) > maxBytes {
		return Place{}, fmt.Errorf("path or URL of %d bytes: at most %d are allowed", len(s), maxBytes)
	}
	m := schemePrefix.FindStringSubmatch(s)
	if m == nil {
		if s == "" || !path.IsAbs(s) || strings.ContainsRune(s, 0) {
			return Place{}, fmt.Errorf("path %q is not absolute", s)
		}
		return Place{Key: s}, nil
	}
	p := Place{Scheme: strings.ToLower(m[1])}
	rest := s[len(m[0]):]
	if _, known := schemes[p.Scheme]; !known {
		return Place{}, fmt.Errorf("unsupported URL scheme %q: paths, s3, gs, az, https and hf are supported", m[1])
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || strings.ContainsRune(s, '\\') {
		return Place{}, fmt.Errorf("%s URL with control characters or backslashes, or not UTF-8", p.Scheme)
	}
	if p.Scheme == "s3" {
		if i := s3Query.FindStringIndex(rest); i != nil {
			var err error
			if p.Query, err = cleanS3Query(rest[i[0]+1:]); err != nil {
				return Place{}, err
			}
			rest = rest[:i[0]]
		}
	}
	// A ? is a wildcard of a glob; what looks like a query is one.
	if i := anyQuery.FindStringIndex(rest); i != nil || p.Scheme == "https" && strings.ContainsAny(rest, "?#") {
		rest = rest[:strings.IndexAny(rest, "?#")]
		return Place{}, errQuery(p.Scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:])
	}
	var err error
	if p.Scheme == "hf" {
		err = p.splitHub(rest)
	} else {
		err = p.splitHost(rest)
	}
	if err != nil {
		return Place{}, err
	}
	return p, p.checkKey()
}

func (p *Place) splitHost(rest string) error {
	host, key, _ := strings.Cut(rest, "/")
	valid := bucketName
	if p.Scheme == "https" {
		valid = webHost
	}
	if strings.Contains(host, "@") {
		return fmt.Errorf("%s URL with user info before the host: give credentials in the environment", p.Scheme)
	}
	if !valid.MatchString(host) {
		return fmt.Errorf("%s URL with an invalid bucket or host name %q", p.Scheme, host)
	}
	p.Host, p.Key = host, key
	return nil
}

// splitHub reads [datasets/]OWNER/NAME[@REV][/path].
func (p *Place) splitHub(rest string) error {
	prefix := ""
	for _, kind := range []string{"datasets/", "models/"} {
		if r, ok := strings.CutPrefix(rest, kind); ok {
			if rest = r; kind == "datasets/" {
				prefix = kind
			}
			break
		}
	}
	const form = "hf URLs are hf://datasets/OWNER/NAME[@REV]/path and, for a model, hf://OWNER/NAME[@REV]/path"
	owner, rest, ok := strings.Cut(rest, "/")
	if !ok || !hubName.MatchString(owner) {
		return errors.New(form)
	}
	name, key, _ := strings.Cut(rest, "/")
	if n, rev, at := strings.Cut(name, "@"); at {
		name, p.Rev = n, rev
		if m := hubSpecial.FindStringSubmatch(strings.TrimSuffix(rev+"/"+key, "/")); m != nil {
			p.Rev, key = m[1], m[2]
		}
		if !hubRev.MatchString(p.Rev) {
			return errors.New(form)
		}
	}
	if !hubName.MatchString(name) {
		return errors.New(form)
	}
	p.Host, p.Key = prefix+owner+"/"+name, key
	return nil
}

// checkKey refuses keys that stores and file systems read differently.
func (p *Place) checkKey() error {
	p.Key = strings.TrimSuffix(p.Key, "/")
	if p.Key == "" {
		return nil
	}
	for part := range strings.SplitSeq(p.Key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%s has an empty part, . or .. in its path", p.redacted())
		}
	}
	return nil
}

func cleanS3Query(q string) (string, error) {
	const form = "the query of an s3 URL may set endpoint (http[s]://host[:port]), region, " +
		"use_path_style and anonymous (true or false)"
	v, err := url.ParseQuery(q)
	if err != nil {
		return "", errors.New(form)
	}
	for key, values := range v {
		ok := len(values) == 1
		if ok {
			switch x := values[0]; key {
			case "region":
				ok = s3Region.MatchString(x)
			case "use_path_style", "anonymous":
				ok = x == "true" || x == "false"
			case "endpoint":
				u, err := url.Parse(x)
				ok = err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil &&
					webHost.MatchString(u.Host) &&
					u.RawQuery == "" && u.Fragment == "" && (u.Path == "" || u.Path == "/")
			default:
				ok = false
			}
		}
		if !ok {
			return "", errors.New(form)
		}
	}
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		keys[i] = k + "=" + strings.TrimSuffix(v.Get(k), "/")
	}
	return strings.Join(keys, "&"), nil
}

// redacted is the place without parts that may be secret, for errors.
func (p Place) redacted() string {
	if i := strings.IndexAny(p.Key, "?#"); i >= 0 && p.Scheme != "" {
		p.Key = p.Key[:i]
	}
	return p.String()
}

// Root is the place without its key: a bucket, a host, a repository.
func (p Place) Root() Place {
	p.Key = ""
	return p
}

// String formats the place.
func (p Place) String() string {
	if p.Scheme == "" {
		return p.Key
	}
	s := p.Scheme + "://" + p.Host
	if p.Rev != "" {
		s += "@" + p.Rev
	}
	if p.Key != "" {
		s += "/" + p.Key
	}
	if p.Query != "" {
		s += "?" + p.Query
	}
	return s
}

// Join gives the place of name, a clean relative path, below p.
func (p Place) Join(name string) Place {
	if p.Scheme == "" {
		p.Key = path.Join(p.Key, name)
	} else if p.Key = strings.TrimSuffix(p.Key, "/"); p.Key == "" {
		p.Key = name
	} else {
		p.Key += "/" + name
	}
	return p
}

// Within reports whether p is dir or below it, in the same store, reached in the same
// way. Links are not resolved.
func (p Place) Within(dir Place) bool {
	same := p.Scheme == dir.Scheme && p.Host == dir.Host && p.Query == dir.Query && (dir.Rev == "" || p.Rev == dir.Rev)
	if p.Scheme == "" {
		p.Key, dir.Key = path.Clean(p.Key), strings.TrimSuffix(path.Clean(dir.Key), "/")
	}
	return same && (p.Key == dir.Key || dir.Key == "" || strings.HasPrefix(p.Key, dir.Key+"/"))
}

func validPlace(s, what string, allowed func(p Place) bool) error {
	p, err := Parse(s)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !allowed(p) {
		return fmt.Errorf("%s: not possible with a %s URL", what, p.Scheme)
	}
	return nil
}

// ValidInput reports whether s can be the place of an input file.
func ValidInput(s string) error {
	return validPlace(s, "input", func(p Place) bool { return schemes[p.Scheme].input && p.Key != "" })
}

// ValidInputURL reports whether inputs can be given by a URL of p's scheme.
func ValidInputURL(p Place) error {
	if !schemes[p.Scheme].input {
		return fmt.Errorf("%s: not possible with a %s URL", p, p.Scheme)
	}
	return nil
}

// ValidOut reports whether s can be the place of an output folder.
func ValidOut(s string) error {
	return validPlace(s, "output folder", func(p Place) bool { return schemes[p.Scheme].out })
}

// ValidModelDir reports whether s can be the place of a model folder.
func ValidModelDir(s string) error {
	return validPlace(s, "model", func(p Place) bool { return schemes[p.Scheme].model })
}
