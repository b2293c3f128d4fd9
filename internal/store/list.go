package store

import (
	"context"
	"iter"
)

// Stat describes one file that is not local.
func Stat(ctx context.Context, name string) (Info, error) {
	p, b, err := at(ctx, name)
	if err != nil {
		return Info{}, err
	}
	return stat(ctx, b, p)
}

// List gives the files at any depth below the URL dir, sorted by name. It ends at the
// first error. An empty folder is not an error.
func List(ctx context.Context, dir string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		p, b, err := at(ctx, dir)
		if err != nil {
			yield(Info{}, err)
			return
		}
		prefix := p.Key
		if prefix != "" {
			prefix += "/"
		}
		for token := ""; ; {
			var infos []Info
			var next string
			err := retry(ctx, dir, func() (_ bool, err error) {
				infos, next, err = b.page(ctx, prefix, token)
				return false, err
			})
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, info := range infos {
				if !yield(info, nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}
