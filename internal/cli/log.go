package cli

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"surprisal/internal/usage"
)

// Log is what the log flags say.
type Log struct{ Format, Level string }

// Flags adds the log flags; note says what the default level is.
func (l *Log) Flags(f *pflag.FlagSet, note string) {
	f.StringVar(&l.Format, "log-format", "auto", "auto, console or json; auto: console at a terminal")
	f.StringVar(&l.Level, "log-level", "", "debug, info, warn or error ("+note+")")
}

// Logger writes to out what the flags ask for, from level on where they name none.
// Colours and the automatic format follow tty, the file behind out.
func (l *Log) Logger(tty *os.File, out io.Writer, level zerolog.Level) (zerolog.Logger, error) {
	format, err := l.format(tty)
	if err != nil {
		return zerolog.Nop(), err
	}
	if level, err = l.level(level); err != nil {
		return zerolog.Nop(), err
	}
	if format == "console" {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly, NoColor: !term.IsTerminal(int(tty.Fd()))}
	}
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), nil
}

func (l *Log) format(tty *os.File) (string, error) {
	switch l.Format {
	case "console", "json":
		return l.Format, nil
	case "auto":
		if term.IsTerminal(int(tty.Fd())) {
			return "console", nil
		}
		return "json", nil
	}
	return "", usage.Errorf("--log-format %q is not one of auto, console, json", l.Format)
}

func (l *Log) level(level zerolog.Level) (zerolog.Level, error) {
	if l.Level == "" {
		return level, nil
	}
	level, err := zerolog.ParseLevel(l.Level)
	if err != nil {
		return 0, usage.Errorf("--log-level %q is not one of debug, info, warn, error", l.Level)
	}
	return level, nil
}

// WorkerArgs are the log flags of a worker process that this one starts and that
// writes to the same tty. Its lines about each job are left out of a log of level
// info: the dispatcher reports jobs itself.
func (l *Log) WorkerArgs(tty *os.File, level zerolog.Level) ([]string, error) {
	format, err := l.format(tty)
	if err != nil {
		return nil, err
	}
	if level, err = l.level(level); err != nil {
		return nil, err
	}
	if level == zerolog.InfoLevel {
		level = zerolog.WarnLevel
	}
	return []string{"--log-format", format, "--log-level", level.String()}, nil
}
