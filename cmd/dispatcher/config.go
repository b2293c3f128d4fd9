package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/term"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
)

// loadConfig sets the flags that the command line did not, from the environment
// first, then from the config file.
func loadConfig(cmd *cobra.Command) error {
	v := viper.New()
	v.SetEnvPrefix("surprisal")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return err
	}
	if file == "" {
		file = os.Getenv("SURPRISAL_CONFIG")
	}
	explicit := file != ""
	if !explicit {
		file = "surprisal.yaml"
	}
	if _, err := os.Stat(file); err == nil || explicit {
		v.SetConfigFile(file)
		if err := v.ReadInConfig(); err != nil {
			return flagError{fmt.Errorf("config file %s: %w", file, err)}
		}
		known := map[string]bool{}
		for _, c := range append(cmd.Root().Commands(), cmd.Root()) {
			c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
			c.PersistentFlags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
		for _, k := range v.AllKeys() {
			if !known[k] {
				return flagError{fmt.Errorf("config file %s: there is no flag %q", file, k)}
			}
		}
	}
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || first != nil || f.Name == "help" || f.Name == "version" || !v.IsSet(f.Name) {
			return
		}
		value := v.GetString(f.Name)
		if list := v.GetStringSlice(f.Name); strings.HasSuffix(f.Value.Type(), "Slice") {
			value = strings.Join(list, ",")
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			first = flagError{fmt.Errorf("%s (from the environment or the config file): %w", f.Name, err)}
		}
	})
	return first
}

// logger writes to w what the log flags ask for.
func logger(cmd *cobra.Command, w *os.File, out io.Writer, quiet bool) (zerolog.Logger, string, zerolog.Level, error) {
	format, _ := cmd.Flags().GetString("log-format") // the flag is there: newRoot made it
	levelName, _ := cmd.Flags().GetString("log-level")
	if format == "auto" {
		if format = "json"; term.IsTerminal(int(w.Fd())) {
			format = "console"
		}
	}
	level := zerolog.InfoLevel
	if quiet {
		level = zerolog.WarnLevel
	}
	if levelName != "" {
		var err error
		if level, err = zerolog.ParseLevel(levelName); err != nil {
			return zerolog.Logger{}, "", 0, flagError{fmt.Errorf("--log-level %q is not one of debug, info, warn, error", levelName)}
		}
	}
	switch format {
	case "json":
	case "console":
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly, NoColor: !term.IsTerminal(int(w.Fd()))}
	default:
		return zerolog.Logger{}, "", 0, flagError{fmt.Errorf("--log-format %q is not one of auto, console, json", format)}
	}
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), format, level, nil
}

// natsFlags adds what reaches NATS. Secrets come from the environment or files,
// since a command line is seen by everyone.
func natsFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("nats", "", "URL of the NATS server, or several, comma-separated (nats://host:4222)")
	for _, s := range new(conn.Config).Settings() {
		if s.Name != "" {
			f.String(s.Name, "", s.Usage)
		}
	}
}

// errNoNATS says how to name a server.
var errNoNATS = errors.New("no NATS server is named: give --nats URL or set SURPRISAL_NATS_URL")

// onQueue is the connection and the quiet log of a command that looks at the queue
// or changes it; the caller closes the connection.
func onQueue(cmd *cobra.Command) (*jobs.Client, zerolog.Logger, error) {
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return nil, log, err
	}
	client, err := connect(cmd, log)
	return client, log, err
}

// connect reaches the NATS server that flags and environment name: token and
// password only from a file, or SURPRISAL_NATS_TOKEN and _PASSWORD.
func connect(cmd *cobra.Command, log zerolog.Logger) (*jobs.Client, error) {
	cfg, err := natsConfig(cmd, log)
	if err != nil {
		return nil, err
	}
	return jobs.Connect(cmd.Context(), cfg)
}

func natsConfig(cmd *cobra.Command, log zerolog.Logger) (conn.Config, error) {
	cfg := conn.FromEnv(os.Getenv)
	get := func(name string) string { s, _ := cmd.Flags().GetString(name); return s }
	if u := get("nats"); u != "" {
		cfg.URLs = strings.Split(u, ",")
	}
	if len(cfg.URLs) == 0 {
		return cfg, flagError{errNoNATS}
	}
	for _, s := range cfg.Settings() {
		if v := get(s.Name); s.Name != "" && v != "" {
			*s.Value = v
		}
	}
	cfg.Name, cfg.Log = "surprisal dispatcher "+cmd.Name(), log
	return cfg, nil
}
