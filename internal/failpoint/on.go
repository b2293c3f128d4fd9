//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether failpoints are compiled in.
const Enabled = true

// point is the action at a place.
type point struct {
	action, arg string
	from        int  // the first hit that triggers it, from 1
	on          bool // later hits trigger it too
	hits        int
}

var state = sync.OnceValues(func() (map[string]*point, error) { return parse(os.Getenv("SURPRISAL_FAILPOINT")) })

var mu sync.Mutex // guards the points' hits

func parse(s string) (map[string]*point, error) {
	points := map[string]*point{}
	for item := range strings.SplitSeq(s, ";") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, what, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("SURPRISAL_FAILPOINT: %q is not PLACE=ACTION", item)
		}
		p := &point{from: 1}
		what, count, counted := strings.Cut(what, "@")
		if counted {
			count, p.on = strings.CutSuffix(count, "+")
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("SURPRISAL_FAILPOINT: %q: want @1 or more", item)
			}
			p.from = n
		}
		p.action, p.arg, _ = strings.Cut(what, ":")
		switch p.action {
		case "kill", "stop", "error":
		case "sleep":
			if _, err := time.ParseDuration(p.arg); err != nil {
				return nil, fmt.Errorf("SURPRISAL_FAILPOINT: %q: %w", item, err)
			}
		default:
			return nil, fmt.Errorf("SURPRISAL_FAILPOINT: %q: want kill, stop, sleep or error", item)
		}
		points[name] = p
	}
	return points, nil
}

// Hit performs the action that SURPRISAL_FAILPOINT sets for the place.
func Hit(name string) error {
	points, err := state()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	p := points[name]
	if p == nil {
		return nil
	}
	mu.Lock()
	p.hits++
	due := p.hits == p.from || p.on && p.hits > p.from
	mu.Unlock()
	if !due {
		return nil
	}
	return p.do(name)
}

func (p *point) do(name string) error {
	switch p.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		return nil
	case "sleep":
		d, _ := time.ParseDuration(p.arg) // parse has checked it
		time.Sleep(d)
		return nil
	}
	for _, e := range []struct {
		name string
		err  error
	}{{"EIO", syscall.EIO}, {"ENOSPC", syscall.ENOSPC}, {"EROFS", syscall.EROFS}} {
		if p.arg == e.name {
			return &os.PathError{Op: "write", Path: name, Err: e.err}
		}
	}
	return errors.New(p.arg)
}
