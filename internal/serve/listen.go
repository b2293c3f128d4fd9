package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// shutdownWithin is how long requests may take to end once serving ends.
const shutdownWithin = 10 * time.Second

// Listen serves h on the listener while run runs, until drain ends; requests are cut
// off when abort does.
func Listen(drain, abort context.Context, l net.Listener, h http.Handler, log zerolog.Logger,
	run func(context.Context) error,
) error {
	g, ctx := errgroup.WithContext(drain)
	srv := HTTP(h)
	srv.BaseContext = func(net.Listener) context.Context { return ctx } // streams end with it
	srv.ErrorLog = nil
	g.Go(func() error { return run(ctx) })
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(abort, shutdownWithin)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			log.Warn().Err(err).Msg("closing the remaining requests")
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// ShownURLs are a server's URLs without user info, for people to see.
func ShownURLs(urls []string) string {
	shown := make([]string, 0, len(urls))
	for _, u := range urls {
		scheme, rest, found := strings.Cut(strings.TrimSpace(u), "://")
		if !found {
			scheme, rest = "nats", scheme
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = rest[i+1:]
		}
		shown = append(shown, scheme+"://"+rest)
	}
	return cmp.Or(strings.Join(shown, ", "), "NATS")
}
