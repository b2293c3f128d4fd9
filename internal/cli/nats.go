package cli

import (
	"os"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/usage"
)

// NATS is what the flags say of how to reach the server. Secrets come from the
// environment or from files, since everyone on the machine sees a command line.
type NATS struct {
	URL   string
	flags conn.Config
}

// Flags adds the flags.
func (n *NATS) Flags(f *pflag.FlagSet) {
	f.StringVar(&n.URL, "nats", "", "URL of the NATS server, or several, comma-separated (nats://host:4222)")
	for _, s := range n.flags.Settings() {
		if s.Name != "" {
			f.StringVar(s.Value, s.Name, "", s.Usage)
		}
	}
}

// ErrNoNATS says how to name a server.
var ErrNoNATS = usage.Errorf("no NATS server given: use --nats URL or set SURPRISAL_NATS_URL")

// Config is what flags and environment say together; name is the connection's.
func (n *NATS) Config(name string, log zerolog.Logger) (conn.Config, error) {
	cfg := conn.FromEnv(os.Getenv)
	if n.URL != "" {
		cfg.URLs = strings.Split(n.URL, ",")
	}
	if len(cfg.URLs) == 0 {
		return cfg, ErrNoNATS
	}
	to := cfg.Settings()
	for i, s := range n.flags.Settings() {
		if *s.Value != "" {
			*to[i].Value = *s.Value
		}
	}
	cfg.Name, cfg.Log = name, log
	return cfg, nil
}
