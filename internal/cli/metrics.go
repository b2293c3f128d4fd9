package cli

import (
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"surprisal/internal/metrics"
	"surprisal/internal/usage"
)

// Metrics is what the flags say of how a process can be watched.
type Metrics struct {
	Addr  string
	Pprof bool
}

// Flags adds the flags.
func (m *Metrics) Flags(f *pflag.FlagSet) {
	f.StringVar(&m.Addr, "metrics-addr", "",
		"serve /metrics, /healthz and /readyz at host:port, or at :port for this machine alone (default: not served)")
	f.BoolVar(&m.Pprof, "pprof", false, "serve /debug/pprof there too")
}

// Serve serves the set until stop, where an address is given; ready gives reasons
// why the process is not ready.
func (m *Metrics) Serve(set *metrics.Set, ready func() []string, log zerolog.Logger) (stop func() error, err error) {
	if m.Addr == "" {
		if m.Pprof {
			return nil, usage.Errorf("--pprof needs --metrics-addr")
		}
		return func() error { return nil }, nil
	}
	server, err := metrics.Serve(set, metrics.ServerConfig{Address: m.Addr, Pprof: m.Pprof, Ready: ready})
	if err != nil {
		return nil, &usage.Error{Err: err}
	}
	log.Info().Str("addr", server.Addr()).Msg("serving metrics")
	return server.Close, nil
}
